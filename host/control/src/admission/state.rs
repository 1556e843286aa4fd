//! The state of the admission behind its lock: the queue, the running jobs and the terms of the tenants. The guards that the admission
//! hands out share it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_core::job_request::JobRequest;
use weir_core::{JobId, PriorityLane, TenantId};

use super::job_queue::{FreeSlots, JobQueue};
use super::queued_job::QueuedJob;

/// The number of bytes of a PDF that count as one page while its page count is unknown.
const ESTIMATED_BYTES_PER_PAGE: f64 = 100_000.0;

/// The state behind its lock, and the notifications about it.
pub(super) struct SharedAdmissionState {
    clock_start: Instant,
    max_interactive_bytes: u64,
    state: Mutex<AdmissionState>,
    dispatcher_wakeup: Notify,
    changes: watch::Sender<()>,
}

#[derive(Default)]
pub(super) struct AdmissionState {
    pub(super) queue: JobQueue,
    /// The number of reserved places in the queue, by tenant.
    pub(super) reserved_places: HashMap<TenantId, usize>,
    pub(super) running_jobs: HashMap<JobId, RunningJob>,
    pub(super) terms_by_tenant: HashMap<TenantId, TenantSchedulingTerms>,
    /// Tenants that are being removed.
    pub(super) tenants_being_removed: HashSet<TenantId>,
    /// Whether a job has failed because storage was full, and storage has had no space since.
    pub(super) storage_full: bool,
}

pub(super) struct RunningJob {
    pub(super) tenant: TenantId,
    pub(super) cancel: CancellationToken,
    pub(super) started_millis: u64,
}

/// A cached copy of a tenant's weight, its limit of running jobs and the reason why its jobs are held; valid for a short time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TenantSchedulingTerms {
    pub weight: f64,
    /// The maximum number of running jobs, if it is limited.
    pub max_running_jobs: Option<u64>,
    /// Why none of its jobs may start, if so: the name of a quota, `suspended`, `removed` or `storage`.
    pub held_reason: Option<&'static str>,
    /// When the terms expire, on the clock of the queue.
    pub(super) valid_until: Duration,
}

impl AdmissionState {
    pub(super) fn count_running_jobs_of_tenant(&self, tenant: &TenantId) -> usize {
        self.running_jobs
            .values()
            .filter(|running| running.tenant == *tenant)
            .count()
    }

    /// Returns the free slots that the tenant may use; `None` if its terms allow no further job.
    pub(super) fn find_free_slots(
        &self,
        tenant: &TenantId,
        slots: usize,
        now: Duration,
    ) -> Option<FreeSlots> {
        if !self.is_allowed_by_terms(tenant, now) {
            return None;
        }
        let free = slots.saturating_sub(self.running_jobs.len());
        Some(if free > slots / 4 {
            FreeSlots::ForAll
        } else if free > 0 && self.count_running_jobs_of_tenant(tenant) == 0 {
            FreeSlots::Reserved
        } else {
            FreeSlots::None
        })
    }

    /// Whether a job of the tenant might start if there were enough free slots.
    pub(super) fn is_allowed_by_terms(&self, tenant: &TenantId, now: Duration) -> bool {
        self.terms_by_tenant.get(tenant).is_none_or(|terms| {
            (terms.held_reason.is_none() || now >= terms.valid_until)
                && terms
                    .max_running_jobs
                    .is_none_or(|max| (self.count_running_jobs_of_tenant(tenant) as u64) < max)
        })
    }
}

impl SharedAdmissionState {
    pub(super) fn new(max_interactive_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            clock_start: Instant::now(),
            max_interactive_bytes,
            state: Mutex::default(),
            dispatcher_wakeup: Notify::new(),
            changes: watch::Sender::new(()),
        })
    }

    /// Returns the time on the clock of the queue.
    pub(super) fn time_since_clock_start(&self) -> Duration {
        self.clock_start.elapsed()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, AdmissionState> {
        self.state.lock()
    }

    /// Adds an accepted job to the queue, unless it is queued or running or its tenant is being removed.
    pub(super) fn enqueue_job(&self, job: QueuedJob) {
        let mut state = self.state.lock();
        let is_known =
            state.running_jobs.contains_key(&job.job_id) || state.queue.contains_job(&job.tenant, job.job_id);
        if !is_known && !state.tenants_being_removed.contains(&job.tenant) {
            state.queue.push(job);
        }
        self.wake_dispatcher_and_notify_subscribers(&state);
    }

    /// Returns the queue entry of a job request: its lane and its estimated pages. `since` is on the clock of the queue.
    pub(super) fn build_queued_job(&self, job_request: &JobRequest, since: Duration) -> QueuedJob {
        let bytes = job_request
            .files
            .iter()
            .map(|file| file.bytes)
            .fold(0_u64, u64::saturating_add);
        let max_pages = job_request.options.pages.map_or(f64::INFINITY, |(first, last)| {
            f64::from(last.saturating_sub(first)) + 1.0
        });
        let pages = |bytes: u64| (1.0 + bytes as f64 / ESTIMATED_BYTES_PER_PAGE).min(max_pages);
        QueuedJob {
            job_id: job_request.job,
            tenant: job_request.tenant.clone(),
            lane: job_request
                .lane
                .unwrap_or(if bytes <= self.max_interactive_bytes {
                    PriorityLane::Interactive
                } else {
                    PriorityLane::Bulk
                }),
            estimated_pages: job_request
                .files
                .iter()
                .map(|file| pages(file.bytes))
                .sum::<f64>()
                .max(1.0),
            queued_at: since,
            is_interrupted: false,
        }
    }

    pub(super) fn wake_dispatcher(&self) {
        self.dispatcher_wakeup.notify_one();
    }

    pub(super) async fn wait_for_wakeup(&self) {
        self.dispatcher_wakeup.notified().await;
    }

    pub(super) fn subscribe_to_changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Notifies the dispatcher and all subscribers of a change.
    pub(super) fn wake_dispatcher_and_notify_subscribers(&self, state: &AdmissionState) {
        gauge!("weir_jobs_queued").set(state.queue.len() as f64);
        self.dispatcher_wakeup.notify_one();
        self.changes.send_replace(());
    }
}
