//! Where a document goes, how each page is read, and what follows a failure.

pub use crate::bindings::router::exports::weir::pipeline::routing::{
    DocumentFacts, DocumentRoute, Failure, Lane, ModelPreferences, PageRoute, Reading, Verdict,
};
use crate::{DocumentId, PageFacts};

/// The role `routing`.
pub trait Routing {
    /// Where a document goes. Asked once for each document, before its first batch. If not given: collection `default`, lane
    /// `bulk`, no labels, the host's models.
    fn document(&mut self, _facts: DocumentFacts) -> DocumentRoute {
        DocumentRoute {
            collection: "default".into(),
            lane: Lane::Bulk,
            models: ModelPreferences {
                ocr: None,
                text_embedding: None,
            },
            labels: Vec::new(),
        }
    }

    /// What is done with a page. Asked once for each page, when its batch has been planned.
    fn page(&mut self, document: DocumentId, facts: PageFacts) -> PageRoute;

    /// What follows a failure of a page. If not given: the document stops.
    fn failed(&mut self, _failure: Failure) -> Verdict {
        Verdict::FailDocument
    }
}
