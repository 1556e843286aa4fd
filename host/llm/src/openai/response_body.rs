//! Decodes response bodies.
//!
//! Compatible endpoints differ in the fields they omit, so all fields are optional and unknown fields are ignored. Only the
//! fields of a usable response are required.

use serde::Deserialize;
use weir_core::llm::ProviderError;

use super::error_response;

/// Maximum characters of an endpoint's error text.
pub(super) const MAX_ERROR_TEXT_CHARS: usize = 200;

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
    pub(super) fn into_text(self) -> String {
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
pub(super) struct CompletionBody {
    #[serde(default)]
    pub(super) choices: Option<Vec<CompletionChoice>>,
    #[serde(default)]
    pub(super) usage: Option<TokenUsage>,
    #[serde(default)]
    error: Option<ErrorField>,
}

/// An error field: an object or a text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ErrorField {
    Object {
        #[serde(default)]
        message: Option<String>,
        #[serde(default)]
        code: Option<serde_json::Value>,
        #[serde(default, rename = "type")]
        kind: Option<String>,
        #[serde(default)]
        param: Option<String>,
    },
    Text(String),
}

/// The details of an error body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorDetails {
    pub(super) message: String,
    pub(super) code: Option<String>,
    /// The `type` field.
    pub(super) error_type: Option<String>,
    /// The parameter that caused the error.
    pub(super) parameter: Option<String>,
}

impl ErrorDetails {
    fn from_message(words: impl Into<String>) -> Self {
        Self {
            message: words.into(),
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error: Option<ErrorField>,
    #[serde(default)]
    message: Option<serde_json::Value>,
    #[serde(default)]
    detail: Option<serde_json::Value>,
}

impl ErrorField {
    fn into_details(self) -> ErrorDetails {
        match self {
            Self::Text(words) => ErrorDetails::from_message(words),
            Self::Object {
                message,
                code,
                kind,
                param,
            } => ErrorDetails {
                message: message.unwrap_or_default(),
                code: code.map(value_to_text),
                error_type: kind,
                parameter: param,
            },
        }
    }
}

/// Returns a string as it is, and any other value as JSON.
fn value_to_text(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

/// Parses an error body. A body that is not JSON of a known form is used as the message.
pub(super) fn parse_error_body(body: &str) -> ErrorDetails {
    match serde_json::from_str::<ErrorBody>(body) {
        Ok(ErrorBody {
            error: Some(error), ..
        }) => error.into_details(),
        Ok(ErrorBody {
            message: Some(words), ..
        })
        | Ok(ErrorBody {
            detail: Some(words), ..
        }) => ErrorDetails::from_message(value_to_text(words)),
        _ => ErrorDetails::from_message(body),
    }
}

/// Parses a response body or an event. An error field makes it an error, even with status 200.
pub(super) fn parse_completion(json: &[u8]) -> Result<CompletionBody, ProviderError> {
    let mut body: CompletionBody = serde_json::from_slice(json)
        .map_err(|error| ProviderError::InvalidResponse(format!("no chat completion: {error}")))?;
    match body.error.take() {
        Some(error) => Err(error_response::error_from_error_body(&error.into_details())),
        None => Ok(body),
    }
}

/// Shortens an error text to one line of limited length.
pub(super) fn shorten_to_one_line(words: &str) -> String {
    let mut line = String::new();
    for word in words
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|w| !w.is_empty())
    {
        if line.chars().count() + word.chars().count() >= MAX_ERROR_TEXT_CHARS {
            line.push('…');
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}
