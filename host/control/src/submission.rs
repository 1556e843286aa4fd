//! Accepts jobs: checks a submission before its files arrive, and commits its job.

use tokio::time::{Instant, sleep};
use weir_core::job_request::{EarlierIdempotentRequest, IdempotencyKey, JobRequest, PutRequestOutcome};
use weir_core::ledger::JobRecord;
use weir_core::tenancy::Tenant;
use weir_core::usage::{Usage, UsageMeter as _};
use weir_core::{DocumentId, JobId, StorageError};

use crate::admission::{AdmissionRefusal, QueueReservation};
use crate::document_removal::{DOCUMENT_REMOVAL_TIMEOUT, REMOVAL_POLL_INTERVAL};
use crate::quota_limiter::QuotaCheckError;
use crate::staged_files::StagedFile;
use crate::state::Control;

/// Why a job is refused before its files arrive.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The host is stopping.
    #[error("the host is stopping: submit to another host, or again later")]
    Stopping,
    /// The host is overloaded, for this reason.
    #[error("{0}: submit again later")]
    Overloaded(String),
    /// The host has as many queued jobs as it may have.
    #[error("the job queue of this host is full: submit again later")]
    HostQueueFull,
    /// The tenant is being removed.
    #[error("the tenant is being removed")]
    TenantBeingRemoved,
    /// A quota of the tenant is exceeded.
    #[error(transparent)]
    Quota(#[from] QuotaCheckError),
    /// The records of the tenant cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a job cannot be committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitJobError {
    /// The idempotency key belongs to a different request.
    #[error("this Idempotency-Key was used for another request: use a new one")]
    IdempotencyKeyReused,
    /// A document of the job is being removed.
    #[error("document {0} is being deleted: submit again later")]
    DocumentBeingRemoved(DocumentId),
    /// The job cannot be stored.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The result of the checks before the body of a submission is received.
pub enum NewOrRepeatedSubmission {
    /// A new request, with a queue reservation for its job.
    NewRequest(QueueReservation),
    /// A request whose idempotency key belongs to an earlier request.
    RepeatedRequest(EarlierIdempotentRequest),
}

/// Runs all checks that can refuse a job before its body is received, and reserves a place in the job queue. If
/// `idempotency_key` belongs to an earlier request, returns that request instead.
pub async fn admit_submission(
    control: &Control,
    tenant: &Tenant,
    idempotency_key: Option<&str>,
) -> Result<NewOrRepeatedSubmission, AdmissionError> {
    if control.stop_signal.is_cancelled() {
        return Err(AdmissionError::Stopping);
    }
    if let Some(idempotency_key) = idempotency_key
        && let Some(earlier) = control
            .job_requests
            .find_request_by_idempotency_key(&tenant.id, idempotency_key)
            .await?
    {
        return Ok(NewOrRepeatedSubmission::RepeatedRequest(earlier));
    }
    if let Some(reason) = control.admission.overload_reason() {
        return Err(AdmissionError::Overloaded(reason));
    }
    control.quota_limiter.check_daily_quotas(tenant).await?;
    let limit = control.quota_limiter.effective_limits(tenant).queued_jobs;
    let reservation = control.admission.reserve_queue_place(&tenant.id, limit);
    reservation
        .map(NewOrRepeatedSubmission::NewRequest)
        .map_err(|refusal| match refusal {
            AdmissionRefusal::TenantQueueFull => {
                QuotaCheckError::from(control.quota_limiter.refuse_job_for_full_queue(tenant)).into()
            }
            AdmissionRefusal::HostQueueFull => AdmissionError::HostQueueFull,
            AdmissionRefusal::TenantBeingRemoved => AdmissionError::TenantBeingRemoved,
        })
}

/// Commits a job with its files to the ledger and queues it.
///
/// Returns the id of the job, and whether an earlier request with the same idempotency key created it. `staged_files` must
/// contain each document of the job request. Waits up to 10 seconds while a document of the job is being removed.
pub async fn commit_and_enqueue_job(
    control: &Control,
    job_request: &JobRequest,
    record: &JobRecord,
    idempotency: Option<&IdempotencyKey>,
    staged_files: Vec<StagedFile>,
    reservation: QueueReservation,
) -> Result<(JobId, bool), CommitJobError> {
    let deadline = Instant::now() + DOCUMENT_REMOVAL_TIMEOUT;
    loop {
        let created = control
            .job_requests
            .create_job_with_request(record, job_request, idempotency)
            .await;
        let created = match created {
            Err(error @ StorageError::Unavailable { .. }) => {
                // The response may have been lost after the commit.
                staged_files.into_iter().for_each(StagedFile::keep_for_recovery);
                return Err(error.into());
            }
            created => created?,
        };
        match created {
            PutRequestOutcome::Created => break,
            PutRequestOutcome::AlreadyCreated(job) => return Ok((job, true)),
            PutRequestOutcome::KeyConflict => return Err(CommitJobError::IdempotencyKeyReused),
            PutRequestOutcome::DocumentBeingRemoved(_) if Instant::now() < deadline => {
                sleep(REMOVAL_POLL_INTERVAL).await
            }
            PutRequestOutcome::DocumentBeingRemoved(document) => {
                return Err(CommitJobError::DocumentBeingRemoved(document));
            }
        }
    }
    let used = Usage {
        jobs: 1,
        upload_bytes: staged_files.iter().map(|file| file.received_bytes).sum(),
        ..Usage::default()
    };
    control.usage_recorder.record_usage(&job_request.tenant, &used);
    for file in staged_files {
        if let Err(error) = file.commit_file().await {
            // The job is accepted already. Its document fails, and the next start commits the file.
            tracing::error!(job = %job_request.job, %error, "cannot commit an uploaded file of a job");
        }
    }
    reservation.enqueue_reserved_job(job_request);
    control
        .node_messages
        .announce_claimable_job(&job_request.tenant, job_request.job);
    Ok((job_request.job, false))
}
