//! Calls and decisions as JSON with the names of the WIT contract. Names are `kebab-case`, and a case of a WIT variant is
//! `"name"` or `{"name": value}`.
//!
//! The host's own types follow the engine and the recordings. The JSON follows `wit/`, so that authors of test cases find the
//! names there. Fields with a default may be left out: lists are then empty, options are not set, pages are readable and of size
//! A4, and the document id is all zeros.

mod call;
mod decision_json;
mod defaults;
mod observed_event;
mod recorded_decision;
mod stage_state;

use anyhow::{Context as _, Result};
use serde_json::Value;
use weir_core::PolicyError;
use weir_core::manifest::Role;
use weir_core::ports::JobPolicy;

pub(crate) use call::ComponentCall;
pub(crate) use recorded_decision::DecisionSummary;

impl ComponentCall {
    /// Parses a call from JSON.
    pub(crate) fn parse(value: Value) -> Result<Self> {
        let function = value.get("function").and_then(Value::as_str).map(str::to_owned);
        serde_json::from_value(value).with_context(|| match function {
            Some(function) => format!("the call of {function} does not match the contract"),
            None => "a call has the format {\"function\": \"routing.page\", \"input\": {…}}".into(),
        })
    }

    /// Role of the called function.
    pub(crate) const fn role(&self) -> Role {
        match self {
            Self::Plan(_) => Role::Batching,
            Self::Document(_) | Self::Page(_) | Self::Failed(_) => Role::Routing,
            Self::Passages(_) | Self::Summarize(_) => Role::Chunking,
            Self::Observe(_) => Role::Progress,
        }
    }

    /// Name of the called function.
    pub(crate) const fn function_name(&self) -> &'static str {
        match self {
            Self::Plan(_) => "batching.plan",
            Self::Document(_) => "routing.document",
            Self::Page(_) => "routing.page",
            Self::Failed(_) => "routing.failed",
            Self::Passages(_) => "chunking.passages",
            Self::Summarize(_) => "chunking.summarize",
            Self::Observe(_) => "progress.observe",
        }
    }

    /// Makes the call in a job and returns the decision as JSON.
    pub(crate) async fn make_call(self, job: &dyn JobPolicy) -> Result<Value, PolicyError> {
        Ok(match self {
            Self::Plan(situation) => {
                decision_json::batch_plan_to_json(&job.plan_batch(situation.into()).await?)
            }
            Self::Document(facts) => {
                decision_json::document_route_to_json(job.route_document(facts.into()).await?)
            }
            Self::Page(page) => {
                let (document, facts) = page.into();
                decision_json::page_route_to_json(job.route_page(&document, facts).await?)
            }
            Self::Failed(failure) => {
                decision_json::failure_action_to_json(job.choose_failure_action(failure.into()).await?)
            }
            Self::Passages(source) => {
                decision_json::ranges_to_json(&job.split_passages(source.into()).await?)
            }
            Self::Summarize(section) => {
                decision_json::summary_plan_to_json(job.plan_summary(section.into()).await?)
            }
            Self::Observe(observed) => {
                let at_millis = observed.at_millis;
                decision_json::progress_updates_to_json(
                    &job.handle_event(at_millis, observed.event.into()).await?,
                )
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn invalid_call_error_names_the_wrong_part() {
        let page = json!({"function": "routing.page", "input": {"facts": {"number": 1, "text-chars": 5}}});
        assert!(matches!(ComponentCall::parse(page), Ok(ComponentCall::Page(_))));
        for (wrong, part) in [
            (
                json!({"function": "routing.page", "input": {"facts": {"number": 1, "text_chars": 5}}}),
                "text_chars",
            ),
            (json!({"function": "routing.pages", "input": {}}), "routing.pages"),
            (
                json!({"function": "batching.plan", "input": {"total-pages": -1}}),
                "batching.plan",
            ),
            (json!([]), "function"),
        ] {
            let error = format!("{:#}", ComponentCall::parse(wrong).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn function_name_starts_with_its_role() {
        let call = |function: &str, input: Value| {
            ComponentCall::parse(json!({"function": function, "input": input})).unwrap()
        };
        for call in [
            call("batching.plan", json!({"total-pages": 9, "remaining-pages": 9})),
            call("routing.document", json!({"name": "a.pdf", "pages": 1})),
            call("routing.page", json!({"facts": {"number": 1}})),
            call(
                "routing.failed",
                json!({"page": 1, "stage": "read", "attempt": 1, "kind": "model-failed"}),
            ),
            call("chunking.passages", json!({"page": 1, "text": "a"})),
            call("chunking.summarize", json!({"title": "a", "text": "a"})),
            call(
                "progress.observe",
                json!({"at-millis": 5, "event": {"document-done": {"done": 1}}}),
            ),
        ] {
            assert!(
                call.function_name().starts_with(call.role().name()),
                "{}",
                call.function_name()
            );
        }
    }
}
