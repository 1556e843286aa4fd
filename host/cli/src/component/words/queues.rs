//! How the stages fare, of which batching and progress are told.

use serde::Deserialize;
use weir_core::{Stage, decision};

use super::unsaid::one;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct QueueState {
    stage: Stage,
    depth: u32,
    capacity: u32,
    #[serde(default = "one")]
    workers: u32,
}

impl From<QueueState> for decision::QueueState {
    fn from(queue: QueueState) -> Self {
        Self {
            stage: queue.stage,
            depth: queue.depth,
            capacity: queue.capacity,
            workers: queue.workers,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct StageTime {
    stage: Stage,
    millis_per_page: f32,
    pages: u32,
}

impl From<StageTime> for decision::StageTime {
    fn from(time: StageTime) -> Self {
        Self {
            stage: time.stage,
            millis_per_page: time.millis_per_page,
            pages: time.pages,
        }
    }
}
