//! Returns invalid routes; the setting `invalid-decision` selects the error.

use weir_sdk::routing::{
    DocumentFacts, DocumentRoute, Failure, ModelPreferences, PageRoute, Reading, Routing, Verdict,
};
use weir_sdk::{DocumentId, Label, PageFacts};

#[derive(Default)]
struct InvalidDecisions;

fn selected_error() -> &'static str {
    weir_hostile::choose_invalid_decision(&[
        "path",
        "empty-collection",
        "long-collection",
        "many-labels",
        "long-label",
        "unknown-model",
        "embed-unread",
        "page-labels",
        "long-retry",
    ])
}

fn make_labels(count: usize, length: usize) -> Vec<Label> {
    let label = Label {
        name: "a".repeat(length),
        value: "b".into(),
    };
    vec![label; count]
}

impl Routing for InvalidDecisions {
    fn document(&mut self, _facts: DocumentFacts) -> DocumentRoute {
        let mut route = weir_hostile::valid_document_route();
        match selected_error() {
            "path" => route.collection = "../x".into(),
            "empty-collection" => route.collection = String::new(),
            "long-collection" => route.collection = "a".repeat(65),
            "many-labels" => route.labels = make_labels(10_000, 1),
            "long-label" => route.labels = make_labels(1, 100_000),
            "unknown-model" => {
                route.models = ModelPreferences {
                    ocr: Some("../../etc/passwd".into()),
                    text_embedding: Some("no such model".into()),
                }
            }
            _ => {}
        }
        route
    }

    fn page(&mut self, _document: DocumentId, _facts: PageFacts) -> PageRoute {
        let mut route = weir_hostile::valid_page_route();
        match selected_error() {
            "embed-unread" => route.reading = Reading::Nothing,
            "page-labels" => route.labels = make_labels(10_000, 1),
            _ => {}
        }
        route
    }

    fn failed(&mut self, _failure: Failure) -> Verdict {
        match selected_error() {
            "long-retry" => Verdict::RetryAfter(u32::MAX),
            _ => Verdict::SkipPage,
        }
    }
}

weir_sdk::export!(InvalidDecisions: Routing);
