//! Tests of the admission: the rules alone, step by step, and with an engine that runs the jobs.

mod dispatching;
mod limits;
mod ordering;
mod quotas;
mod restart;
mod several_nodes;

use std::collections::HashMap;
use std::sync::Arc;

use weir_core::job_request::JobRequest;
use weir_core::settings::Settings;
use weir_core::{DocumentId, JobId, PriorityLane, TenantId};

use super::{Admission, DispatcherAction, JobSlot};
use crate::testing::sample_job_request;

fn tenant_id(name: &str) -> TenantId {
    name.parse().unwrap()
}

/// A job request with one file of `bytes` bytes.
fn job_request_of_size(name: &str, bytes: u64, lane: Option<PriorityLane>) -> JobRequest {
    let mut job_request = sample_job_request(&tenant_id(name), JobId::new(), DocumentId::from_content(b"d"));
    job_request.files[0].bytes = bytes;
    job_request.lane = lane;
    job_request
}

/// An admission without a dispatcher: the test starts and ends jobs itself.
struct AdmissionHarness {
    admission: Arc<Admission>,
    /// Weight and maximum running jobs of the tenants that do not have the defaults (1.0 and no maximum).
    terms_by_tenant: HashMap<TenantId, (f64, Option<u64>)>,
}

impl AdmissionHarness {
    fn with_settings(settings: &Settings) -> Self {
        Self {
            admission: Admission::new(settings),
            terms_by_tenant: HashMap::new(),
        }
    }

    /// Creates an admission with `jobs` job slots.
    fn with_job_slots(jobs: u32) -> Self {
        Self::with_settings(&Settings {
            server_max_running_jobs: jobs,
            ..Settings::default()
        })
    }

    /// Queues a job of `bytes` bytes.
    fn enqueue(&self, name: &str, bytes: u64, lane: PriorityLane) -> JobId {
        let job_request = job_request_of_size(name, bytes, Some(lane));
        let reservation = self
            .admission
            .reserve_queue_place(&job_request.tenant, None)
            .unwrap();
        reservation.enqueue_reserved_job(&job_request);
        job_request.job
    }

    /// Queues small jobs.
    fn enqueue_many(&self, name: &str, jobs: usize) {
        for _ in 0..jobs {
            self.enqueue(name, 1, PriorityLane::Bulk);
        }
    }

    /// Starts the next job, whose pages are as many as were estimated; `None` if none may start.
    fn start_next(&self) -> Option<JobSlot> {
        loop {
            match self.admission.next_action() {
                DispatcherAction::StartJob(mut slot) => {
                    slot.set_processed_pages(slot.job.estimated_pages);
                    return Some(slot);
                }
                DispatcherAction::RefreshTerms(tenant) => {
                    let (weight, concurrent) =
                        self.terms_by_tenant.get(&tenant).copied().unwrap_or((1.0, None));
                    self.admission.set_tenant_terms(tenant, weight, concurrent, None);
                }
                DispatcherAction::Wait => return None,
            }
        }
    }

    /// Starts all jobs that may start now.
    fn start_all_allowed(&self) -> Vec<JobSlot> {
        std::iter::from_fn(|| self.start_next()).collect()
    }
}
