//! What is done for one tenant once at a time, and for so many at once.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_core::TenantId;

/// Turns of tenants.
pub(super) struct Turns {
    most: usize,
    taken: Mutex<HashSet<TenantId>>,
}

/// A tenant's turn, until this is dropped.
pub(super) struct Turn {
    turns: Arc<Turns>,
    tenant: TenantId,
}

impl Turns {
    /// Turns of which at most so many are taken at once.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: Mutex::default(),
        })
    }

    /// The tenant's turn; `None` if it has one already, or too many others have.
    pub(super) fn take(self: &Arc<Self>, tenant: &TenantId) -> Option<Turn> {
        let mut taken = self.taken.lock();
        let free = taken.len() < self.most && taken.insert(tenant.clone());
        free.then(|| Turn {
            turns: Arc::clone(self),
            tenant: tenant.clone(),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.taken.lock().remove(&self.tenant);
    }
}
