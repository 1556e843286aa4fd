//! Statements on one connection to PostgreSQL, for callers on a blocking thread.
//!
//! Statements that return nothing are queued. The next statement that returns something, or the commit, sends the queue in front of
//! itself without waiting for single responses. So a group commit of any size takes one round trip. All statements are prepared once for each
//! connection.

use std::borrow::Cow;
use std::cell::RefCell;
use std::error::Error;
use std::time::Duration;

use bytes::BytesMut;
use deadpool_postgres::ClientWrapper;
use futures::future::join_all;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Row, Statement};

use crate::ledger::sql_error::{SqlError, SqlResult};
use crate::ledger::sql_values::SqlValue;

/// Time that a round trip may take. PostgreSQL itself stops statements earlier.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection in use.
pub(in crate::ledger) struct PostgresConnection<'a> {
    client: &'a ClientWrapper,
    runtime: Handle,
    queue: RefCell<Vec<QueuedStatement>>,
}

enum QueuedStatement {
    /// Statements without parameters and results.
    Batch(&'static str),
    Prepared {
        sql: String,
        values: Vec<SqlValue<'static>>,
    },
}

#[derive(Default)]
struct StatementResult {
    rows: Vec<Row>,
    changed_rows: u64,
}

/// How a statement's result is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ResultKind {
    Rows,
    ChangedRows,
}

impl<'a> PostgresConnection<'a> {
    pub(super) fn new(client: &'a ClientWrapper, runtime: Handle) -> Self {
        Self {
            client,
            runtime,
            queue: RefCell::default(),
        }
    }

    /// Queues statements without parameters, separated by semicolons.
    pub(in crate::ledger) fn queue_batch(&self, sql: &'static str) {
        self.queue.borrow_mut().push(QueuedStatement::Batch(sql));
    }

    /// Queues a statement with parameters `?1`, `?2` and so on.
    pub(in crate::ledger) fn queue_statement(&self, sql: &str, values: &[SqlValue<'_>]) {
        self.queue.borrow_mut().push(QueuedStatement::Prepared {
            sql: to_postgres_parameters(sql),
            values: values.iter().map(|value| value.clone().into_owned()).collect(),
        });
    }

    /// Runs the queue and a statement, and returns how many rows the statement changed.
    pub(in crate::ledger) fn run_queued_and_count_rows(
        &self,
        sql: &str,
        values: &[SqlValue<'_>],
    ) -> SqlResult<u64> {
        self.queue_statement(sql, values);
        Ok(self.run_queued(ResultKind::ChangedRows)?.changed_rows)
    }

    /// Runs the queue and a statement, and returns the statement's rows.
    pub(in crate::ledger) fn run_queued_and_query(
        &self,
        sql: &str,
        values: &[SqlValue<'_>],
    ) -> SqlResult<Vec<Row>> {
        self.queue_statement(sql, values);
        Ok(self.run_queued(ResultKind::Rows)?.rows)
    }

    /// Runs the queue and returns when all its statements have run.
    pub(in crate::ledger) fn run_all_queued(&self) -> SqlResult<()> {
        self.run_queued(ResultKind::ChangedRows).map(drop)
    }

    /// Runs the queue in order. Returns the result of its last statement, or the error of the first that failed: after a failure
    /// PostgreSQL runs no further statement of the transaction, and a commit becomes a rollback.
    fn run_queued(&self, last: ResultKind) -> SqlResult<StatementResult> {
        let queue = self.queue.take();
        self.runtime.block_on(async {
            let run = timeout(RESPONSE_TIMEOUT, self.send_all_and_await(&queue, last)).await;
            run.map_err(|_| SqlError::NoResponse(RESPONSE_TIMEOUT.as_secs()))?
        })
    }

    async fn send_all_and_await(
        &self,
        queue: &[QueuedStatement],
        last: ResultKind,
    ) -> SqlResult<StatementResult> {
        // All are prepared before the first is sent. Then each future sends its statement when it is first polled, in the order of the
        // queue.
        let mut prepared = Vec::with_capacity(queue.len());
        for statement in queue {
            prepared.push(match statement {
                QueuedStatement::Batch(_) => None,
                QueuedStatement::Prepared { sql, .. } => Some(self.client.prepare_cached(sql).await?),
            });
        }
        let last_index = queue.len().saturating_sub(1);
        let statements = queue.iter().zip(&prepared).enumerate();
        let results = join_all(statements.map(|(index, (statement, prepared))| {
            let kind = match index == last_index {
                true => last,
                false => ResultKind::ChangedRows,
            };
            self.send_and_await(statement, prepared.as_ref(), kind)
        }));
        let mut result = StatementResult::default();
        for each in results.await {
            result = each?;
        }
        Ok(result)
    }

    async fn send_and_await(
        &self,
        statement: &QueuedStatement,
        prepared: Option<&Statement>,
        kind: ResultKind,
    ) -> SqlResult<StatementResult> {
        let mut result = StatementResult::default();
        match (statement, prepared) {
            (QueuedStatement::Prepared { values, .. }, Some(prepared)) => {
                let values: Vec<&(dyn ToSql + Sync)> =
                    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
                match kind {
                    ResultKind::Rows => result.rows = self.client.query(prepared, &values).await?,
                    ResultKind::ChangedRows => {
                        result.changed_rows = self.client.execute(prepared, &values).await?;
                    }
                }
            }
            (QueuedStatement::Batch(sql), _) => self.client.batch_execute(sql).await?,
            (QueuedStatement::Prepared { .. }, None) => {}
        }
        Ok(result)
    }
}

/// Replaces the parameters `?1` by `$1`. The statements contain no other question marks.
fn to_postgres_parameters(sql: &str) -> String {
    sql.replace('?', "$")
}

impl ToSql for SqlValue<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            SqlValue::Null => Ok(IsNull::Yes),
            SqlValue::Integer(number) => match *ty {
                Type::BOOL => (*number != 0).to_sql(ty, out),
                Type::INT4 => i32::try_from(*number)?.to_sql(ty, out),
                _ => number.to_sql(ty, out),
            },
            SqlValue::Real(number) => number.to_sql(ty, out),
            // PostgreSQL's text cannot hold the character U+0000, which is in titles of some documents.
            SqlValue::Text(text) if text.contains('\0') => text.replace('\0', "\u{fffd}").to_sql(ty, out),
            SqlValue::Text(text) => text.to_sql(ty, out),
            SqlValue::Blob(bytes) => bytes.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        matches!(
            *ty,
            Type::BOOL | Type::INT4 | Type::INT8 | Type::FLOAT8 | Type::TEXT | Type::BYTEA
        )
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for SqlValue<'a> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(match *ty {
            Type::BOOL => SqlValue::Integer(i64::from(bool::from_sql(ty, raw)?)),
            Type::INT4 => SqlValue::Integer(i64::from(i32::from_sql(ty, raw)?)),
            Type::INT8 => SqlValue::Integer(i64::from_sql(ty, raw)?),
            Type::FLOAT8 => SqlValue::Real(f64::from_sql(ty, raw)?),
            Type::BYTEA => SqlValue::Blob(Cow::Borrowed(<&[u8]>::from_sql(ty, raw)?)),
            _ => SqlValue::Text(Cow::Borrowed(<&str>::from_sql(ty, raw)?)),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(SqlValue::Null)
    }

    fn accepts(ty: &Type) -> bool {
        <Self as ToSql>::accepts(ty)
    }
}
