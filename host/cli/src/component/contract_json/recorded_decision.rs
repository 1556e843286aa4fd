//! Recorded calls as JSON with the names of the contract.

use serde_json::{Value, json};
use weir_core::decision::ObservedEvent;
use weir_core::event::ErrorInfo;
use weir_core::manifest::Role;
use weir_policy::RecordedDecision;

use super::decision_json;

/// Summary of a recorded call.
pub(crate) struct DecisionSummary {
    /// Role of the called function.
    pub(crate) role: Role,
    /// Name of the called function.
    pub(crate) function: &'static str,
    /// Subject of the call: a page, a file name or an event.
    pub(crate) subject: String,
    /// The decision, or `{"failed": kind, "message": …}`.
    pub(crate) decision: Value,
}

impl From<RecordedDecision> for DecisionSummary {
    fn from(exchange: RecordedDecision) -> Self {
        let (function, about, decided) = match exchange {
            RecordedDecision::Plan(situation, answer) => {
                let first = situation.next_pages.first().map_or(0, |page| page.number);
                (
                    "batching.plan",
                    format!("from page {first}"),
                    result_to_json(answer, |plan| decision_json::batch_plan_to_json(&plan)),
                )
            }
            RecordedDecision::Document(facts, answer) => (
                "routing.document",
                facts.name,
                result_to_json(answer, decision_json::document_route_to_json),
            ),
            RecordedDecision::Page(_, facts, answer) => (
                "routing.page",
                describe_page(facts.number),
                result_to_json(answer, decision_json::page_route_to_json),
            ),
            RecordedDecision::Failed(failure, answer) => {
                let about = format!(
                    "{} in {}, attempt {}",
                    describe_page(failure.page),
                    failure.stage,
                    failure.attempt
                );
                (
                    "routing.failed",
                    about,
                    result_to_json(answer, decision_json::failure_action_to_json),
                )
            }
            RecordedDecision::Passages(source, answer) => (
                "chunking.passages",
                describe_page(source.page),
                result_to_json(answer, |ranges| decision_json::ranges_to_json(&ranges)),
            ),
            RecordedDecision::Summarize(section, answer) => (
                "chunking.summarize",
                section.title,
                result_to_json(answer, decision_json::summary_plan_to_json),
            ),
            RecordedDecision::Observe(_, what, answer) => (
                "progress.observe",
                describe_event(&what),
                result_to_json(answer, |updates| {
                    decision_json::progress_updates_to_json(&updates)
                }),
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
            subject: about,
            decision: decided,
        }
    }
}

fn result_to_json<T>(answer: Result<T, ErrorInfo>, write: impl FnOnce(T) -> Value) -> Value {
    answer.map_or_else(
        |error| json!({ "failed": error.kind, "message": error.message }),
        write,
    )
}

fn describe_page(number: u32) -> String {
    format!("page {number}")
}

fn describe_event(what: &ObservedEvent) -> String {
    match what {
        ObservedEvent::DocumentStarted { name, .. } => format!("document-started {name}"),
        ObservedEvent::BatchRasterized { pages, .. } => format!("batch-rasterized {pages}"),
        ObservedEvent::PageDone { page, .. } => format!("page-done {page}"),
        ObservedEvent::PageFailed { page, .. } => format!("page-failed {page}"),
        ObservedEvent::DocumentDone { done, .. } => format!("document-done {done}"),
        ObservedEvent::DocumentFailed { done, .. } => format!("document-failed {done}"),
    }
}
