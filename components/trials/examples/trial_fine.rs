//! Decides like the stable revision, with another label.

use weir_sdk::routing::{PageRoute, Routing};
use weir_sdk::{DocumentId, PageFacts};

#[derive(Default)]
struct Fine;

impl Routing for Fine {
    fn page(&mut self, _document: DocumentId, _page: PageFacts) -> PageRoute {
        weir_trials::labeled_page_route(&weir_sdk::settings::get_or("name", String::from("fine")))
    }
}

weir_sdk::export!(Fine: Routing);
