//! Recorded calls, in the words of the contract.

use serde_json::{Value, json};
use weir_core::decision::Observation;
use weir_core::event::ErrorNote;
use weir_core::manifest::Role;
use weir_policy::Exchange;

use super::decided;

/// A recorded call in short.
pub(crate) struct Decision {
    /// Who was asked.
    pub(crate) role: Role,
    /// The function called.
    pub(crate) function: &'static str,
    /// What it was about: a page, a file's name, an event.
    pub(crate) about: String,
    /// What was decided, or `{"failed": kind, "message": …}`.
    pub(crate) decided: Value,
}

impl From<Exchange> for Decision {
    fn from(exchange: Exchange) -> Self {
        let (function, about, decided) = match exchange {
            Exchange::Plan(situation, answer) => {
                let first = situation.next.first().map_or(0, |page| page.number);
                (
                    "batching.plan",
                    format!("from page {first}"),
                    settled(answer, |plan| decided::batch(&plan)),
                )
            }
            Exchange::Document(facts, answer) => (
                "routing.document",
                facts.name,
                settled(answer, decided::document_route),
            ),
            Exchange::Page(_, facts, answer) => (
                "routing.page",
                page(facts.number),
                settled(answer, decided::page_route),
            ),
            Exchange::Failed(failure, answer) => {
                let about = format!(
                    "{} in {}, attempt {}",
                    page(failure.page),
                    failure.stage,
                    failure.attempt
                );
                ("routing.failed", about, settled(answer, decided::verdict))
            }
            Exchange::Passages(source, answer) => (
                "chunking.passages",
                page(source.page),
                settled(answer, |ranges| decided::ranges(&ranges)),
            ),
            Exchange::Summarize(section, answer) => (
                "chunking.summarize",
                section.title,
                settled(answer, decided::summary_plan),
            ),
            Exchange::Observe(_, what, answer) => (
                "progress.observe",
                event(&what),
                settled(answer, |updates| decided::updates(&updates)),
            ),
        };
        let role = match function.split('.').next() {
            Some("batching") => Role::Batching,
            Some("routing") => Role::Routing,
            Some("chunking") => Role::Chunking,
            _ => Role::Progress,
        };
        Self {
            role,
            function,
            about,
            decided,
        }
    }
}

fn settled<T>(answer: Result<T, ErrorNote>, write: impl FnOnce(T) -> Value) -> Value {
    answer.map_or_else(
        |error| json!({ "failed": error.kind, "message": error.message }),
        write,
    )
}

fn page(number: u32) -> String {
    format!("page {number}")
}

fn event(what: &Observation) -> String {
    match what {
        Observation::DocumentStarted { name, .. } => format!("document-started {name}"),
        Observation::BatchRasterized { pages, .. } => format!("batch-rasterized {pages}"),
        Observation::PageDone { page, .. } => format!("page-done {page}"),
        Observation::PageFailed { page, .. } => format!("page-failed {page}"),
        Observation::DocumentDone { done, .. } => format!("document-done {done}"),
        Observation::DocumentFailed { done, .. } => format!("document-failed {done}"),
    }
}
