//! States and timings of stages in the input of batching and progress calls.

use serde::Deserialize;
use weir_core::{Stage, decision};

use super::defaults::default_one;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct QueueStateJson {
    stage: Stage,
    depth: u32,
    capacity: u32,
    #[serde(default = "default_one")]
    workers: u32,
}

impl From<QueueStateJson> for decision::QueueState {
    fn from(queue: QueueStateJson) -> Self {
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
pub(crate) struct StageTimingJson {
    stage: Stage,
    millis_per_page: f32,
    pages: u32,
}

impl From<StageTimingJson> for decision::StageTiming {
    fn from(time: StageTimingJson) -> Self {
        Self {
            stage: time.stage,
            millis_per_page: time.millis_per_page,
            pages: time.pages,
        }
    }
}
