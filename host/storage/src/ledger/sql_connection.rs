//! One connection to the ledger's database, in SQLite or PostgreSQL.
//!
//! The functions that read and write rows are written once, for both databases. They are synchronous: SQLite is, and a function over
//! PostgreSQL runs on a blocking thread that it shares with no other. Their statements use the SQL that both databases understand,
//! with parameters `?1`, `?2`. The clock ([`SqlConnection::now_millis`]) is the only part with two forms.

use std::borrow::Cow;

use rusqlite::OptionalExtension as _;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use super::postgres::connection::PostgresConnection;
pub(super) use super::sql_error::{SqlError, SqlResult};
use super::sql_values::{FromSqlValue, SqlValue};

/// A connection. In a transaction it sees its own changes.
pub(super) enum SqlConnection<'a> {
    Sqlite(&'a rusqlite::Connection),
    Postgres(PostgresConnection<'a>),
}

impl SqlConnection<'_> {
    /// Changes rows. PostgreSQL runs the statement together with the next one that returns something, or with the commit.
    pub(super) fn execute(&self, sql: &str, values: &[SqlValue<'_>]) -> SqlResult<()> {
        match self {
            Self::Sqlite(c) => execute_in_sqlite(c, sql, values).map(drop),
            Self::Postgres(c) => {
                c.queue_statement(sql, values);
                Ok(())
            }
        }
    }

    /// Runs statements without parameters, separated by semicolons.
    pub(super) fn execute_batch(&self, sql: &'static str) -> SqlResult<()> {
        match self {
            Self::Sqlite(c) => Ok(c.execute_batch(sql)?),
            Self::Postgres(c) => {
                c.queue_batch(sql);
                Ok(())
            }
        }
    }

    /// Returns when all earlier statements have run.
    pub(super) fn finish_queued(&self) -> SqlResult<()> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(c) => c.run_all_queued(),
        }
    }

    /// Changes rows and returns how many.
    pub(super) fn execute_and_count_rows(&self, sql: &str, values: &[SqlValue<'_>]) -> SqlResult<u64> {
        match self {
            Self::Sqlite(c) => execute_in_sqlite(c, sql, values),
            Self::Postgres(c) => c.run_queued_and_count_rows(sql, values),
        }
    }

    /// Returns all rows.
    pub(super) fn query_rows<T>(
        &self,
        sql: &str,
        values: &[SqlValue<'_>],
        read_row: impl Fn(&SqlRow<'_>) -> SqlResult<T>,
    ) -> SqlResult<Vec<T>> {
        match self {
            Self::Sqlite(c) => {
                let mut statement = c.prepare_cached(sql)?;
                let mut rows = statement.query(rusqlite::params_from_iter(values))?;
                let mut read = Vec::new();
                while let Some(row) = rows.next()? {
                    read.push(read_row(&SqlRow::Sqlite(row))?);
                }
                Ok(read)
            }
            Self::Postgres(c) => {
                let rows = c.run_queued_and_query(sql, values)?;
                rows.iter().map(|row| read_row(&SqlRow::Postgres(row))).collect()
            }
        }
    }

    /// Returns the first row; `None` if there is none.
    pub(super) fn query_optional<T>(
        &self,
        sql: &str,
        values: &[SqlValue<'_>],
        read_row: impl Fn(&SqlRow<'_>) -> SqlResult<T>,
    ) -> SqlResult<Option<T>> {
        match self {
            Self::Sqlite(c) => c
                .prepare_cached(sql)?
                .query_row(rusqlite::params_from_iter(values), |row| {
                    Ok(read_row(&SqlRow::Sqlite(row)))
                })
                .optional()?
                .transpose(),
            Self::Postgres(c) => {
                let rows = c.run_queued_and_query(sql, values)?;
                rows.first()
                    .map(|row| read_row(&SqlRow::Postgres(row)))
                    .transpose()
            }
        }
    }

    /// Returns the first row of a statement that always returns one.
    pub(super) fn query_one<T>(
        &self,
        sql: &str,
        values: &[SqlValue<'_>],
        read_row: impl Fn(&SqlRow<'_>) -> SqlResult<T>,
    ) -> SqlResult<T> {
        self.query_optional(sql, values, read_row)?.ok_or(SqlError::NoRow)
    }

    /// Returns the expression for the time of the database's clock, in milliseconds since 1970.
    pub(super) const fn now_millis(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
            Self::Postgres(_) => "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
        }
    }

    /// Returns the schema version, because a reader opens an SQLite file without upgrading it. PostgreSQL's schema is always upgraded.
    pub(super) fn schema_version(&self) -> SqlResult<u32> {
        match self {
            Self::Sqlite(c) => Ok(c.pragma_query_value(None, "user_version", |row| row.get(0))?),
            Self::Postgres(_) => Ok(u32::MAX),
        }
    }
}

fn execute_in_sqlite(c: &rusqlite::Connection, sql: &str, values: &[SqlValue<'_>]) -> SqlResult<u64> {
    let rows = c
        .prepare_cached(sql)?
        .execute(rusqlite::params_from_iter(values))?;
    Ok(rows as u64)
}

impl rusqlite::ToSql for SqlValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            SqlValue::Null => ToSqlOutput::Owned(Value::Null),
            SqlValue::Integer(number) => ToSqlOutput::Owned(Value::Integer(*number)),
            SqlValue::Real(number) => ToSqlOutput::Owned(Value::Real(*number)),
            SqlValue::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            SqlValue::Blob(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

/// A row of a result.
pub(super) enum SqlRow<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a tokio_postgres::Row),
}

impl SqlRow<'_> {
    /// Returns the value of a column, from 0.
    pub(super) fn get<T: FromSqlValue>(&self, column: usize) -> SqlResult<T> {
        let value = self.get_value(column)?;
        T::from_sql_value(value).map_err(|reason| SqlError::InvalidColumn { column, reason })
    }

    /// Returns a copy of the value of a column, from 0.
    pub(super) fn get_owned_value(&self, column: usize) -> SqlResult<SqlValue<'static>> {
        Ok(self.get_value(column)?.into_owned())
    }

    /// Converts the text of a column without copying it.
    pub(super) fn convert_text<T>(
        &self,
        column: usize,
        convert: impl FnOnce(&str) -> Result<T, String>,
    ) -> SqlResult<T> {
        let converted = match self.get_value(column)? {
            SqlValue::Text(text) => convert(&text),
            _ => Err("not a text".into()),
        };
        converted.map_err(|reason| SqlError::InvalidColumn { column, reason })
    }

    fn get_value(&self, column: usize) -> SqlResult<SqlValue<'_>> {
        match self {
            Self::Sqlite(row) => match row.get_ref(column)? {
                ValueRef::Null => Ok(SqlValue::Null),
                ValueRef::Integer(number) => Ok(SqlValue::Integer(number)),
                ValueRef::Real(number) => Ok(SqlValue::Real(number)),
                ValueRef::Blob(bytes) => Ok(SqlValue::Blob(Cow::Borrowed(bytes))),
                ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => Ok(SqlValue::Text(Cow::Borrowed(text))),
                    Err(error) => Err(SqlError::InvalidColumn {
                        column,
                        reason: error.to_string(),
                    }),
                },
            },
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }
}
