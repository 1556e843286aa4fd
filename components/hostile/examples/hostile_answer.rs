//! Answers with 100 MiB made of one: labels that all are the same text.

use weir_sdk::routing::{DocumentFacts, DocumentRoute, PageRoute, Routing};
use weir_sdk::{DocumentId, PageFacts};

#[derive(Default)]
struct Hostile;

impl Routing for Hostile {
    fn document(&mut self, _facts: DocumentFacts) -> DocumentRoute {
        weir_hostile::document_route()
    }

    fn page(&mut self, _document: DocumentId, _facts: PageFacts) -> PageRoute {
        weir_hostile::page_route_of_hundred_mebibytes()
    }
}

weir_sdk::export!(Hostile: Routing);
