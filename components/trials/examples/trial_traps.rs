//! Panics on one page of twenty, chosen by document and number, so that it is the same one at every attempt.

use weir_sdk::routing::{PageRoute, Routing};
use weir_sdk::{DocumentId, PageFacts};

#[derive(Default)]
struct Traps;

impl Routing for Traps {
    fn page(&mut self, document: DocumentId, page: PageFacts) -> PageRoute {
        assert!(
            weir_trials::twentieth(&document, &page) != 0,
            "page {} is one of the twenty",
            page.number
        );
        weir_trials::route("traps")
    }
}

weir_sdk::export!(Traps: Routing);
