//! Decodes error bodies.

use serde::Deserialize;

/// Maximum characters of an endpoint's error text.
pub(super) const MAX_ERROR_TEXT_CHARS: usize = 200;

/// An error field: an object or a text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum ErrorObjectOrText {
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
    fn from_message(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error: Option<ErrorObjectOrText>,
    #[serde(default)]
    message: Option<serde_json::Value>,
    #[serde(default)]
    detail: Option<serde_json::Value>,
}

impl ErrorObjectOrText {
    pub(super) fn into_details(self) -> ErrorDetails {
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

/// Shortens an error text to one line of limited length.
pub(super) fn shorten_to_one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text
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
