//! Where the event stream of a job starts.

use weir_core::ports::Ledger;
use weir_core::{JobId, StorageError, TenantId};

/// Where the event stream of a job starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStreamStart {
    /// After the event with this number.
    AfterEvent(u64),
    /// The job has ended and the client has already received its last event.
    JobAlreadyEnded,
}

/// Why an event stream cannot start.
#[derive(Debug, thiserror::Error)]
pub enum JobStreamStartError {
    /// The job does not exist.
    #[error("there is no such job")]
    JobNotFound,
    /// The job has no event with this number.
    #[error("the job has no event {0}: start again without a number")]
    EventNotFound(u64),
    /// The events cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Checks that the job exists and that `after` is the number of one of its events.
pub async fn check_and_resolve_stream_start(
    ledger: &dyn Ledger,
    tenant: &TenantId,
    job: &JobId,
    after: u64,
) -> Result<JobStreamStart, JobStreamStartError> {
    let record = ledger.find_job(tenant, job).await?;
    let record = record.ok_or(JobStreamStartError::JobNotFound)?;
    if after == 0 {
        return Ok(JobStreamStart::AfterEvent(0));
    }
    let from_it = ledger.list_job_events(tenant, job, after - 1, 2).await?;
    match from_it.as_slice() {
        [at] if at.seq == after && record.state.is_terminal() => Ok(JobStreamStart::JobAlreadyEnded),
        [at, ..] if at.seq == after => Ok(JobStreamStart::AfterEvent(after)),
        _ => Err(JobStreamStartError::EventNotFound(after)),
    }
}
