//! What comes over the wire, decoded once.
//!
//! Endpoints that call themselves compatible differ in what they leave out, so everything may be missing, and what is not
//! known is passed over. Only what an answer needs must be there.

use serde::Deserialize;
use weir_core::language::Fault;

use super::failure;

/// Characters of an endpoint's words that are kept.
pub(super) const WORDS: usize = 200;

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Finish {
    Stop,
    Length,
    ContentFilter,
    /// A word of one endpoint: it stopped by itself.
    #[serde(other)]
    Other,
}

/// Content is a text, or parts of which some are.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
pub(super) struct Part {
    #[serde(default)]
    text: Option<String>,
}

impl Content {
    pub(super) fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Parts(parts) => parts.into_iter().filter_map(|part| part.text).collect(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Message {
    #[serde(default)]
    pub(super) content: Option<Content>,
    /// Says no, in words.
    #[serde(default)]
    pub(super) refusal: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Choice {
    #[serde(default, alias = "delta")]
    pub(super) message: Option<Message>,
    #[serde(default)]
    pub(super) finish_reason: Option<Finish>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Tokens {
    #[serde(default)]
    pub(super) prompt_tokens: Option<u32>,
    #[serde(default)]
    pub(super) completion_tokens: Option<u32>,
}

/// An answer, or a piece of one.
#[derive(Debug, Deserialize)]
pub(super) struct Body {
    #[serde(default)]
    pub(super) choices: Option<Vec<Choice>>,
    #[serde(default)]
    pub(super) usage: Option<Tokens>,
    #[serde(default)]
    error: Option<Trouble>,
}

/// An error in words: an object, or a text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Trouble {
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

/// What an error body says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) words: String,
    pub(super) code: Option<String>,
    /// Its type.
    pub(super) kind: Option<String>,
    /// The parameter it is about.
    pub(super) param: Option<String>,
}

impl Said {
    fn plain(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error: Option<Trouble>,
    #[serde(default)]
    message: Option<serde_json::Value>,
    #[serde(default)]
    detail: Option<serde_json::Value>,
}

impl Trouble {
    fn said(self) -> Said {
        match self {
            Self::Text(words) => Said::plain(words),
            Self::Object {
                message,
                code,
                kind,
                param,
            } => Said {
                words: message.unwrap_or_default(),
                code: code.map(text),
                kind,
                param,
            },
        }
    }
}

/// A text as it is, anything else as JSON.
fn text(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

/// What an answer that is an error says; its text as it is, if it is not JSON of a kind that is known.
pub(super) fn said(body: &str) -> Said {
    match serde_json::from_str::<ErrorBody>(body) {
        Ok(ErrorBody {
            error: Some(error), ..
        }) => error.said(),
        Ok(ErrorBody {
            message: Some(words), ..
        })
        | Ok(ErrorBody {
            detail: Some(words), ..
        }) => Said::plain(text(words)),
        _ => Said::plain(body),
    }
}

/// An answer or a piece of one. That an endpoint reports an error under status 200 is a fault, too.
pub(super) fn body(json: &[u8]) -> Result<Body, Fault> {
    let mut body: Body = serde_json::from_slice(json)
        .map_err(|error| Fault::Unintelligible(format!("no chat completion: {error}")))?;
    match body.error.take() {
        Some(error) => Err(failure::under_success(&error.said())),
        None => Ok(body),
    }
}

/// An endpoint's words, on one line and not many.
pub(super) fn one_line(words: &str) -> String {
    let mut line = String::new();
    for word in words
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|w| !w.is_empty())
    {
        if line.chars().count() + word.chars().count() >= WORDS {
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
