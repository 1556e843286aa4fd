//! Answers with routes that cannot be; the setting `nonsense` says what is wrong with them.

use weir_sdk::routing::{
    DocumentFacts, DocumentRoute, Failure, ModelPreferences, PageRoute, Reading, Routing, Verdict,
};
use weir_sdk::{DocumentId, Label, PageFacts};

#[derive(Default)]
struct Nonsense;

fn kind() -> &'static str {
    weir_hostile::nonsense(&[
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

fn labels(count: usize, length: usize) -> Vec<Label> {
    let label = Label {
        name: "a".repeat(length),
        value: "b".into(),
    };
    vec![label; count]
}

impl Routing for Nonsense {
    fn document(&mut self, _facts: DocumentFacts) -> DocumentRoute {
        let mut route = weir_hostile::document_route();
        match kind() {
            "path" => route.collection = "../x".into(),
            "empty-collection" => route.collection = String::new(),
            "long-collection" => route.collection = "a".repeat(65),
            "many-labels" => route.labels = labels(10_000, 1),
            "long-label" => route.labels = labels(1, 100_000),
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
        let mut route = weir_hostile::page_route();
        match kind() {
            "embed-unread" => route.reading = Reading::Nothing,
            "page-labels" => route.labels = labels(10_000, 1),
            _ => {}
        }
        route
    }

    fn failed(&mut self, _failure: Failure) -> Verdict {
        match kind() {
            "long-retry" => Verdict::RetryAfter(u32::MAX),
            _ => Verdict::SkipPage,
        }
    }
}

weir_sdk::export!(Nonsense: Routing);
