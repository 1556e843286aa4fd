//! Admission control: which jobs are accepted, and when each of them starts.
//!
//! A job is queued here from when it is accepted, which is when it is in the ledger, until the engine starts it. The number of
//! queued jobs and of running jobs is limited for each tenant and for the host. The last quarter of the job slots is reserved for
//! tenants without a running job that have not used more than their share. So a tenant that floods the host does not delay the three pages of another tenant until one of its
//! own jobs ends. This state is in memory only: after a restart the unfinished jobs are read from the ledger.

mod dispatcher;
mod guards;
mod job_queue;
mod queued_job;
mod state;
mod tenant_jobs;
#[cfg(test)]
mod tests;
mod unfinished_jobs;
mod unstarted_job_end;

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_core::clock::unix_time_millis;
use weir_core::job_request::JobRequest;
use weir_core::ledger::JobRecord;
use weir_core::settings::Settings;
use weir_core::system_memory::SystemMemory;
use weir_core::{JobId, TenantId};

pub(crate) use dispatcher::run_dispatcher;
pub(crate) use guards::JobSlot;
pub use guards::QueueReservation;
use guards::TenantLockout;
pub use queued_job::QueuedJob;
use state::{AdmissionState, RunningJob, SharedAdmissionState, TenantSchedulingTerms};
pub(crate) use unfinished_jobs::{
    enqueue_announced_job, fail_job_that_stops_nodes, requeue_unfinished_jobs, synchronize_queue_with_ledger,
};
pub(crate) use unstarted_job_end::commit_failed_or_canceled_job;

/// How long the terms of a tenant are valid before they are read again.
const TERMS_TTL: Duration = Duration::from_secs(1);
/// How long the terms of a tenant whose jobs are held are valid.
pub(crate) const HELD_TERMS_TTL: Duration = Duration::from_secs(5);

/// The queued and the running jobs.
pub struct Admission {
    shared: Arc<SharedAdmissionState>,
    max_running_jobs: usize,
    max_queued_jobs: usize,
    max_wait: Option<Duration>,
    min_free_memory_bytes: u64,
    runs_jobs: bool,
}

/// The next action of the dispatcher.
pub(crate) enum DispatcherAction {
    /// Start this job.
    StartJob(JobSlot),
    /// Read the terms of this tenant, then ask again.
    RefreshTerms(TenantId),
    /// Wait until something changes.
    Wait,
}

/// Why a job cannot be queued.
#[derive(Debug, PartialEq, Eq)]
pub enum AdmissionRefusal {
    /// The tenant has as many queued jobs as it may have.
    TenantQueueFull,
    /// The host has as many queued jobs as it may have.
    HostQueueFull,
    /// The tenant is being removed.
    TenantBeingRemoved,
}

/// The state of a job that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnfinishedJobStatus {
    /// It is queued.
    Queued {
        /// Its position among the queued jobs of its tenant, from 1.
        position: usize,
        /// Why none of the tenant's jobs starts, if so.
        held: Option<&'static str>,
    },
    /// It is running.
    Running {
        /// Since when, in milliseconds since 1970.
        since_millis: u64,
        /// Whether it was asked to stop.
        cancelling: bool,
    },
}

/// The result of a cancellation.
#[derive(Debug, PartialEq)]
pub enum CancelOutcome {
    /// The job was queued and has been removed from the queue.
    RemovedFromQueue(QueuedJob),
    /// The job is running and has been asked to stop.
    StopRequested,
    /// The job is neither queued nor running in this process.
    NotFound,
}

impl Admission {
    /// Creates an instance without jobs.
    pub fn new(settings: &Settings) -> Arc<Self> {
        let max_wait = settings.server_overload_queue_wait_seconds;
        Arc::new(Self {
            shared: SharedAdmissionState::new(settings.server_max_interactive_upload_bytes),
            max_running_jobs: settings.server_max_running_jobs as usize,
            max_queued_jobs: settings.server_max_queued_jobs as usize,
            max_wait: (max_wait > 0).then(|| Duration::from_secs(max_wait.into())),
            min_free_memory_bytes: settings.server_min_free_memory_bytes,
            runs_jobs: settings.cluster_role.runs_jobs(),
        })
    }

    /// Reserves a place in the queue for a submission. `limit` is the maximum number of queued jobs of the tenant.
    pub fn reserve_queue_place(
        &self,
        tenant: &TenantId,
        limit: Option<u64>,
    ) -> Result<QueueReservation, AdmissionRefusal> {
        let mut state = self.shared.lock();
        if state.tenants_being_removed.contains(tenant) {
            return Err(AdmissionRefusal::TenantBeingRemoved);
        }
        let own =
            state.queue.tenant_queue_len(tenant) + state.reserved_places.get(tenant).copied().unwrap_or(0);
        if limit.is_some_and(|limit| own as u64 >= limit) {
            return Err(AdmissionRefusal::TenantQueueFull);
        }
        if state.queue.len() + state.reserved_places.values().sum::<usize>() >= self.max_queued_jobs {
            count_shed_job("queue-full");
            return Err(AdmissionRefusal::HostQueueFull);
        }
        *state.reserved_places.entry(tenant.clone()).or_default() += 1;
        Ok(QueueReservation {
            shared: Arc::clone(&self.shared),
            tenant: tenant.clone(),
        })
    }

