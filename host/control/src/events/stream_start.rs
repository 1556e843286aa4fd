//! Where the event stream of a job starts.

use weir_core::ports::Ledger;
use weir_core::{JobId, StorageError, TenantId};

/// Where the event stream of a job starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamStart {
    /// After the event with this number.
    AfterEvent(u64),
    /// The job has ended and the client has already received its last event.
    JobAlreadyEnded,
}

/// Why an event stream cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StreamStartError {
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
pub async fn check_stream_start(
    ledger: &dyn Ledger,
    tenant: &TenantId,
    job: &JobId,
    after: u64,
) -> Result<StreamStart, StreamStartError> {
    let record = ledger.find_job(tenant, job).await?;
    let record = record.ok_or(StreamStartError::JobNotFound)?;
    if after == 0 {
        return Ok(StreamStart::AfterEvent(0));
    }
    let from_it = ledger.list_job_events(tenant, job, after - 1, 2).await?;
    match from_it.as_slice() {
        [at] if at.seq == after && record.state.is_terminal() => Ok(StreamStart::JobAlreadyEnded),
        [at, ..] if at.seq == after => Ok(StreamStart::AfterEvent(after)),
        _ => Err(StreamStartError::EventNotFound(after)),
    }
}
