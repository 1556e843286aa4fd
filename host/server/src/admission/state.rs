//! What is known of waiting and working jobs, behind one lock.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weir_core::{JobId, TenantId};

use super::queue::JobQueue;

#[derive(Default)]
pub(super) struct State {
    pub(super) queue: JobQueue,
    /// Places in the queue of submissions under way.
    pub(super) reserved: HashMap<TenantId, usize>,
    pub(super) running: HashMap<JobId, Running>,
    pub(super) terms: HashMap<TenantId, Terms>,
    /// Tenants that are being removed.
    pub(super) leaving: HashSet<TenantId>,
    /// Whether a job has failed for want of room, and none has been seen since.
    pub(super) full: bool,
}

pub(super) struct Running {
    pub(super) tenant: TenantId,
    pub(super) cancel: CancellationToken,
    pub(super) since_millis: u64,
}

/// What a tenant may do now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Terms {
    pub(crate) weight: f64,
    /// Jobs in work at one time.
    pub(crate) concurrent: usize,
    /// Why none of its jobs is begun, if none is: the name of a quota, or `suspended`.
    pub(crate) held: Option<&'static str>,
    /// Until when this is relied on, on the queue's clock.
    pub(super) until: Duration,
}

impl State {
    pub(super) fn in_work(&self, tenant: &TenantId) -> usize {
        self.running
            .values()
            .filter(|running| running.tenant == *tenant)
            .count()
    }

    /// Whether a job of the tenant may begin, as far as is known.
    pub(super) fn may(&self, tenant: &TenantId, slots: usize, now: Duration) -> bool {
        let free = slots.saturating_sub(self.running.len());
        let kept_for_others = if self.in_work(tenant) == 0 { 0 } else { slots / 4 };
        free > kept_for_others && self.may_at_all(tenant, now)
    }

    /// The same, were there places enough.
    pub(super) fn may_at_all(&self, tenant: &TenantId, now: Duration) -> bool {
        self.terms.get(tenant).is_none_or(|terms| {
            (terms.held.is_none() || now >= terms.until) && self.in_work(tenant) < terms.concurrent
        })
    }
}
