//! Panics on one page of twenty. The page is chosen by document and page number, so that every attempt fails on the same one.

use weir_sdk::routing::{PageRoute, Routing};
use weir_sdk::{DocumentId, PageFacts};

#[derive(Default)]
struct Traps;

impl Routing for Traps {
    fn page(&mut self, document: DocumentId, page: PageFacts) -> PageRoute {
        assert!(
            weir_trials::page_hash_below_20(&document, &page) != 0,
            "page {} is the one of twenty that traps",
            page.number
        );
        weir_trials::labeled_page_route("traps")
    }
}

weir_sdk::export!(Traps: Routing);
