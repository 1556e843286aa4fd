//! Requests a higher resolution than the stable revision, so that the host takes longer. A component has no clock and cannot wait, so only
//! its decisions can make a job slower.

use weir_sdk::batching::{Batch, Batching, Situation};
use weir_sdk::routing::{PageRoute, Routing};
use weir_sdk::{DocumentId, PageFacts, settings};

#[derive(Default)]
struct Slower;

impl Batching for Slower {
    fn plan(&mut self, situation: Situation) -> Batch {
        Batch {
            pages: situation.remaining_pages.clamp(1, 8),
            dpi: settings::within("dpi", 150, 36..=600),
            linger_millis: 0,
            queue_capacity: 16,
        }
    }
}

impl Routing for Slower {
    fn page(&mut self, _document: DocumentId, _page: PageFacts) -> PageRoute {
        weir_trials::labeled_page_route("slower")
    }
}

weir_sdk::export!(Slower: Batching, Routing);