    /// Adds an accepted job to the queue, unless its tenant is being removed.
    pub(crate) fn enqueue_job(&self, job: QueuedJob) {
        self.shared.enqueue_job(job);
    }

    /// Returns the queue entry of a job request: its lane and its estimated pages. `since` is on the clock of the queue.
    pub(crate) fn build_queued_job(&self, job_request: &JobRequest, since: Duration) -> QueuedJob {
        self.shared.build_queued_job(job_request, since)
    }

    /// Returns the time on the clock of the queue.
    pub(crate) fn queue_time(&self) -> Duration {
        self.shared.time_since_clock_start()
    }

    /// Removes the queued jobs that are not in `claimable` and were queued before `queued_before`. Returns the jobs of `claimable` that
    /// are neither queued nor running in this process.
    pub(crate) fn remove_jobs_and_find_unknown(
        &self,
        claimable: Vec<JobRecord>,
        queued_before: Duration,
    ) -> Vec<JobRecord> {
        let ids = claimable.iter().map(|record| record.id).collect();
        let mut state = self.shared.lock();
        if state.queue.remove_jobs_except(&ids, queued_before) > 0 {
            self.shared.wake_dispatcher_and_notify_subscribers(&state);
        }
        let queued = state.queue.job_ids();
        let is_unknown =
            |record: &JobRecord| !queued.contains(&record.id) && !state.running_jobs.contains_key(&record.id);
        claimable.into_iter().filter(is_unknown).collect()
    }

    /// Returns the next action of the dispatcher. A job to start counts as running from here on.
    pub(crate) fn next_action(&self) -> DispatcherAction {
        let now = self.shared.time_since_clock_start();
        let mut state = self.shared.lock();
        let Some(next) = state
            .queue
            .next_tenant(|tenant| state.find_free_slots(tenant, self.max_running_jobs, now))
        else {
            return DispatcherAction::Wait;
        };
        let tenant = next.tenant.clone();
        let Some(terms) = state
            .terms_by_tenant
            .get(&tenant)
            .copied()
            .filter(|terms| now < terms.valid_until)
        else {
            return DispatcherAction::RefreshTerms(tenant);
        };
        let Some(job) = state
            .queue
            .pop_and_charge_most_urgent_job(&next, terms.weight, now)
        else {
            return DispatcherAction::Wait;
        };
        let cancel = CancellationToken::new();
        let running = RunningJob {
            tenant,
            cancel: cancel.clone(),
            started_millis: unix_time_millis(),
        };
        state.running_jobs.insert(job.job_id, running);
        self.shared.wake_dispatcher_and_notify_subscribers(&state);
        DispatcherAction::StartJob(JobSlot {
            shared: Arc::clone(&self.shared),
            job,
            weight: terms.weight,
            max_running_jobs: terms.max_running_jobs,
            cancel,
            processed_pages: 0.0,
        })
    }

    /// Sets the terms of a tenant: its weight, the maximum number of running jobs, and why its jobs are held, if they are.
    pub fn set_tenant_terms(
        &self,
        tenant: TenantId,
        weight: f64,
        max_running_jobs: Option<u64>,
        held_reason: Option<&'static str>,
    ) {
        let until = self.shared.time_since_clock_start()
            + if held_reason.is_some() {
                HELD_TERMS_TTL
            } else {
                TERMS_TTL
            };
        let terms = TenantSchedulingTerms {
            weight,
            max_running_jobs,
            held_reason,
            valid_until: until,
        };
        let mut state = self.shared.lock();
        state.terms_by_tenant.insert(tenant, terms);
        let AdmissionState {
            terms_by_tenant: terms,
            queue,
            running_jobs: running,
            ..
        } = &mut *state;
        let alive = |t: &TenantId| queue.tenant_queue_len(t) > 0 || running.values().any(|r| r.tenant == *t);
        terms.retain(|tenant, terms| terms.valid_until == until || alive(tenant));
    }

    /// Drops the terms of a tenant whose limits have changed, so that the dispatcher reads them again.
    pub fn invalidate_tenant_terms(&self, tenant: &TenantId) {
        self.shared.lock().terms_by_tenant.remove(tenant);
        self.shared.wake_dispatcher();
    }

    /// Records that a job has failed because storage is full. The next jobs would fail too, and soon the whole queue. So no job
    /// starts before the terms of its tenant have been read again.
    pub(crate) fn mark_storage_full(&self) {
        let mut state = self.shared.lock();
        state.storage_full = true;
        state.terms_by_tenant.clear();
    }

    /// Whether storage was full when it was last checked.
    pub(crate) fn is_storage_full(&self) -> bool {
        self.shared.lock().storage_full
    }

