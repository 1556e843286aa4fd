//! What the ledger knows of a job from before: it waited in a queue, or was in work when the host ended.

use weir_core::event::Event;
use weir_core::ledger::JobRecord;
use weir_core::ports::Ledger;
use weir_core::{JobId, StorageError, TenantId};

/// A job's past.
pub(crate) struct Past {
    pub(crate) record: JobRecord,
    pub(crate) last: Option<Event>,
}

impl Past {
    /// What is known of a job; `None` for a new one.
    pub(crate) async fn of(
        ledger: &dyn Ledger,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Option<Self>, StorageError> {
        let Some(record) = ledger.job(tenant, job).await? else {
            return Ok(None);
        };
        let last = last_event(ledger, tenant, job).await?;
        Ok(Some(Self { record, last }))
    }
}

/// The last event of a job. There are no gaps, so it is found by doubling and halving: a log of a hundred thousand events
/// costs some thirty reads of one event, and needs no question of its own in the port.
async fn last_event(
    ledger: &dyn Ledger,
    tenant: &TenantId,
    job: &JobId,
) -> Result<Option<Event>, StorageError> {
    let behind = async |seq: u64| Ok::<_, StorageError>(ledger.events(tenant, job, seq, 1).await?.pop());
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
