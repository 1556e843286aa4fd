//! Returns 100 MiB of output from 1 MiB of memory: all labels share the same text.

use weir_sdk::routing::{DocumentFacts, DocumentRoute, PageRoute, Routing};
use weir_sdk::{DocumentId, PageFacts};

#[derive(Default)]
struct Hostile;

impl Routing for Hostile {
    fn document(&mut self, _facts: DocumentFacts) -> DocumentRoute {
        weir_hostile::valid_document_route()
    }

    fn page(&mut self, _document: DocumentId, _facts: PageFacts) -> PageRoute {
        weir_hostile::huge_page_route()
    }
}

weir_sdk::export!(Hostile: Routing);
