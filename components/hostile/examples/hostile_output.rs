//! Returns decisions that fit into its memory but exceed the output limit: 4 MiB of a name, of ranges or of a message.

use weir_sdk::chunking::{Chunking, PassageSource};
use weir_sdk::progress::{Event, Progress, Update};
use weir_sdk::routing::{DocumentFacts, DocumentRoute, PageRoute, Routing};
use weir_sdk::{DocumentId, PageFacts, Range};

const OUTPUT_BYTES: usize = 4 << 20;

#[derive(Default)]
struct Hostile;

impl Routing for Hostile {
    fn document(&mut self, _facts: DocumentFacts) -> DocumentRoute {
        DocumentRoute {
            collection: "a".repeat(OUTPUT_BYTES),
            ..weir_hostile::valid_document_route()
        }
    }

    fn page(&mut self, _document: DocumentId, _facts: PageFacts) -> PageRoute {
        weir_hostile::valid_page_route()
    }
}

impl Chunking for Hostile {
    fn passages(&mut self, _source: PassageSource) -> Vec<Range> {
        vec![Range { start: 0, end: 1 }; OUTPUT_BYTES / 8]
    }
}

impl Progress for Hostile {
    fn observe(&mut self, _at_millis: u64, _event: Event) -> Vec<Update> {
        vec![Update {
            document: String::new(),
            percent: 0.0,
            message: "a".repeat(OUTPUT_BYTES),
            seconds_left: None,
        }]
    }
}

weir_sdk::export!(Hostile: Routing, Chunking, Progress);
