//! Calls and decisions as JSON, in the words of the contract: names are `kebab-case`, a case of a variant is `"name"` or
//! `{"name": value}`.
//!
//! The host's own types are shaped for the engine and for recordings; these are shaped for people who have `wit/` open beside
//! them. What a case need not say may be left out: lists are then empty, options not set, pages readable and of A4, and the
//! document's id is all zeros.

mod asked;
mod decided;
mod observed;
mod queues;
mod recorded;
mod unsaid;

use anyhow::{Context as _, Result};
use serde_json::Value;
use weir_core::PolicyError;
use weir_core::manifest::Role;
use weir_core::ports::JobPolicy;

pub(crate) use asked::Call;
pub(crate) use recorded::Decision;

impl Call {
    /// Reads a call.
    pub(crate) fn parse(value: Value) -> Result<Self> {
        let function = value.get("function").and_then(Value::as_str).map(str::to_owned);
        serde_json::from_value(value).with_context(|| match function {
            Some(function) => format!("this is no call of {function} after the contract"),
            None => "a call is {\"function\": \"routing.page\", \"input\": {…}}".into(),
        })
    }

    /// Who is asked.
    pub(crate) const fn role(&self) -> Role {
        match self {
            Self::Plan(_) => Role::Batching,
            Self::Document(_) | Self::Page(_) | Self::Failed(_) => Role::Routing,
            Self::Passages(_) | Self::Summarize(_) => Role::Chunking,
            Self::Observe(_) => Role::Progress,
        }
    }

    /// The function's name.
    pub(crate) const fn function(&self) -> &'static str {
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

    /// Asks a job's components and gives the decision.
    pub(crate) async fn ask(self, job: &dyn JobPolicy) -> Result<Value, PolicyError> {
        Ok(match self {
            Self::Plan(situation) => decided::batch(&job.plan(situation.into()).await?),
            Self::Document(facts) => decided::document_route(job.route_document(facts.into()).await?),
            Self::Page(page) => {
                let (document, facts) = page.into();
                decided::page_route(job.route_page(&document, facts).await?)
            }
            Self::Failed(failure) => decided::verdict(job.judge(failure.into()).await?),
            Self::Passages(source) => decided::ranges(&job.passages(source.into()).await?),
            Self::Summarize(section) => decided::summary_plan(job.summarize(section.into()).await?),
            Self::Observe(observed) => {
                let at_millis = observed.at_millis;
                decided::updates(&job.observe(at_millis, observed.event.into()).await?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_with_a_call_is_said() {
        let page = json!({"function": "routing.page", "input": {"facts": {"number": 1, "text-chars": 5}}});
        assert!(matches!(Call::parse(page), Ok(Call::Page(_))));
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
            let error = format!("{:#}", Call::parse(wrong).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn every_function_has_its_role() {
        let call = |function: &str, input: Value| {
            Call::parse(json!({"function": function, "input": input})).unwrap()
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
                call.function().starts_with(call.role().name()),
                "{}",
                call.function()
            );
        }
    }
}
