//! What the host and its open jobs share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weir_core::ports::PolicyState;
use weir_core::usage::Meter;

use crate::aside::Aside;
use crate::library::Library;
use crate::live::CallLimits;
use crate::recording::Writer;
use crate::stats::HostMeter;
use crate::ticker::Ticker;

/// The last of those who share it ends the threads.
pub(crate) struct House {
    pub(crate) library: Library,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) instances: u32,
    pub(crate) limits: CallLimits,
    pub(crate) state: Arc<dyn PolicyState>,
    pub(crate) meter: Arc<HostMeter>,
    pub(crate) told: Option<Arc<dyn Meter>>,
    pub(crate) ticker: Ticker,
    pub(crate) aside: Aside,
    pub(crate) writer: Option<Writer>,
    /// Whether jobs are recorded.
    pub(crate) record: bool,
}

/// Counts a job as open, and holds the places of its instances, as long as it lives.
pub(crate) struct OpenJob {
    house: Arc<House>,
    _places: OwnedSemaphorePermit,
}

impl OpenJob {
    /// One more, in these places.
    pub(crate) fn new(house: &Arc<House>, places: OwnedSemaphorePermit) -> Self {
        house.ticker.job_opened();
        Self {
            house: Arc::clone(house),
            _places: places,
        }
    }

    pub(crate) fn aside(&self) -> &Aside {
        &self.house.aside
    }

    pub(crate) fn meter(&self) -> &HostMeter {
        &self.house.meter
    }
}

impl Drop for OpenJob {
    fn drop(&mut self) {
        self.house.ticker.job_closed();
    }
}
