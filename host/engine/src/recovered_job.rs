//! A job that the ledger knows from before: it was queued, or it was active when the host ended.

use weir_core::event::Event;
use weir_core::ledger::JobRecord;
use weir_core::ports::Ledger;
use weir_core::{JobId, StorageError, TenantId};

/// The record and the last event of a known job.
pub(crate) struct RecoveredJob {
    pub(crate) record: JobRecord,
    pub(crate) last_event: Option<Event>,
}

impl RecoveredJob {
    /// Loads a job from the ledger; `None` if the job is new.
    pub(crate) async fn load(
        ledger: &dyn Ledger,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Option<Self>, StorageError> {
        let Some(record) = ledger.find_job(tenant, job).await? else {
            return Ok(None);
        };
        let last = find_last_event(ledger, tenant, job).await?;
        Ok(Some(Self {
            record,
            last_event: last,
        }))
    }
}

/// Finds the last event of a job. The log has no gaps, so an exponential and binary search finds it. A log of a hundred thousand
/// events takes about thirty reads of one event, and the port needs no method for it.
async fn find_last_event(
    ledger: &dyn Ledger,
    tenant: &TenantId,
    job: &JobId,
) -> Result<Option<Event>, StorageError> {
    let behind =
        async |seq: u64| Ok::<_, StorageError>(ledger.list_job_events(tenant, job, seq, 1).await?.pop());
    let Some(mut last) = behind(0).await? else {
        return Ok(None);
    };
    let mut step = 1;
    while let Some(event) = behind(last.seq.saturating_add(step)).await? {
        last = event;
        step = step.saturating_mul(2);
    }
    // At most `step` events are behind `last`.
    while step > 0 {
        step /= 2;
        if let Some(event) = behind(last.seq.saturating_add(step)).await? {
            last = event;
        }
    }
    Ok(Some(last))
}
