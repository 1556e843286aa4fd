//! Hostile components for tests of the host. Each file in `examples/` is one component, `hostile-….wasm`.

pub mod attack;

/// Bindings that wit-bindgen generates from `wit/`.
#[allow(missing_docs)]
mod sleep_bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "sleeping",
        generate_all,
    });
}

/// Exports every role. Each function first calls the given attack and then returns a valid decision.
#[macro_export]
macro_rules! attack_in_every_role {
    ($attack:path) => {
        #[derive(Default)]
        struct Hostile;

        impl weir_sdk::batching::Batching for Hostile {
            fn plan(&mut self, _: weir_sdk::batching::Situation) -> weir_sdk::batching::Batch {
                $attack();
                $crate::valid_batch()
            }
        }

        impl weir_sdk::routing::Routing for Hostile {
            fn document(&mut self, _: weir_sdk::routing::DocumentFacts) -> weir_sdk::routing::DocumentRoute {
                $attack();
                $crate::valid_document_route()
            }
            fn page(&mut self, _: weir_sdk::DocumentId, _: weir_sdk::PageFacts) -> weir_sdk::routing::PageRoute {
                $attack();
                $crate::valid_page_route()
            }
            fn failed(&mut self, _: weir_sdk::routing::Failure) -> weir_sdk::routing::Verdict {
                $attack();
                weir_sdk::routing::Verdict::SkipPage
            }
        }

        impl weir_sdk::chunking::Chunking for Hostile {
            fn passages(&mut self, _: weir_sdk::chunking::PassageSource) -> Vec<weir_sdk::Range> {
                $attack();
                Vec::new()
            }
            fn summarize(&mut self, _: weir_sdk::chunking::Section) -> weir_sdk::chunking::SummaryPlan {
                $attack();
                weir_sdk::chunking::SummaryPlan::None
            }
        }

        impl weir_sdk::progress::Progress for Hostile {
            fn observe(&mut self, _: u64, _: weir_sdk::progress::Event) -> Vec<weir_sdk::progress::Update> {
                $attack();
                Vec::new()
            }
        }

        weir_sdk::export!(Hostile: Batching, Routing, Chunking, Progress);
    };
}

use weir_sdk::Label;
use weir_sdk::batching::Batch;
use weir_sdk::routing::{DocumentRoute, Lane, ModelPreferences, PageRoute, Reading};

/// Returns a valid batch.
pub fn valid_batch() -> Batch {
    Batch {
        pages: 1,
        dpi: 72,
        linger_millis: 0,
        queue_capacity: 4,
    }
}

/// Returns a valid route of a document.
pub fn valid_document_route() -> DocumentRoute {
    DocumentRoute {
        collection: "default".into(),
        lane: Lane::Interactive,
        models: ModelPreferences {
            ocr: None,
            text_embedding: None,
        },
        labels: Vec::new(),
    }
}

/// Returns a valid route of a page.
pub fn valid_page_route() -> PageRoute {
    PageRoute {
        reading: Reading::TextLayer,
        embed: true,
        store: true,
        labels: Vec::new(),
    }
}

/// Returns a route with 100 MiB of labels that take little more than 1 MiB of memory.
pub fn huge_page_route() -> PageRoute {
    let labels = attack::shared_hundred_mebibytes().into_iter().map(|value| Label {
        name: "hundredth".into(),
        value,
    });
    PageRoute {
        labels: labels.collect(),
        ..valid_page_route()
    }
}

/// Selects the kind of invalid decision by the setting `invalid-decision`, or the first kind if it is not set.
pub fn choose_invalid_decision<'a>(kinds: &[&'a str]) -> &'a str {
    let words: Vec<_> = kinds.iter().map(|kind| (*kind, *kind)).collect();
    weir_sdk::settings::choice("invalid-decision", kinds.first().copied().unwrap_or(""), &words)
}
