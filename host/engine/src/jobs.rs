//! The jobs in work, by id: none is in work twice, and whoever knows an id finds the job.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::Gauge;
use parking_lot::Mutex;
use weir_core::JobId;

use crate::handle::JobHandle;

/// The jobs in work on this host.
#[derive(Default)]
pub(crate) struct Jobs(Mutex<HashMap<JobId, JobHandle>>);

/// A job's place among those in work, until it is dropped.
pub(crate) struct Listed {
    all: Arc<Jobs>,
    id: JobId,
    running: Gauge,
}

impl Jobs {
    /// A job, if it is in work.
    pub(crate) fn get(&self, id: &JobId) -> Option<JobHandle> {
        self.0.lock().get(id).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<JobHandle> {
        self.0.lock().values().cloned().collect()
    }

    /// Lists a job that is not in work yet.
    pub(crate) fn list(self: &Arc<Self>, handle: JobHandle, running: &Gauge) -> Listed {
        let id = handle.id();
        self.0.lock().insert(id, handle);
        running.increment(1.0);
        Listed {
            all: Arc::clone(self),
            id,
            running: running.clone(),
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let gone = self.all.0.lock().remove(&self.id);
        drop(gone);
        self.running.decrement(1.0);
    }
}
