//! The role `routing`: a document's collection and lane, how each page is read, and the action after a failure.

pub use crate::bindings::router::exports::weir::pipeline::routing::{
    DocumentFacts, DocumentRoute, Failure, Lane, ModelPreferences, PageRoute, Reading, Verdict,
};
use crate::{DocumentId, PageFacts};

/// The role `routing`.
pub trait Routing {
    /// Chooses the route of a document. Called once for each document, before its first batch. The default is collection `default`,
    /// lane `bulk`, no labels and the host's models.
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

    /// Chooses the route of a page. Called once for each page, after its batch has been planned.
    fn page(&mut self, document: DocumentId, facts: PageFacts) -> PageRoute;

    /// Decides the action after a failure of a page. The default is to fail the document.
    fn failed(&mut self, _failure: Failure) -> Verdict {
        Verdict::FailDocument
    }
}
