//! Cancels and retries jobs.

use std::sync::Arc;

use weir_core::clock::unix_time_millis;
use weir_core::job_request::{IdempotencyKey, JobRequest};
use weir_core::ledger::{JobRecord, JobState};
use weir_core::ports::Ledger as _;
use weir_core::{DocumentId, JobId, StorageError};

use crate::admission::{CancelOutcome, QueueReservation, finish_job};
use crate::staged_files::StagedFile;
use crate::state::{Control, TaskPanicked};
use crate::submission::{CommitJobError, commit_job};
use crate::trace_context::current_traceparent;

/// The result of a cancellation, with the record of the job.
#[derive(Debug, Clone, PartialEq)]
pub enum JobCancellation {
    /// The job has ended.
    Ended(JobRecord),
    /// The job is running and has been asked to stop.
    StopRequested(JobRecord),
}

/// Why a job cannot be canceled.
#[derive(Debug, thiserror::Error)]
pub enum CancelJobError {
    /// The job is neither queued nor running in this process.
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

/// Cancels a job. `record` and `order` are what [`find_job`](super::find_job) returned for it.
///
/// A queued job has ended when this returns. A running job ends when its pages in progress have ended. If the job has ended already,
/// nothing changes.
pub async fn cancel_job(
    control: &Arc<Control>,
    record: JobRecord,
    order: Option<JobRequest>,
) -> Result<JobCancellation, CancelJobError> {
    if record.state.is_terminal() {
        return Ok(JobCancellation::Ended(record));
    }
    match control.admission.cancel_job(&record.tenant, record.id) {
        CancelOutcome::RemovedFromQueue(waiting) => {
            let ours = Arc::clone(control);
            let ending = async move {
                let ended = finish_job(&ours, record, order.as_ref(), None).await;
                // If the end could not be committed, the job is queued again.
                Ok::<_, CancelJobError>(ended.inspect_err(|_| ours.admission.enqueue(waiting))?)
            };
            Ok(JobCancellation::Ended(control.run_to_completion(ending).await?))
        }
        CancelOutcome::StopRequested => Ok(JobCancellation::StopRequested(record)),
        CancelOutcome::NotFound => match control.ledger.find_job(&record.tenant, &record.id).await? {
            // It has ended since it was read.
            Some(record) if record.state.is_terminal() => Ok(JobCancellation::Ended(record)),
            _ => Err(CancelJobError::NotRunningHere),
        },
    }
}

/// Creates a job with the same files and options as `past`, in the reserved place of the queue.
///
/// Returns the id of the new job, and whether an earlier request with the same idempotency key created it.
pub async fn retry_job(
    control: &Arc<Control>,
    past: JobRecord,
    order: JobRequest,
    idempotency: Option<IdempotencyKey>,
    place: QueueReservation,
) -> Result<(JobId, bool), RetryJobError> {
    let order = JobRequest {
        job: JobId::new(),
        traceparent: current_traceparent(),
        ..order
    };
    let mut arrived = Vec::with_capacity(order.files.len());
    for file in &order.files {
        let staged = StagedFile::stage_stored_document(
            &control.upload_store,
            &past.tenant,
            &order.job,
            &file.document,
        )
        .await?;
        let (staged, _) = staged.ok_or(RetryJobError::DocumentMissing(file.document))?;
        arrived.push(staged);
    }
    let record = JobRecord {
        id: order.job,
        state: JobState::Queued,
        created_millis: unix_time_millis(),
        ..past
    };
    let ours = Arc::clone(control);
    let accepting =
        async move { Ok(commit_job(&ours, &order, &record, idempotency.as_ref(), arrived, place).await?) };
    control.run_to_completion(accepting).await
}
