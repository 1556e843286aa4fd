//! Copies and compares the rows of one table.
//!
//! Rows are copied in the order of their key, so the last key in the target says where an interrupted copy goes on. They are read and
//! written in batches of about [`BATCH_BYTES`].

use super::ledger_tables::LedgerTable;
use super::sql_connection::{SqlConnection, SqlResult};
use super::sql_values::{SqlValue, params};
use crate::migration_progress::{ContentDigest, hash_parts};

/// The bytes that a batch should have.
const BATCH_BYTES: usize = 4 << 20;
/// Maximum number of rows of a batch.
const MAX_BATCH_ROWS: usize = 4000;
/// Rows of a first batch, before the size of the rows is known.
pub(super) const FIRST_BATCH_ROWS: usize = 100;

/// Values of a row's columns, or of its key.
pub(super) type Values = Vec<SqlValue<'static>>;

/// Some rows of a table.
pub(super) struct RowBatch {
    pub(super) rows: Vec<Values>,
    /// The key of the last row; `None` if there are no rows.
    pub(super) last_key: Option<Values>,
    bytes: usize,
}

impl RowBatch {
    /// Returns how many rows the next batch should have.
    pub(super) fn next_batch_rows(&self) -> usize {
        let row_bytes = self.bytes / self.rows.len().max(1);
        (BATCH_BYTES / row_bytes.max(1)).clamp(1, MAX_BATCH_ROWS)
    }
}

/// Reads the rows after a key, or the first rows.
pub(super) fn read_batch(
    c: &SqlConnection<'_>,
    table: &LedgerTable,
    after: Option<&Values>,
    max_rows: usize,
) -> SqlResult<RowBatch> {
    let mut parameters = after.cloned().unwrap_or_default();
    parameters.push(SqlValue::Integer(i64::try_from(max_rows).unwrap_or(i64::MAX)));
    let rows = c.query_rows(&table.read_sql(after.is_some()), &parameters, |row| {
        (0..table.columns.len())
            .map(|column| row.get_owned_value(column))
            .collect::<SqlResult<Values>>()
    })?;
    let key_positions = table.key_positions();
    let last_key = rows.last().map(|row| {
        let value = |position: &usize| row.get(*position).cloned();
        key_positions.iter().filter_map(value).collect()
    });
    let bytes = rows.iter().flatten().map(value_bytes).sum();
    Ok(RowBatch {
        rows,
        last_key,
        bytes,
    })
}

/// Inserts the rows that the table does not have.
pub(super) fn insert_rows(t: &SqlConnection<'_>, table: &LedgerTable, rows: &[Values]) -> SqlResult<()> {
    let sql = table.insert_sql(t);
    rows.iter().try_for_each(|row| t.execute(&sql, row))
}

/// Returns the key of the last row; `None` if there are no rows.
pub(super) fn find_last_key(c: &SqlConnection<'_>, table: &LedgerTable) -> SqlResult<Option<Values>> {
    c.query_optional(&table.last_key_sql(), params![], |row| {
        (0..table.key.len())
            .map(|column| row.get_owned_value(column))
            .collect()
    })
}

pub(super) fn count_rows(c: &SqlConnection<'_>, table: &LedgerTable) -> SqlResult<u64> {
    c.query_one(
        &format!("SELECT count(*) FROM {}", table.name),
        params![],
        |row| row.get(0),
    )
}

/// Adds rows to a digest, which is the same for both databases.
pub(super) fn add_rows_to_digest(digest: &mut ContentDigest, rows: &[Values]) {
    for row in rows {
        let parts: Vec<Vec<u8>> = row.iter().map(encode_value).collect();
        digest.add_item(hash_parts(parts.iter().map(Vec::as_slice)), 0);
    }
}

/// Encodes a value with its type. A character U+0000 is encoded as what PostgreSQL stores instead of it.
fn encode_value(value: &SqlValue<'_>) -> Vec<u8> {
    let (kind, bytes) = match value {
        SqlValue::Null => (0_u8, Vec::new()),
        SqlValue::Integer(number) => (1, number.to_le_bytes().to_vec()),
        SqlValue::Real(number) => (2, number.to_bits().to_le_bytes().to_vec()),
        SqlValue::Text(text) => (3, text.replace('\0', "\u{fffd}").into_bytes()),
        SqlValue::Blob(bytes) => (4, bytes.to_vec()),
    };
    std::iter::once(kind).chain(bytes).collect()
}

fn value_bytes(value: &SqlValue<'_>) -> usize {
    match value {
        SqlValue::Null => 0,
        SqlValue::Integer(_) | SqlValue::Real(_) => 8,
        SqlValue::Text(text) => text.len(),
        SqlValue::Blob(bytes) => bytes.len(),
    }
}

/// Returns the highest value that was generated for a column, also if its row was removed.
pub(super) fn find_highest_generated(c: &SqlConnection<'_>, table: &str, column: &str) -> SqlResult<i64> {
    let generated = match c {
        SqlConnection::Sqlite(_) => "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?1",
        SqlConnection::Postgres(_) => {
            "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence(?1, ?2)::regclass), 0)"
        }
    };
    let both = params![table, column];
    let parameters = match c {
        SqlConnection::Sqlite(_) => both.get(..1).unwrap_or_default(),
        SqlConnection::Postgres(_) => both,
    };
    let generated: i64 = c.query_one(generated, parameters, |row| row.get(0))?;
    let highest = format!("SELECT coalesce(max({column}), 0) FROM {table}");
    let stored: i64 = c.query_one(&highest, params![], |row| row.get(0))?;
    Ok(generated.max(stored))
}

/// Lets the values that are generated for a column go on after `highest`.
pub(super) fn set_highest_generated(
    t: &SqlConnection<'_>,
    table: &str,
    column: &str,
    highest: i64,
) -> SqlResult<()> {
    if highest <= 0 {
        return Ok(());
    }
    match t {
        SqlConnection::Postgres(_) => t.query_one(
            "SELECT setval(pg_get_serial_sequence(?1, ?2)::regclass, ?3)",
            params![table, column, highest],
            |_| Ok(()),
        ),
        SqlConnection::Sqlite(_) => {
            // The others take the highest value of the table plus 1.
            let has_sequence: bool = t.query_one(
                "SELECT count(*) FROM sqlite_schema WHERE name = ?1 AND sql LIKE '%AUTOINCREMENT%'",
                params![table],
                |row| row.get(0),
            )?;
            if !has_sequence {
                return Ok(());
            }
            t.execute("DELETE FROM sqlite_sequence WHERE name = ?1", params![table])?;
            t.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)",
                params![table, highest],
            )
        }
    }
}
