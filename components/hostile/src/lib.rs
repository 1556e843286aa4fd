//! Components that misbehave, for tests of the host. Each file in `examples/` is one component, `hostile-….wasm`.

pub mod attack;

/// What wit-bindgen makes of `wit/`.
#[allow(missing_docs)]
mod waiting {
    wit_bindgen::generate!({
        path: "wit",
        world: "waiting",
        generate_all,
    });
}

/// Exports every role, each function of which first calls the one given and then answers sensibly, if it comes to that.
#[macro_export]
macro_rules! in_every_role {
    ($misbehave:path) => {
        #[derive(Default)]
        struct Hostile;

        impl weir_sdk::batching::Batching for Hostile {
            fn plan(&mut self, _: weir_sdk::batching::Situation) -> weir_sdk::batching::Batch {
                $misbehave();
                $crate::batch()
            }
        }

        impl weir_sdk::routing::Routing for Hostile {
            fn document(&mut self, _: weir_sdk::routing::DocumentFacts) -> weir_sdk::routing::DocumentRoute {
                $misbehave();
                $crate::document_route()
            }
            fn page(&mut self, _: weir_sdk::DocumentId, _: weir_sdk::PageFacts) -> weir_sdk::routing::PageRoute {
                $misbehave();
                $crate::page_route()
            }
            fn failed(&mut self, _: weir_sdk::routing::Failure) -> weir_sdk::routing::Verdict {
                $misbehave();
                weir_sdk::routing::Verdict::SkipPage
            }
        }

        impl weir_sdk::chunking::Chunking for Hostile {
            fn passages(&mut self, _: weir_sdk::chunking::PassageSource) -> Vec<weir_sdk::Range> {
                $misbehave();
                Vec::new()
            }
            fn summarize(&mut self, _: weir_sdk::chunking::Section) -> weir_sdk::chunking::SummaryPlan {
                $misbehave();
                weir_sdk::chunking::SummaryPlan::None
            }
        }

        impl weir_sdk::progress::Progress for Hostile {
            fn observe(&mut self, _: u64, _: weir_sdk::progress::Event) -> Vec<weir_sdk::progress::Update> {
                $misbehave();
                Vec::new()
            }
        }

        weir_sdk::export!(Hostile: Batching, Routing, Chunking, Progress);
    };
}

use weir_sdk::Label;
use weir_sdk::batching::Batch;
use weir_sdk::routing::{DocumentRoute, Lane, ModelPreferences, PageRoute, Reading};

/// A sensible batch.
pub fn batch() -> Batch {
    Batch {
        pages: 1,
        dpi: 72,
        linger_millis: 0,
        queue_capacity: 4,
    }
}

/// A sensible route of a document.
pub fn document_route() -> DocumentRoute {
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

/// A sensible route of a page.
pub fn page_route() -> PageRoute {
    PageRoute {
        reading: Reading::TextLayer,
        embed: true,
        store: true,
        labels: Vec::new(),
    }
}

/// A route whose labels are 100 MiB, and hardly more than one in memory.
pub fn page_route_of_hundred_mebibytes() -> PageRoute {
    let labels = attack::hundred_mebibytes().into_iter().map(|value| Label {
        name: "hundredth".into(),
        value,
    });
    PageRoute {
        labels: labels.collect(),
        ..page_route()
    }
}

/// Which of its kinds of nonsense a component is to answer: the setting `nonsense`, or the first.
pub fn nonsense<'a>(kinds: &[&'a str]) -> &'a str {
    let words: Vec<_> = kinds.iter().map(|kind| (*kind, *kind)).collect();
    weir_sdk::settings::choice("nonsense", kinds.first().copied().unwrap_or(""), &words)
}
