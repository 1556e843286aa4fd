//! Errors of the ledger's database.

use weir_core::JobId;

/// An error of the database, or a row that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SqlError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    /// PostgreSQL did not respond in time.
    #[error("no response within {0} seconds")]
    NoResponse(u64),
    #[error("column {column}: {reason}")]
    InvalidColumn { column: usize, reason: String },
    #[error("a value cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a statement that returns one row returned none")]
    NoRow,
    /// Another node has claimed the job.
    #[error("job {0} is run by another node")]
    ClaimLost(JobId),
}

pub(super) type SqlResult<T> = Result<T, SqlError>;
