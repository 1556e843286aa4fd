//! Returns invalid batches; the setting `invalid-decision` selects the error.

use weir_sdk::batching::{Batch, Batching, Situation};

#[derive(Default)]
struct InvalidDecisions;

impl Batching for InvalidDecisions {
    fn plan(&mut self, _situation: Situation) -> Batch {
        let valid = weir_hostile::valid_batch();
        match weir_hostile::choose_invalid_decision(&[
            "no-pages",
            "many-pages",
            "no-dpi",
            "high-dpi",
            "long-linger",
            "no-queue",
        ]) {
            "no-pages" => Batch { pages: 0, ..valid },
            "many-pages" => Batch {
                pages: u32::MAX,
                ..valid
            },
            "no-dpi" => Batch { dpi: 0, ..valid },
            "high-dpi" => Batch {
                dpi: u32::MAX,
                ..valid
            },
            "long-linger" => Batch {
                linger_millis: u32::MAX,
                ..valid
            },
            _ => Batch {
                queue_capacity: 0,
                ..valid
            },
        }
    }
}

weir_sdk::export!(InvalidDecisions: Batching);
