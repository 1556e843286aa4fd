//! The state of the admission behind its lock: the queue, the running jobs and the terms of the tenants.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weir_core::{JobId, TenantId};

use super::job_queue::JobQueue;

#[derive(Default)]
pub(crate) struct AdmissionState {
    pub(crate) queue: JobQueue,
    /// The number of reserved places in the queue, by tenant.
    pub(crate) reserved_places: HashMap<TenantId, usize>,
    pub(crate) running_jobs: HashMap<JobId, RunningJob>,
    pub(crate) terms_by_tenant: HashMap<TenantId, TenantTerms>,
    /// Tenants that are being removed.
    pub(crate) tenants_being_removed: HashSet<TenantId>,
    /// Whether a job has failed because storage was full, and storage has had no space since.
    pub(crate) storage_full: bool,
}

pub(crate) struct RunningJob {
    pub(crate) tenant: TenantId,
    pub(crate) cancel: CancellationToken,
    pub(crate) started_millis: u64,
}

/// The terms on which the jobs of a tenant may start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TenantTerms {
    pub weight: f64,
    /// The maximum number of running jobs.
    pub max_running_jobs: usize,
    /// Why none of its jobs may start, if so: the name of a quota, `suspended`, `removed` or `storage`.
    pub held_reason: Option<&'static str>,
    /// When the terms expire, on the clock of the queue.
    pub(crate) valid_until: Duration,
}

impl AdmissionState {
    pub(crate) fn running_jobs_of_tenant(&self, tenant: &TenantId) -> usize {
        self.running_jobs
            .values()
            .filter(|running| running.tenant == *tenant)
            .count()
    }

    /// Whether a job of the tenant may start now: a slot is free for it, and its terms allow it or have expired.
    pub(crate) fn may_start_job(&self, tenant: &TenantId, slots: usize, now: Duration) -> bool {
        let free = slots.saturating_sub(self.running_jobs.len());
        let kept_for_others = if self.running_jobs_of_tenant(tenant) == 0 {
            0
        } else {
            slots / 4
        };
        free > kept_for_others && self.is_allowed_by_terms(tenant, now)
    }

    /// Whether a job of the tenant might start if there were enough free slots.
    pub(crate) fn is_allowed_by_terms(&self, tenant: &TenantId, now: Duration) -> bool {
        self.terms_by_tenant.get(tenant).is_none_or(|terms| {
            (terms.held_reason.is_none() || now >= terms.valid_until)
                && self.running_jobs_of_tenant(tenant) < terms.max_running_jobs
        })
    }
}
