//! Calls of the contract's functions as values, for recordings and test cases.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_core::decision::PolicyFunctionInput;
use weir_core::decision::{
    BatchContext, DocumentFacts, PageStageFailure, PageTextToSplit, PageToRoute, SectionToSummarize,
    TimedEvent,
};
use weir_core::event::ErrorInfo;
use weir_core::manifest::Role;
use weir_core::page::PageFacts;

/// A call of a function: its input with its decision, or with the error if the call failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct PolicyFunctionCall<F: PolicyFunctionInput> {
    /// The input.
    pub request: F,
    /// The decision or the error.
    pub response: Result<F::Decision, ErrorInfo>,
}

/// A recorded call of one policy function: its input with its decision or error. The order of the variants is part of the
/// format of recordings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RecordedDecision {
    /// `batching.plan`: how to take the next batch.
    Plan(PolicyFunctionCall<BatchContext>),
    /// `routing.document`: the collection and models of a document.
    Document(PolicyFunctionCall<DocumentFacts>),
    /// `routing.page`: how a page is read.
    Page(PolicyFunctionCall<PageToRoute>),
    /// `routing.failed`: the action after a failure.
    Failed(PolicyFunctionCall<PageStageFailure>),
    /// `chunking.passages`: the passages of a page's text.
    Passages(PolicyFunctionCall<PageTextToSplit>),
    /// `chunking.summarize`: how a section is summarized.
    Summarize(PolicyFunctionCall<SectionToSummarize>),
    /// `progress.observe`: updates for the user.
    Observe(PolicyFunctionCall<TimedEvent>),
}

/// The input of one of the functions. In test cases it has the form `{"function": "routing.page", "input": {…}}`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "function", content = "input", deny_unknown_fields)]
#[allow(missing_docs, reason = "the variants are those of RecordedDecision")]
pub enum PolicyFunctionInvocation {
    #[serde(rename = "batching.plan")]
    Plan(BatchContext),
    #[serde(rename = "routing.document")]
    Document(DocumentFacts),
    #[serde(rename = "routing.page")]
    Page(PageToRoute),
    #[serde(rename = "routing.failed")]
    Failed(PageStageFailure),
    #[serde(rename = "chunking.passages")]
    Passages(PageTextToSplit),
    #[serde(rename = "chunking.summarize")]
    Summarize(SectionToSummarize),
    #[serde(rename = "progress.observe")]
    Observe(TimedEvent),
}

/// Evaluates an expression for the content of a [`RecordedDecision`] or a [`PolicyFunctionInvocation`], whichever function it is of.
macro_rules! match_function {
    ($kind:ident, $value:expr, $content:ident => $result:expr) => {
        match $value {
            $kind::Plan($content) => $result,
            $kind::Document($content) => $result,
            $kind::Page($content) => $result,
            $kind::Failed($content) => $result,
            $kind::Passages($content) => $result,
            $kind::Summarize($content) => $result,
            $kind::Observe($content) => $result,
        }
    };
}
pub(crate) use match_function;

impl RecordedDecision {
    /// Returns the role of the function.
    pub fn role(&self) -> Role {
        match_function!(Self, self, call => role_of_request(&call.request))
    }

    /// Returns the name of the function.
    pub fn function_name(&self) -> &'static str {
        match_function!(Self, self, call => function_name_of_request(&call.request))
    }

    /// Returns a short description of the call's input for reports: a page, a file name or an event.
    pub fn describe_subject(&self) -> String {
        match_function!(Self, self, call => call.request.describe_call_subject())
    }

    /// Returns the error if the call failed.
    pub fn error(&self) -> Option<&ErrorInfo> {
        match_function!(Self, self, call => call.response.as_ref().err())
    }

    /// Returns the decision as JSON with the names of the contract; `null` if the call failed.
    pub fn decision_to_json(&self) -> Value {
        match_function!(Self, self, call => call.response.as_ref().map_or(Value::Null, serialize_to_json_via_text))
    }

    /// Formats the decision or the error for a person.
    pub(crate) fn format_response(&self) -> String {
        match_function!(Self, self, call => match &call.response {
            Ok(decision) => format!("{decision:?}"),
            Err(error) => format!("{}: {}", error.kind, error.message),
        })
    }

    /// Whether both are calls of the same function with the same input.
    pub(crate) fn has_same_request(&self, other: &Self) -> bool {
        let encode = |decision: &Self| match_function!(Self, decision, call => postcard::to_stdvec(&call.request).ok());
        self.function_name() == other.function_name() && encode(self) == encode(other)
    }

    /// Returns the approximate size in bytes of the data on the heap.
    pub(super) fn estimate_heap_bytes(&self) -> usize {
        match self {
            Self::Plan(call) => call.request.next_pages.len() * size_of::<PageFacts>(),
            Self::Passages(call) => call.request.text.len(),
            Self::Summarize(call) => call.request.text.len(),
            Self::Document(_) | Self::Page(_) | Self::Failed(_) | Self::Observe(_) => 0,
        }
    }
}

impl PolicyFunctionInvocation {
    /// Returns the role of the function.
    pub fn role(&self) -> Role {
        match_function!(Self, self, input => role_of_request(input))
    }

    /// Returns the name of the function.
    pub fn function_name(&self) -> &'static str {
        match_function!(Self, self, input => function_name_of_request(input))
    }
}

const fn role_of_request<F: PolicyFunctionInput>(_: &F) -> Role {
    F::ROLE
}

const fn function_name_of_request<F: PolicyFunctionInput>(_: &F) -> &'static str {
    F::NAME
}

/// Converts a decision by way of text, because a direct conversion would turn the `f32` 33.3 into 33.29999923706055.
fn serialize_to_json_via_text(decision: &impl Serialize) -> Value {
    let text = serde_json::to_string(decision);
    text.and_then(|text| serde_json::from_str(&text))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
