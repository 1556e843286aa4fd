//! What is held of a place and given back when it is dropped, so that no way out of a request or a job forgets it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weir_core::TenantId;
use weir_core::order::Order;

use super::{Admission, Waiting};

/// A place in the queue for a submission under way; given up when it is dropped.
pub(crate) struct Place {
    pub(super) admission: Arc<Admission>,
    pub(super) tenant: TenantId,
}

impl Place {
    /// The job of this order waits here from now on.
    pub(crate) fn fill(self, order: &Order) {
        self.admission
            .put(self.admission.waiting(order, self.admission.now()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        if let Some(own) = state.reserved.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                state.reserved.remove(&self.tenant);
            }
        }
        self.admission.changed(&state);
    }
}

/// A job's place in work; free again when it is dropped.
pub(crate) struct Slot {
    pub(super) admission: Arc<Admission>,
    pub(crate) job: Waiting,
    /// Its tenant's share.
    pub(crate) weight: f64,
    /// Cancelled when the job is to be.
    pub(crate) cancel: CancellationToken,
}

impl Slot {
    /// The job was of so many pages.
    pub(crate) fn settle(&self, pages: f64) {
        let mut state = self.admission.state.lock();
        state
            .queue
            .settle(&self.job.tenant, self.weight, self.job.cost, pages);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        state.running.remove(&self.job.job);
        self.admission.changed(&state);
    }
}

/// A tenant without jobs, that gets no more until this is dropped.
pub(crate) struct Leaving {
    pub(super) admission: Arc<Admission>,
    pub(super) tenant: TenantId,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        state.leaving.remove(&self.tenant);
        state.terms.remove(&self.tenant);
        self.admission.changed(&state);
    }
}
