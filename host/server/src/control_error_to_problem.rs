//! Converts the errors of `weir-control` into problems.

use std::time::Duration;

use weir_control::document_removal::DeleteDocumentError;
use weir_control::events::JobStreamStartError;
use weir_control::jobs::{CancelJobError, RetryJobError};
use weir_control::pipelines::{
    PipelineUnavailableError, PushComponentError, PushRevisionError, ReplayJobError,
};
use weir_control::submission::{AdmissionError, CommitJobError};
use weir_control::tenant_removal::{RemoveTenantError, TENANT_REMOVAL_TIMEOUT};
use weir_control::{QuotaCheckError, QuotaExceeded, TaskPanicked, UploadReservationError};
use weir_core::PolicyError;
use weir_core::replay::ReplayError;
use weir_engine::DeleteError;

use crate::problem::Problem;

/// `Retry-After` if the host is overloaded or stopping.
const OVERLOAD_RETRY_AFTER: Duration = Duration::from_secs(10);

impl From<TaskPanicked> for Problem {
    fn from(error: TaskPanicked) -> Self {
        Self::internal_error(error.to_string())
    }
}

impl From<QuotaExceeded> for Problem {
    fn from(error: QuotaExceeded) -> Self {
        match error.retry_after {
            Some(wait) => Self::named_quota_exceeded(error.quota, error.detail, wait),
            None => Self::too_large(error.detail).with_quota_name(error.quota),
        }
    }
}

impl From<QuotaCheckError> for Problem {
    fn from(error: QuotaCheckError) -> Self {
        match error {
            QuotaCheckError::Exceeded(error) => error.into(),
            QuotaCheckError::Storage(error) => error.into(),
        }
    }
}

impl From<UploadReservationError> for Problem {
    fn from(error: UploadReservationError) -> Self {
        match error {
            UploadReservationError::Quota(error) => error.into(),
            UploadReservationError::DiskFull { .. } => Self::storage_full(error.to_string()),
            UploadReservationError::Storage(error) => error.into(),
        }
    }
}

impl From<AdmissionError> for Problem {
    fn from(error: AdmissionError) -> Self {
        let detail = error.to_string();
        match error {
            AdmissionError::Stopping => Self::stopping(detail).with_retry_after(OVERLOAD_RETRY_AFTER),
            AdmissionError::Overloaded(_) | AdmissionError::HostQueueFull => {
                Self::overloaded(detail).with_retry_after(OVERLOAD_RETRY_AFTER)
            }
            AdmissionError::TenantBeingRemoved => Self::tenant_suspended(detail),
            AdmissionError::Quota(error) => error.into(),
            AdmissionError::Storage(error) => error.into(),
        }
    }
}

impl From<CommitJobError> for Problem {
    fn from(error: CommitJobError) -> Self {
        match error {
            CommitJobError::IdempotencyKeyReused => Self::idempotency_key_reused(error.to_string()),
            CommitJobError::DocumentBeingRemoved(_) => {
                Self::overloaded(error.to_string()).with_retry_after(OVERLOAD_RETRY_AFTER)
            }
            CommitJobError::Storage(error) => error.into(),
        }
    }
}

impl From<CancelJobError> for Problem {
    fn from(error: CancelJobError) -> Self {
        match error {
            CancelJobError::NotRunningHere => Self::stopping(error.to_string()),
            CancelJobError::Storage(error) => error.into(),
            CancelJobError::TaskPanicked(error) => error.into(),
        }
    }
}

impl From<RetryJobError> for Problem {
    fn from(error: RetryJobError) -> Self {
        match error {
            RetryJobError::DocumentMissing(_) => Self::conflict(error.to_string()),
            RetryJobError::Commit(error) => error.into(),
            RetryJobError::Storage(error) => error.into(),
            RetryJobError::TaskPanicked(error) => error.into(),
        }
    }
}

impl From<DeleteDocumentError> for Problem {
    fn from(error: DeleteDocumentError) -> Self {
        match error {
            DeleteDocumentError::Delete(DeleteError::Storage(error)) => error.into(),
            DeleteDocumentError::Delete(DeleteError::DocumentActive(_))
            | DeleteDocumentError::AlreadyInProgress(_) => Self::conflict(error.to_string()),
        }
    }
}

impl From<RemoveTenantError> for Problem {
    fn from(error: RemoveTenantError) -> Self {
        match error {
            RemoveTenantError::NotFound => Self::not_found(error.to_string()),
            RemoveTenantError::StillActive => {
                Self::stopping(error.to_string()).with_retry_after(TENANT_REMOVAL_TIMEOUT)
            }
            RemoveTenantError::Storage(error) => error.into(),
        }
    }
}

impl From<JobStreamStartError> for Problem {
    fn from(error: JobStreamStartError) -> Self {
        match error {
            JobStreamStartError::JobNotFound => Self::not_found(error.to_string()),
            JobStreamStartError::EventNotFound(_) => Self::conflict(error.to_string()),
            JobStreamStartError::Storage(error) => error.into(),
        }
    }
}

/// Status 422 if the component is at fault, 503 if the host has no capacity.
impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::NoInstanceAvailable { .. } => Self::overloaded(error.to_string()),
            _ => Self::unprocessable(error.to_string()),
        }
    }
}

impl From<PushComponentError> for Problem {
    fn from(error: PushComponentError) -> Self {
        match error {
            PushComponentError::AnotherPushInProgress => Self::conflict(error.to_string()),
            PushComponentError::TooLarge => Self::too_large(error.to_string()),
            PushComponentError::Upload(error) => error.into(),
            PushComponentError::Policy(error) => error.into(),
            PushComponentError::TenantRemoved => Self::tenant_suspended(error.to_string()),
            PushComponentError::Storage(error) => error.into(),
            PushComponentError::TaskPanicked(error) => error.into(),
        }
    }
}

impl From<PushRevisionError> for Problem {
    fn from(error: PushRevisionError) -> Self {
        match error {
            PushRevisionError::Invalid(reason) => Self::unprocessable(reason),
            PushRevisionError::UnknownComponent(_) | PushRevisionError::ComponentRemoved(_) => {
                Self::not_found(error.to_string())
            }
            PushRevisionError::Policy(error) => error.into(),
            PushRevisionError::Storage(error) => error.into(),
        }
    }
}

impl From<ReplayJobError> for Problem {
    fn from(error: ReplayJobError) -> Self {
        match error {
            ReplayJobError::JobNotFound | ReplayJobError::RevisionNotFound { .. } => {
                Self::not_found(error.to_string())
            }
            ReplayJobError::Pipeline(PipelineUnavailableError::Storage(error)) => error.into(),
            ReplayJobError::Pipeline(error) => Self::unprocessable(error.to_string()),
            ReplayJobError::Replay(
                error @ (ReplayError::NotRecorded(_) | ReplayError::RecordingRemoved(..)),
            ) => Self::not_found(error.to_string()),
            ReplayJobError::Replay(ReplayError::Unreadable(reason)) => Self::internal_error(reason),
            ReplayJobError::Replay(ReplayError::Policy(error)) => error.into(),
            ReplayJobError::Replay(ReplayError::Storage(error)) => error.into(),
            ReplayJobError::Storage(error) => error.into(),
        }
    }
}
