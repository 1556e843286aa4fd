//! Errors of the Qdrant client as errors of the storage.

use qdrant_client::QdrantError;
use weir_core::StorageError;

/// The name of the server in errors.
pub(super) const SERVER_NAME: &str = "the Qdrant server";

/// Converts an error of the client. Every transport error has a gRPC status.
pub(super) fn to_storage_error(error: QdrantError) -> StorageError {
    let what = SERVER_NAME.to_owned();
    match &error {
        QdrantError::ResponseError { status } => {
            let reason = status.message().trim();
            let reason = match reason.is_empty() {
                true => status.code().to_string(),
                false => reason.split_whitespace().collect::<Vec<_>>().join(" "),
            };
            classify_response_error(i32::from(status.code()), what, reason)
        }
        QdrantError::ResourceExhaustedError { status, .. } => StorageError::Unavailable {
            what,
            reason: status.message().to_owned(),
        },
        QdrantError::Io(error) => StorageError::Unavailable {
            what,
            reason: error.to_string(),
        },
        _ => StorageError::Failed {
            what,
            reason: error.to_string(),
        },
    }
}

/// Converts a gRPC status code (<https://grpc.github.io/grpc/core/md_doc_statuscodes.html>) with its message.
fn classify_response_error(code: i32, what: String, reason: String) -> StorageError {
    const CANCELLED: i32 = 1;
    const DEADLINE_EXCEEDED: i32 = 4;
    const NOT_FOUND: i32 = 5;
    const PERMISSION_DENIED: i32 = 7;
    const RESOURCE_EXHAUSTED: i32 = 8;
    const UNAVAILABLE: i32 = 14;
    const UNAUTHENTICATED: i32 = 16;
    // The client's connection pool reports a failed connection as an internal error.
    if reason.starts_with("Failed to connect to ") {
        let reason = "it cannot be reached".into();
        return StorageError::Unavailable { what, reason };
    }
    match code {
        CANCELLED | DEADLINE_EXCEEDED | RESOURCE_EXHAUSTED | UNAVAILABLE => {
            StorageError::Unavailable { what, reason }
        }
        PERMISSION_DENIED | UNAUTHENTICATED => StorageError::PermissionDenied { what, reason },
        NOT_FOUND => StorageError::Failed {
            what,
            reason: format!("{reason} Restart weir, which creates the collection again."),
        },
        _ => StorageError::Failed { what, reason },
    }
}
