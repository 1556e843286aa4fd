//! Whose job begins when: the rules alone, step by step, and with an engine that does the jobs.

mod dispatching;
mod overload;
mod places;
mod quotas;
mod restart;
mod turns;

use std::collections::HashMap;
use std::sync::Arc;

use weir_core::ledger::{JobRecord, JobState};
use weir_core::order::{Order, Orders as _};
use weir_core::settings::Settings;
use weir_core::{DocumentId, JobId, Lane, TenantId};

use super::{Admission, Next, Slot};
use crate::fakes::{Host, job_record, order};

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

/// An order of a file of so many bytes.
fn order_of(name: &str, bytes: u64, lane: Option<Lane>) -> Order {
    let mut order = order(&tenant(name), JobId::new(), DocumentId::of(b"d"));
    order.files[0].bytes = bytes;
    order.lane = lane;
    order
}

/// An admission without a dispatcher: the test starts and ends jobs.
struct Bench {
    admission: Arc<Admission>,
    /// Weight and jobs in work, where a tenant's are not 1 and as many as there are.
    terms: HashMap<TenantId, (f64, Option<u64>)>,
}

impl Bench {
    fn with(settings: &Settings) -> Self {
        Self {
            admission: Admission::new(settings),
            terms: HashMap::new(),
        }
    }

    /// With so many places in work.
    fn of(jobs: u32) -> Self {
        Self::with(&Settings {
            server_jobs: jobs,
            ..Settings::default()
        })
    }

    /// A job of so many bytes waits.
    fn waits(&self, name: &str, bytes: u64, lane: Lane) -> JobId {
        let order = order_of(name, bytes, Some(lane));
        let place = self.admission.reserve(&order.tenant, None).unwrap();
        place.fill(&order);
        order.job
    }

    /// So many small jobs wait.
    fn many(&self, name: &str, jobs: usize) {
        for _ in 0..jobs {
            self.waits(name, 1, Lane::Bulk);
        }
    }

    /// The next job that may begin.
    fn start(&self) -> Option<Slot> {
        loop {
            match self.admission.next() {
                Next::Start(slot) => return Some(slot),
                Next::Ask(tenant) => {
                    let (weight, concurrent) = self.terms.get(&tenant).copied().unwrap_or((1.0, None));
                    self.admission.agree(tenant, weight, concurrent, None);
                }
                Next::Wait => return None,
            }
        }
    }

    /// All that may begin now.
    fn start_all(&self) -> Vec<Slot> {
        std::iter::from_fn(|| self.start()).collect()
    }
}

/// Writes down a queued job of one file, as a submission would.
async fn written(host: &Host, tenant: &TenantId, content: &str, created_millis: u64) -> Order {
    let order = order(tenant, JobId::new(), host.original(tenant, content));
    let record = JobRecord {
        created_millis,
        ..job_record(tenant, order.job, JobState::Queued)
    };
    host.memory.put(&record, &order, None).await.unwrap();
    order
}

/// The same, and it waits.
async fn waits(host: &Host, tenant: &TenantId, content: &str) -> JobId {
    let order = written(host, tenant, content, 1).await;
    host.app.admission.reserve(tenant, None).unwrap().fill(&order);
    order.job
}
