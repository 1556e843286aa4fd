//! The active jobs by id. A job is active at most once.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::Gauge;
use parking_lot::Mutex;
use weir_core::JobId;

use crate::job_handle::JobHandle;

/// The handles of the active jobs of the engine.
#[derive(Default)]
pub(crate) struct ActiveJobs(Mutex<HashMap<JobId, JobHandle>>);

/// Keeps a job registered as active until it is dropped.
pub(crate) struct ActiveJobGuard {
    jobs: Arc<ActiveJobs>,
    id: JobId,
    running: Gauge,
}

impl ActiveJobs {
    /// Returns the handle of a job if it is active.
    pub(crate) fn get(&self, id: &JobId) -> Option<JobHandle> {
        self.0.lock().get(id).cloned()
    }

    pub(crate) fn all_handles(&self) -> Vec<JobHandle> {
        self.0.lock().values().cloned().collect()
    }

    /// Registers a job that is not active yet, and counts it in the gauge of running jobs.
    pub(crate) fn register(self: &Arc<Self>, handle: JobHandle, running: &Gauge) -> ActiveJobGuard {
        let id = handle.id();
        self.0.lock().insert(id, handle);
        running.increment(1.0);
        ActiveJobGuard {
            jobs: Arc::clone(self),
            id,
            running: running.clone(),
        }
    }
}

impl Drop for ActiveJobGuard {
    fn drop(&mut self) {
        let gone = self.jobs.0.lock().remove(&self.id);
        drop(gone);
        self.running.decrement(1.0);
    }
}
