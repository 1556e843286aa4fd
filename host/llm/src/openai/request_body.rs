//! The JSON body of a request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use weir_core::llm::{LlmRequest, ProviderError};
use weir_core::settings::TokenLimitParameter;

use super::config::OpenAiConfig;

#[derive(Serialize)]
struct CompletionRequest<'a> {
    model: &'a str,
    messages: Vec<RequestMessage<'a>>,
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
struct RequestMessage<'a> {
    role: &'static str,
    content: MessageContent<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum MessageContent<'a> {
    Text(&'a str),
    Parts(Vec<ContentPart<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ContentPart<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: ImageUrl },
}

#[derive(Serialize)]
struct ImageUrl {
    url: String,
}

/// Encodes the body of a request.
pub(super) fn encode_request(
    config: &OpenAiConfig,
    llm_request: &LlmRequest,
) -> Result<Vec<u8>, ProviderError> {
    let prompt = llm_request.render_prompt();
    let mut messages = Vec::with_capacity(2);
    if let Some(system) = &llm_request.system_prompt {
        messages.push(RequestMessage {
            role: "system",
            content: MessageContent::Text(system),
        });
    }
    let content = match &llm_request.image {
        None => MessageContent::Text(&prompt),
        Some(image) => MessageContent::Parts(vec![
            ContentPart::Text { text: &prompt },
            ContentPart::ImageUrl {
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
    messages.push(RequestMessage {
        role: "user",
        content,
    });
    let limit = Some(llm_request.max_response_tokens);
    let (max_tokens, max_completion_tokens) = match config.token_limit {
        TokenLimitParameter::MaxTokens => (limit, None),
        TokenLimitParameter::MaxCompletionTokens => (None, limit),
    };
    let request = CompletionRequest {
        model: &config.model_name,
        messages,
        max_tokens,
        max_completion_tokens,
        temperature: config.temperature,
        stream: config.stream,
        stream_options: config.stream.then_some(StreamOptions { include_usage: true }),
    };
    serde_json::to_vec(&request).map_err(|error| ProviderError::LocalFailure(error.to_string()))
}
