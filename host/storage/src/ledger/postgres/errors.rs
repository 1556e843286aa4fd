//! Errors of PostgreSQL as errors of the ledger.

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;
use weir_core::StorageError;

use crate::ledger::ledger_name::LEDGER_NAME;
use crate::ledger::sql_connection::SqlError;

/// Converts an error of a statement.
pub(super) fn to_storage_error(error: &SqlError) -> StorageError {
    let what = LEDGER_NAME.to_owned();
    match error {
        SqlError::Postgres(error) => from_postgres_error(error),
        SqlError::NoResponse(_) => StorageError::Unavailable {
            what,
            reason: error.to_string(),
        },
        SqlError::InvalidColumn { .. } => StorageError::Damaged {
            what,
            reason: error.to_string(),
        },
        SqlError::ClaimLost(job) => StorageError::ClaimLost { job: *job },
        SqlError::Sqlite(_) | SqlError::Json(_) | SqlError::NoRow => StorageError::Failed {
            what,
            reason: error.to_string(),
        },
    }
}

/// Converts an error of the pool.
pub(super) fn from_pool_error(error: &PoolError) -> StorageError {
    match error {
        PoolError::Backend(error) => from_postgres_error(error),
        PoolError::Closed => StorageError::Failed {
            what: LEDGER_NAME.into(),
            reason: "it is already closed".into(),
        },
        error => StorageError::Unavailable {
            what: LEDGER_NAME.into(),
            reason: error.to_string(),
        },
    }
}

fn from_postgres_error(error: &tokio_postgres::Error) -> StorageError {
    let what = LEDGER_NAME.to_owned();
    let Some(state) = error.code() else {
        let reason = describe_with_sources(error);
        return match is_connection_error(error) {
            true => StorageError::Unavailable { what, reason },
            false => StorageError::Failed { what, reason },
        };
    };
    let reason = error
        .as_db_error()
        .map_or_else(|| error.to_string(), |error| error.message().to_owned());
    match *state {
        SqlState::DISK_FULL => StorageError::NoSpace { what },
        SqlState::INSUFFICIENT_PRIVILEGE
        | SqlState::INVALID_PASSWORD
        | SqlState::INVALID_AUTHORIZATION_SPECIFICATION
        | SqlState::READ_ONLY_SQL_TRANSACTION => StorageError::PermissionDenied { what, reason },
        SqlState::INVALID_CATALOG_NAME => StorageError::NotFound {
            what: format!("{what}: {reason}"),
        },
        SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => StorageError::Damaged { what, reason },
        SqlState::QUERY_CANCELED
        | SqlState::T_R_SERIALIZATION_FAILURE
        | SqlState::T_R_DEADLOCK_DETECTED
        | SqlState::LOCK_NOT_AVAILABLE
        | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
        | SqlState::ADMIN_SHUTDOWN
        | SqlState::CRASH_SHUTDOWN
        | SqlState::CANNOT_CONNECT_NOW => StorageError::Unavailable { what, reason },
        // Connection exceptions and insufficient resources.
        _ if matches!(state.code().get(..2), Some("08" | "53")) => StorageError::Unavailable { what, reason },
        _ => StorageError::Failed {
            what,
            reason: format!("{reason} (SQLSTATE {})", state.code()),
        },
    }
}

/// Returns whether the connection could not be made, or broke. Other errors without a code are those of values that cannot be converted,
/// which fail again.
fn is_connection_error(error: &tokio_postgres::Error) -> bool {
    let message = error.to_string();
    let is_conversion = [
        "error serializing",
        "error deserializing",
        "invalid column",
        "expected ",
    ]
    .iter()
    .any(|start| message.starts_with(start));
    error.is_closed() || !is_conversion
}

/// Returns the message of an error with those of its causes.
fn describe_with_sources(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    message
}
