//! A question, as it is sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use weir_core::language::{Fault, Question};
use weir_core::settings::TokenLimit;

use super::OpenAiConfig;

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Content<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a str),
    Parts(Vec<Part<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: ImageUrl },
}

#[derive(Serialize)]
struct ImageUrl {
    url: String,
}

/// The body of a request.
pub(super) fn body(config: &OpenAiConfig, question: &Question) -> Result<Vec<u8>, Fault> {
    let prompt = question.rendered();
    let mut messages = Vec::with_capacity(2);
    if let Some(system) = &question.system {
        messages.push(Message {
            role: "system",
            content: Content::Text(system),
        });
    }
    let content = match &question.image {
        None => Content::Text(&prompt),
        Some(image) => Content::Parts(vec![
            Part::Text { text: &prompt },
            Part::ImageUrl {
                image_url: ImageUrl {
                    url: format!(
                        "data:{};base64,{}",
                        image.media_type,
                        STANDARD.encode(&image.bytes)
                    ),
                },
            },
        ]),
    };
    messages.push(Message {
        role: "user",
        content,
    });
    let limit = Some(question.max_tokens);
    let (max_tokens, max_completion_tokens) = match config.token_limit {
        TokenLimit::MaxTokens => (limit, None),
        TokenLimit::MaxCompletionTokens => (None, limit),
    };
    let request = Request {
        model: &config.model,
        messages,
        max_tokens,
        max_completion_tokens,
        temperature: config.temperature,
        stream: config.stream,
        stream_options: config.stream.then_some(StreamOptions { include_usage: true }),
    };
    serde_json::to_vec(&request).map_err(|error| Fault::Failed(error.to_string()))
}
