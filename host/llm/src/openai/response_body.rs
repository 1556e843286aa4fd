//! Decodes response bodies.
//!
//! Compatible endpoints differ in the fields they omit, so all fields are optional and unknown fields are ignored. Only the
//! fields of a usable response are required.

use serde::Deserialize;
use weir_core::llm::ProviderError;

use super::error_body::ErrorObjectOrText;
use super::error_response;

/// Why the model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FinishReason {
    Stop,
    Length,
    ContentFilter,
    /// Some endpoints use values of their own for a regular stop.
    #[serde(other)]
    Other,
}

/// Message content: a text, or parts of which some are text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum MessageContent {
    Text(String),
    Parts(Vec<ContentPart>),
}

#[derive(Debug, Deserialize)]
pub(super) struct ContentPart {
    #[serde(default)]
    text: Option<String>,
}

impl MessageContent {
    pub(super) fn message_content_into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Parts(parts) => parts.into_iter().filter_map(|part| part.text).collect(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct ResponseMessage {
    #[serde(default)]
    pub(super) content: Option<MessageContent>,
    /// The text of a refusal.
    #[serde(default)]
    pub(super) refusal: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct CompletionChoice {
    #[serde(default, alias = "delta")]
    pub(super) message: Option<ResponseMessage>,
    #[serde(default)]
    pub(super) finish_reason: Option<FinishReason>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct TokenUsage {
    #[serde(default)]
    pub(super) prompt_tokens: Option<u32>,
    #[serde(default)]
    pub(super) completion_tokens: Option<u32>,
}

/// A response body, or one event of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct CompletionBodyOrEvent {
    #[serde(default)]
    pub(super) choices: Option<Vec<CompletionChoice>>,
    #[serde(default)]
    pub(super) usage: Option<TokenUsage>,
    #[serde(default)]
    error: Option<ErrorObjectOrText>,
}

/// Parses a response body or an event. An error field makes it an error, even with status 200.
pub(super) fn parse_body_or_stream_event(json: &[u8]) -> Result<CompletionBodyOrEvent, ProviderError> {
    let mut body: CompletionBodyOrEvent = serde_json::from_slice(json)
        .map_err(|error| ProviderError::InvalidResponse(format!("no chat completion: {error}")))?;
    match body.error.take() {
        Some(error) => Err(error_response::error_from_status_200_body(&error.into_details())),
        None => Ok(body),
    }
}