    /// Records that storage has space again.
    pub(crate) fn mark_storage_available(&self) {
        self.shared.lock().storage_full = false;
    }

    /// Returns the state of a job of this tenant; `None` if it is neither queued nor running in this process.
    pub fn unfinished_job_status(&self, tenant: &TenantId, job: JobId) -> Option<UnfinishedJobStatus> {
        let state = self.shared.lock();
        if let Some(running) = state
            .running_jobs
            .get(&job)
            .filter(|running| running.tenant == *tenant)
        {
            return Some(UnfinishedJobStatus::Running {
                since_millis: running.started_millis,
                cancelling: running.cancel.is_cancelled(),
            });
        }
        let position =
            state
                .queue
                .position_in_tenant_queue(tenant, job, self.shared.time_since_clock_start())?;
        let held = state
            .terms_by_tenant
            .get(tenant)
            .and_then(|terms| terms.held_reason);
        Some(UnfinishedJobStatus::Queued { position, held })
    }

    /// Returns the number of queued and of running jobs of a tenant.
    pub fn count_queued_and_running_jobs(&self, tenant: &TenantId) -> (usize, usize) {
        let state = self.shared.lock();
        (
            state.queue.tenant_queue_len(tenant),
            state.count_running_jobs_of_tenant(tenant),
        )
    }

    /// Cancels a job of this tenant.
    pub fn cancel_job(&self, tenant: &TenantId, job: JobId) -> CancelOutcome {
        let mut state = self.shared.lock();
        if let Some(queued_job) = state.queue.remove_job(tenant, job) {
            self.shared.wake_dispatcher_and_notify_subscribers(&state);
            return CancelOutcome::RemovedFromQueue(queued_job);
        }
        match state.running_jobs.get(&job) {
            Some(running) if running.tenant == *tenant => {
                running.cancel.cancel();
                CancelOutcome::StopRequested
            }
            _ => CancelOutcome::NotFound,
        }
    }

    /// Locks a tenant out: cancels its jobs, refuses new ones, and returns when no job is left and no submission is in progress.
    /// Dropping the guard admits the tenant again.
    pub(crate) async fn drain_tenant(&self, tenant: &TenantId) -> TenantLockout {
        let mut changes = self.subscribe_to_changes();
        let lockout = TenantLockout {
            shared: Arc::clone(&self.shared),
            tenant: tenant.clone(),
        };
        {
            let mut state = self.shared.lock();
            state.tenants_being_removed.insert(tenant.clone());
            state.queue.remove_tenant_jobs(tenant);
            let own = state
                .running_jobs
                .values()
                .filter(|running| running.tenant == *tenant);
            own.for_each(|running| running.cancel.cancel());
            self.shared.wake_dispatcher_and_notify_subscribers(&state);
        }
        loop {
            changes.mark_unchanged();
            {
                let state = self.shared.lock();
                if state.count_running_jobs_of_tenant(tenant) == 0
                    && !state.reserved_places.contains_key(tenant)
                {
                    return lockout;
                }
            }
            // It cannot fail: `self` owns the sender.
            let _ = changes.changed().await;
        }
    }

    /// Returns the longest time for which a tenant whose jobs may start has had queued jobs and none of them started; 0 on a node that runs
    /// no jobs, because it does not know whose jobs may start.
    pub fn longest_wait_for_start(&self) -> Duration {
        if !self.runs_jobs {
            return Duration::ZERO;
        }
        let now = self.shared.time_since_clock_start();
        let state = self.shared.lock();
        let waited = state
            .queue
            .longest_tenant_wait_without_start(now, |tenant| state.is_allowed_by_terms(tenant, now));
        waited.unwrap_or_default()
    }

    /// Returns the reason why the host accepts no jobs now, if there is one, and counts the refused job.
    pub(crate) fn overload_reason(&self) -> Option<String> {
        if self.min_free_memory_bytes > 0
            && let Some(free) = SystemMemory::read().available_bytes
            && free < self.min_free_memory_bytes
        {
            count_shed_job("memory");
            return Some(format!(
                "only {} MiB of memory is available on this host",
                free >> 20
            ));
        }
        let (limit, waited) = (self.max_wait?, self.longest_wait_for_start());
        (waited > limit).then(|| {
            count_shed_job("queue-wait");
            format!(
                "a tenant has waited for {} s for a job to start",
                waited.as_secs()
            )
        })
    }

    /// Returns a receiver that changes whenever a job is queued, starts or ends.
    pub fn subscribe_to_changes(&self) -> watch::Receiver<()> {
        self.shared.subscribe_to_changes()
    }

    /// Waits until the result of [`Self::next_action`] may have changed.
    pub(crate) async fn wait_for_wakeup(&self) {
        self.shared.wait_for_wakeup().await;
    }
}

/// Counts a refused job by the resource that the host lacks.
fn count_shed_job(reason: &'static str) {
    counter!("weir_job_submissions_shed_total", "reason" => reason).increment(1);
}
