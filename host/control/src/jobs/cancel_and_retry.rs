//! Cancels and retries jobs.

use std::sync::Arc;

use weir_core::clock::unix_time_millis;
use weir_core::job_request::{IdempotencyKey, JobRequest};
use weir_core::ledger::{JobRecord, JobState};
use weir_core::ports::Ledger as _;
use weir_core::{DocumentId, JobId, StorageError, TenantId};

use crate::admission::{CancelOutcome, QueueReservation, QueuedJob, commit_failed_or_canceled_job};
use crate::staged_files::StagedFile;
use crate::state::{Control, TaskPanicked};
use crate::submission::{CommitJobError, commit_and_enqueue_job};
use crate::trace_context::current_traceparent;

/// The result of a cancellation, with the record of the job.
#[derive(Debug, Clone, PartialEq)]
pub enum JobCancelOutcome {
    /// The job has ended.
    Ended(JobRecord),
    /// The job is running and has been asked to stop.
    StopRequested(JobRecord),
}

/// Why a job cannot be canceled.
#[derive(Debug, thiserror::Error)]
pub enum CancelJobError {
    /// No node runs the job, and it is not queued in this process.
    #[error("this host does not run the job at the moment: cancel it again later")]
    NotRunningHere,
    /// The end of the job cannot be committed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The host has a bug.
    #[error(transparent)]
    TaskPanicked(#[from] TaskPanicked),
}

/// Why a job cannot be retried.
#[derive(Debug, thiserror::Error)]
pub enum RetryJobError {
    /// A document of the job does not exist any more.
    #[error("document {0} does not exist any more: send the file")]
    DocumentMissing(DocumentId),
    /// The new job cannot be committed.
    #[error(transparent)]
    Commit(#[from] CommitJobError),
    /// A file of the job cannot be staged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The host has a bug.
    #[error(transparent)]
    TaskPanicked(#[from] TaskPanicked),
}

/// Cancels a job. `record` and `job_request` are the result of
/// [`find_job_and_request`](super::find_job_and_request).
///
/// A queued job has ended when this returns. A running job ends when its pages in progress have ended. If the job has ended already,
/// nothing changes.
pub async fn cancel_job(
    control: &Arc<Control>,
    record: JobRecord,
    job_request: Option<JobRequest>,
) -> Result<JobCancelOutcome, CancelJobError> {
    if record.state.is_terminal() {
        return Ok(JobCancelOutcome::Ended(record));
    }
    let (tenant, job) = (record.tenant.clone(), record.id);
    match control.admission.cancel_job(&tenant, job) {
        CancelOutcome::RemovedFromQueue(queued_job) => {
            let ended = end_unclaimed_job(control, record, job_request.clone(), Some(queued_job)).await?;
            match ended {
                Some(record) => Ok(JobCancelOutcome::Ended(record)),
                None => cancel_on_other_node(control, &tenant, &job, job_request).await,
            }
        }
        CancelOutcome::StopRequested => Ok(JobCancelOutcome::StopRequested(record)),
        CancelOutcome::NotFound => cancel_on_other_node(control, &tenant, &job, job_request).await,
    }
}

/// Commits the end of a job that no node runs. Returns `None` if a node has claimed it. If the end could not be committed, `queued_job` is
/// queued again.
async fn end_unclaimed_job(
    control: &Arc<Control>,
    record: JobRecord,
    job_request: Option<JobRequest>,
    queued_job: Option<QueuedJob>,
) -> Result<Option<JobRecord>, CancelJobError> {
    let task_control = Arc::clone(control);
    let ending = async move {
        match commit_failed_or_canceled_job(&task_control, record, job_request.as_ref(), None).await {
            Ok(record) => Ok(Some(record)),
            Err(StorageError::ClaimLost { .. }) => Ok(None),
            Err(error) => {
                if let Some(queued_job) = queued_job {
                    task_control.admission.enqueue_job(queued_job);
                }
                Err(CancelJobError::from(error))
            }
        }
    };
    control.run_to_completion(ending).await
}

/// Cancels a job that is neither queued nor running in this process.
async fn cancel_on_other_node(
    control: &Arc<Control>,
    tenant: &TenantId,
    job: &JobId,
    job_request: Option<JobRequest>,
) -> Result<JobCancelOutcome, CancelJobError> {
    let is_running = control.claims.request_cancel(tenant, job).await?;
    match control.ledger.find_job(tenant, job).await? {
        // It has ended since it was read.
        Some(record) if record.state.is_terminal() => Ok(JobCancelOutcome::Ended(record)),
        Some(record) if is_running => Ok(JobCancelOutcome::StopRequested(record)),
        // Another node has just accepted or released it.
        Some(record) if control.shares_ledger() => {
            let ended = end_unclaimed_job(control, record, job_request, None).await?;
            ended
                .map(JobCancelOutcome::Ended)
                .ok_or(CancelJobError::NotRunningHere)
        }
        _ => Err(CancelJobError::NotRunningHere),
    }
}

/// Creates a job with the same files and options as `original_record`, and queues it with `reservation`.
///
/// Returns the id of the new job, and whether an earlier request with the same idempotency key created it.
pub async fn retry_job_as_new_job(
    control: &Arc<Control>,
    original_record: JobRecord,
    original_request: JobRequest,
    idempotency: Option<IdempotencyKey>,
    reservation: QueueReservation,
) -> Result<(JobId, bool), RetryJobError> {
    let job_request = JobRequest {
        job: JobId::new(),
        traceparent: current_traceparent(),
        ..original_request
    };
    let mut staged_files = Vec::with_capacity(job_request.files.len());
    for file in &job_request.files {
        let staged = StagedFile::stage_stored_document(
            &control.upload_store,
            &original_record.tenant,
            &job_request.job,
            &file.document,
        )
        .await?;
        let (staged, _) = staged.ok_or(RetryJobError::DocumentMissing(file.document))?;
        staged_files.push(staged);
    }
    let record = JobRecord {
        id: job_request.job,
        state: JobState::Queued,
        created_millis: unix_time_millis(),
        ..original_record
    };
    let task_control = Arc::clone(control);
    let accepting = async move {
        Ok(commit_and_enqueue_job(
            &task_control,
            &job_request,
            &record,
            idempotency.as_ref(),
            staged_files,
            reservation,
        )
        .await?)
    };
    control.run_to_completion(accepting).await
}
