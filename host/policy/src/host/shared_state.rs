//! State that the policy host shares with its open jobs.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weir_core::ports::ComponentStateStore;
use weir_core::usage::UsageMeter;

use crate::epoch_ticker::EpochTicker;
use crate::instance::instance_data::CallLimits;
use crate::linked_component_cache::LinkedComponentCache;
use crate::offload_executor::OffloadExecutor;
use crate::recording::RecordingWriter;
use crate::stats::HostCounters;

/// State shared by the policy host and its open jobs. Dropping the last reference stops the threads.
pub(crate) struct HostSharedState {
    pub(crate) component_cache: LinkedComponentCache,
    pub(crate) instance_permits: Arc<Semaphore>,
    pub(crate) max_instances: u32,
    pub(crate) default_limits: CallLimits,
    pub(crate) component_state_store: Arc<dyn ComponentStateStore>,
    pub(crate) counters: Arc<HostCounters>,
    pub(crate) usage_meter: Option<Arc<dyn UsageMeter>>,
    pub(crate) epoch_ticker: EpochTicker,
    pub(crate) offload_executor: OffloadExecutor,
    pub(crate) recording_writer: Option<RecordingWriter>,
    pub(crate) record_calls: bool,
}

/// Counts a job as open and holds the permits of its instances until it is dropped.
pub(crate) struct OpenJobGuard {
    shared: Arc<HostSharedState>,
    _instance_permits: OwnedSemaphorePermit,
}

impl OpenJobGuard {
    pub(crate) fn new(shared: &Arc<HostSharedState>, instance_permits: OwnedSemaphorePermit) -> Self {
        shared.epoch_ticker.add_open_job();
        Self {
            shared: Arc::clone(shared),
            _instance_permits: instance_permits,
        }
    }

    pub(crate) fn offload_executor(&self) -> &OffloadExecutor {
        &self.shared.offload_executor
    }

    pub(crate) fn host_counters(&self) -> &HostCounters {
        &self.shared.counters
    }
}

impl Drop for OpenJobGuard {
    fn drop(&mut self) {
        self.shared.epoch_ticker.remove_open_job();
    }
}
