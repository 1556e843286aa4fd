//! Errors of the Qdrant client as errors of the storage.

use qdrant_client::QdrantError;
use tonic::Code;
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
            classify_response_error(status.code(), what, reason)
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
fn classify_response_error(code: Code, what: String, reason: String) -> StorageError {
    // The client's connection pool reports a failed connection as an internal error.
    if reason.starts_with("Failed to connect to ") {
        let reason = "it cannot be reached".into();
        return StorageError::Unavailable { what, reason };
    }
    match code {
        Code::Cancelled | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Unavailable => {
            StorageError::Unavailable { what, reason }
        }
        Code::PermissionDenied | Code::Unauthenticated => StorageError::PermissionDenied { what, reason },
        Code::NotFound => StorageError::Failed {
            what,
            reason: format!("{reason} Restart weir, which creates the collection again."),
        },
        _ => StorageError::Failed { what, reason },
    }
}
