//! Guards for reserved places in the queue, for job slots and for tenants being removed. Dropping a guard releases what it holds,
//! on every path out of a request or a job.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weir_core::TenantId;
use weir_core::job_request::JobRequest;

use super::queued_job::QueuedJob;
use super::state::SharedAdmissionState;

/// A reserved place in the queue for a submission in progress.
pub struct QueueReservation {
    pub(super) shared: Arc<SharedAdmissionState>,
    pub(super) tenant: TenantId,
}

impl QueueReservation {
    /// Queues the job of this request in the reserved place.
    pub(crate) fn enqueue_reserved_job(self, job_request: &JobRequest) {
        self.shared.enqueue_job(
            self.shared
                .build_queued_job(job_request, self.shared.time_since_clock_start()),
        );
    }
}

impl Drop for QueueReservation {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(own) = state.reserved_places.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                state.reserved_places.remove(&self.tenant);
            }
        }
        self.shared.wake_dispatcher_and_notify_subscribers(&state);
    }
}

/// The right of one job to run. Dropping it frees the slot for another job.
pub(crate) struct JobSlot {
    pub(super) shared: Arc<SharedAdmissionState>,
    pub(crate) job: QueuedJob,
    /// The weight of its tenant in the fair queue.
    pub(crate) weight: f64,
    /// The maximum number of running jobs of its tenant on all nodes, if it is limited.
    pub(crate) max_running_jobs: Option<u64>,
    /// Canceled when the job has to stop.
    pub(crate) cancel: CancellationToken,
    /// 0 for a job that another node runs.
    pub(super) processed_pages: f64,
}

impl JobSlot {
    /// Sets the pages that the job has processed. The tenant is charged for them in place of the estimate.
    pub(crate) fn set_processed_pages(&mut self, pages: f64) {
        self.processed_pages = pages;
    }
}

impl Drop for JobSlot {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.queue.charge_actual_cost(
            &self.job.tenant,
            self.weight,
            self.job.estimated_pages,
            self.processed_pages,
        );
        state.running_jobs.remove(&self.job.job_id);
        self.shared.wake_dispatcher_and_notify_subscribers(&state);
    }
}

/// Keeps a tenant without jobs from getting new ones until it is dropped.
pub(crate) struct TenantLockout {
    pub(super) shared: Arc<SharedAdmissionState>,
    pub(super) tenant: TenantId,
}

impl Drop for TenantLockout {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.tenants_being_removed.remove(&self.tenant);
        state.terms_by_tenant.remove(&self.tenant);
        self.shared.wake_dispatcher_and_notify_subscribers(&state);
    }
}
