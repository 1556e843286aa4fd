//! The default batching component, which chooses the size of the next batch.

mod plan;

use plan::Tuning;
use weir_sdk::batching::{Batch, Batching, Situation};
use weir_sdk::settings;

struct DefaultBatching {
    tuning: Tuning,
}

impl Default for DefaultBatching {
    fn default() -> Self {
        let tuning = Tuning::default();
        Self {
            tuning: Tuning {
                dpi: settings::within("dpi", tuning.dpi, 36..=600),
                linger_millis: settings::within("linger-millis", tuning.linger_millis, 0..=10_000),
                batch_pages: settings::within("batch-pages", tuning.batch_pages, 0..=64),
                queue_batches: settings::within("queue-batches", tuning.queue_batches, 0..=64),
            },
        }
    }
}

impl Batching for DefaultBatching {
    fn plan(&mut self, situation: Situation) -> Batch {
        plan::plan_batch(&self.tuning, &situation)
    }
}

weir_sdk::export!(DefaultBatching: Batching);
