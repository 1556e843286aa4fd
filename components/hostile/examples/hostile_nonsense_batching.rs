//! Answers with batches that cannot be; the setting `nonsense` says what is wrong with them.

use weir_sdk::batching::{Batch, Batching, Situation};

#[derive(Default)]
struct Nonsense;

impl Batching for Nonsense {
    fn plan(&mut self, _situation: Situation) -> Batch {
        let sensible = weir_hostile::batch();
        match weir_hostile::nonsense(&[
            "no-pages",
            "many-pages",
            "no-dpi",
            "high-dpi",
            "long-linger",
            "no-queue",
        ]) {
            "no-pages" => Batch { pages: 0, ..sensible },
            "many-pages" => Batch {
                pages: u32::MAX,
                ..sensible
            },
            "no-dpi" => Batch { dpi: 0, ..sensible },
            "high-dpi" => Batch {
                dpi: u32::MAX,
                ..sensible
            },
            "long-linger" => Batch {
                linger_millis: u32::MAX,
                ..sensible
            },
            _ => Batch {
                queue_capacity: 0,
                ..sensible
            },
        }
    }
}

weir_sdk::export!(Nonsense: Batching);
