//! Permits for an operation: at most one for each tenant, and a limited number in total.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_core::TenantId;

/// Hands out at most one permit to each tenant.
pub(crate) struct OnePerTenantLimiter {
    max_permits: usize,
    holders: Mutex<HashSet<TenantId>>,
}

/// The permit of a tenant. Dropping it returns the permit.
pub(crate) struct OnePerTenantPermit {
    permits: Arc<OnePerTenantLimiter>,
    tenant: TenantId,
}

impl OnePerTenantLimiter {
    /// Creates a limiter with at most `max_permits` permits in total.
    pub(crate) fn new(max_permits: usize) -> Arc<Self> {
        Arc::new(Self {
            max_permits,
            holders: Mutex::default(),
        })
    }

    /// Returns a permit for the tenant; `None` if the tenant already has one, or all permits are in use.
    pub(crate) fn try_acquire(self: &Arc<Self>, tenant: &TenantId) -> Option<OnePerTenantPermit> {
        let mut holders = self.holders.lock();
        let acquired = holders.len() < self.max_permits && holders.insert(tenant.clone());
        acquired.then(|| OnePerTenantPermit {
            permits: Arc::clone(self),
            tenant: tenant.clone(),
        })
    }
}

impl Drop for OnePerTenantPermit {
    fn drop(&mut self) {
        self.permits.holders.lock().remove(&self.tenant);
    }
}
