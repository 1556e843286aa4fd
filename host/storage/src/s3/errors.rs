//! Errors of the S3 client as errors of the storage.
//!
//! Tenants read these errors. So an error names what was accessed and the server's error code, but neither the endpoint nor the message
//! of the server, which can contain account numbers. Both are written to the log.

use std::error::Error;
use std::time::Duration;

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use weir_core::StorageError;

/// The name of the server in errors.
pub(super) const SERVER_NAME: &str = "the S3 server";

/// Converts errors of requests to one bucket.
#[derive(Debug, Clone)]
pub(super) struct ErrorMapper {
    pub(super) bucket: String,
    pub(super) attempt_timeout: Duration,
}

impl ErrorMapper {
    /// Converts an error of a request about `what`, such as `document <id>`.
    pub(super) fn to_storage_error<E>(&self, what: &str, error: SdkError<E>) -> StorageError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let storage_error = match &error {
            SdkError::TimeoutError(_) => {
                let seconds = self.attempt_timeout.as_secs_f32();
                unavailable(what, format!("no response within {seconds} s"))
            }
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                unavailable(what, "the connection timed out".into())
            }
            SdkError::DispatchFailure(failure) if failure.is_io() => {
                unavailable(what, "it cannot be reached".into())
            }
            SdkError::DispatchFailure(_) => StorageError::PermissionDenied {
                what: SERVER_NAME.into(),
                reason: "no credentials were found or they could not be loaded: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                         or a profile, a web identity or an instance role"
                    .into(),
            },
            SdkError::ResponseError(_) => unavailable(what, "its response is not valid or was cut off".into()),
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                self.classify_response(what, status, service.err().code().unwrap_or_default())
            }
            _ => StorageError::Failed {
                what: what.to_owned(),
                reason: "the request could not be built".into(),
            },
        };
        tracing::warn!(what, error = %DisplayErrorContext(&error), "a request to the S3 server failed");
        storage_error
    }

    fn classify_response(&self, what: &str, status: u16, code: &str) -> StorageError {
        let response = match code {
            "" => format!("HTTP status {status}"),
            code => format!("{code}, HTTP status {status}"),
        };
        match (status, code) {
            (_, "NoSuchBucket") => self.missing_bucket_error(),
            (
                _,
                "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException",
            )
            | (301 | 307, _) => StorageError::Failed {
                what: format!("the S3 bucket {}", self.bucket),
                reason: format!("it is in another region ({response}): check storage.s3_region"),
            },
            (401 | 403, _) => StorageError::PermissionDenied {
                what: what.to_owned(),
                reason: format!("the S3 server refused it ({response})"),
            },
            (408 | 429 | 500.., _) | (_, "SlowDown" | "RequestTimeout") => unavailable(what, response),
            _ => StorageError::Failed {
                what: what.to_owned(),
                reason: format!("the S3 server answered {response}"),
            },
        }
    }

    /// Returns the error for a bucket that does not exist.
    pub(super) fn missing_bucket_error(&self) -> StorageError {
        StorageError::Failed {
            what: format!("the S3 bucket {}", self.bucket),
            reason: "it does not exist: create it, or change storage.blobs".into(),
        }
    }
}

/// Returns the error of a server that does not respond or is overloaded.
pub(super) fn unavailable(what: &str, reason: String) -> StorageError {
    StorageError::Unavailable {
        what: SERVER_NAME.into(),
        reason: format!("{what}: {reason}"),
    }
}

/// Whether the object does not exist. The response of a HEAD request has no error code, only the status.
pub(super) fn is_missing_object<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    error
        .as_service_error()
        .is_some_and(|service| match service.code() {
            Some(code) => matches!(code, "NoSuchKey" | "NotFound"),
            None => true,
        })
        && http_status(error) == Some(404)
}

/// Returns the HTTP status of an error that the server returned.
pub(super) fn http_status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_classified_by_status_and_code() {
        let mapper = ErrorMapper {
            bucket: "documents".into(),
            attempt_timeout: Duration::from_secs(20),
        };
        for (status, code, kind) in [
            (404, "NoSuchBucket", "storage-failed"),
            (403, "AccessDenied", "storage-denied"),
            (403, "SignatureDoesNotMatch", "storage-denied"),
            (403, "RequestTimeTooSkewed", "storage-denied"),
            (500, "InternalError", "storage-unavailable"),
            (503, "SlowDown", "storage-unavailable"),
            (503, "", "storage-unavailable"),
            (429, "", "storage-unavailable"),
            (400, "RequestTimeout", "storage-unavailable"),
            (301, "PermanentRedirect", "storage-failed"),
            (400, "KeyTooLongError", "storage-failed"),
        ] {
            let error = mapper.classify_response("blob d/1.jpg", status, code);
            assert_eq!(error.kind(), kind, "{status} {code}: {error}");
            let message = error.to_string();
            assert!(
                message.contains("blob d/1.jpg") || message.contains("bucket documents"),
                "{message}"
            );
        }
    }
}
