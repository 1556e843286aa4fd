//! Each kind of broken response leads to its own kind of error.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;
use weir_core::llm::{LlmRequest, ProviderError};
use weir_core::page::EncodedImage;
use weir_core::settings::TokenLimitParameter;
use weir_llm::{OpenAiConfig, OpenAiProvider, Provider as _, ProviderApiKey, ProviderResponse};

use crate::fake_endpoint::{EndpointBehavior, FakeEndpoint, completion_json, stream_chunk_json};
use crate::fake_provider::build_request;

async fn call_endpoint(behavior: EndpointBehavior) -> Result<ProviderResponse, ProviderError> {
    let endpoint = FakeEndpoint::with_behavior(behavior).await;
    let provider = endpoint.openai_provider();
    timeout(
        Duration::from_secs(5),
        provider.call_model(&build_request("the text")),
    )
    .await
    .expect("the call ends")
}

#[tokio::test]
async fn response_is_read_whole_and_as_a_stream() {
    let endpoint = FakeEndpoint::with_behavior(EndpointBehavior::Answer).await;
    for stream in [true, false] {
        let provider = OpenAiProvider::new(OpenAiConfig {
            stream,
            ..endpoint.openai_config()
        })
        .unwrap();
        let reply = provider
            .call_model(&build_request("Größe: 3 µm – ja."))
            .await
            .unwrap();
        let expected = ProviderResponse {
            text: "Größe: 3 µm – ja.".into(),
            quotes: Vec::new(),
            prompt_tokens: Some(11),
            completion_tokens: Some(7),
        };
        assert_eq!(reply, expected, "stream {stream}");
    }
    // Some endpoints send a whole response to a request for a stream, and some send content in parts.
    let parts = json!({"choices": [{"message": {"content": [{"type": "text", "text": "the "}, {"type": "text", "text": "text"}]}}]});
    assert_eq!(
        call_endpoint(EndpointBehavior::Body(parts.to_string()))
            .await
            .unwrap()
            .text,
        "the text"
    );
    assert_eq!(
        call_endpoint(EndpointBehavior::Body(completion_json(" the text\n", "eos")))
            .await
            .unwrap()
            .text,
        "the text"
    );
    // After a finish reason, the stream may end without `[DONE]`.
    let ended = vec![
        stream_chunk_json("the ", None),
        stream_chunk_json("text", Some("stop")),
    ];
    assert_eq!(
        call_endpoint(EndpointBehavior::Events(ended)).await.unwrap().text,
        "the text"
    );
}

#[tokio::test]
async fn each_bad_response_has_its_error_kind() {
    let status = |status: u16, headers: &[(&'static str, &str)], body: &str| {
        let headers = headers
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        EndpointBehavior::Status(status, headers, body.into())
    };
    let error = r#"{"error": {"message": "it\nbroke", "code": 7}}"#;
    for (act, kind, words) in [
        (
            status(429, &[], ""),
            "rate-limited",
            "limits the rate of requests",
        ),
        (
            status(429, &[("retry-after", "7")], ""),
            "rate-limited",
            "limits the rate of requests, retry in 7 s",
        ),
        (
            status(500, &[], error),
            "server-error",
            "failed with status 500: it broke",
        ),
        (
            status(503, &[], ""),
            "server-error",
            "failed with status 503: service unavailable",
        ),
        (
            status(400, &[], error),
            "request-rejected",
            "rejected the request with status 400: it broke",
        ),
        (
            status(401, &[], error),
            "denied",
            "authentication failed (401): it broke",
        ),
        (
            status(307, &[("location", "http://elsewhere/")], ""),
            "denied",
            "address refused (307)",
        ),
        (
            EndpointBehavior::Body("<html>hello</html>".into()),
            "invalid-response",
            "no chat completion",
        ),
        (
            EndpointBehavior::Body("[]".into()),
            "invalid-response",
            "no chat completion",
        ),
        (
            EndpointBehavior::Body("{}".into()),
            "invalid-response",
            "no choices",
        ),
        (EndpointBehavior::Body(error.into()), "server-error", "it broke"),
        (
            EndpointBehavior::Body(String::new()),
            "empty-response",
            "returned an empty response",
        ),
        (
            EndpointBehavior::Body(r#"{"choices": []}"#.into()),
            "empty-response",
            "returned an empty response",
        ),
        (
            EndpointBehavior::Body(completion_json("  \n", "stop")),
            "empty-response",
            "returned an empty response",
        ),
        (
            EndpointBehavior::Body(completion_json("the te", "length")),
            "token-limit-reached",
            "exceeded its token limit",
        ),
        (
            EndpointBehavior::Body(completion_json("", "content_filter")),
            "content-filtered",
            "content filter",
        ),
        (
            EndpointBehavior::Events(vec!["{]".into()]),
            "invalid-response",
            "no chat completion",
        ),
        (
            EndpointBehavior::Events(vec![stream_chunk_json("the", None), error.into()]),
            "server-error",
            "it broke",
        ),
        (
            EndpointBehavior::Events(vec![
                stream_chunk_json("the", None),
                stream_chunk_json("", Some("length")),
                "[DONE]".into(),
            ]),
            "token-limit-reached",
            "exceeded its token limit",
        ),
        (
            EndpointBehavior::Events(vec!["[DONE]".into()]),
            "empty-response",
            "an empty response",
        ),
        (
            EndpointBehavior::HalfStream,
            "response-interrupted",
            "closed the connection",
        ),
        (
            EndpointBehavior::HalfBody,
            "response-interrupted",
            "closed the connection",
        ),
        (EndpointBehavior::GoesSilent, "stalled", "sent nothing"),
        (
            EndpointBehavior::Endless,
            "invalid-response",
            "the response does not end",
        ),
    ] {
        let shown = format!("{act:?}");
        let fault = call_endpoint(act).await.unwrap_err();
        assert_eq!(fault.kind(), kind, "{shown}: {fault}");
        assert!(fault.to_string().contains(words), "{shown}: {fault}");
    }
}

#[tokio::test]
async fn closed_port_is_unreachable() {
    let url = {
        let endpoint = FakeEndpoint::with_behavior(EndpointBehavior::Answer).await;
        endpoint.openai_config()
    };
    let closed = OpenAiConfig {
        base_url: "http://127.0.0.1:1/v1".into(),
        ..url
    };
    let fault = OpenAiProvider::new(closed)
        .unwrap()
        .call_model(&build_request("x"))
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), "unreachable");
    assert!(!fault.to_string().contains("127.0.0.1"), "{fault}");
    let closes = call_endpoint(EndpointBehavior::Closes).await.unwrap_err();
    assert!(
        matches!(
            closes,
            ProviderError::Unreachable(_) | ProviderError::ResponseInterrupted
        ),
        "{closes:?}"
    );
}

#[tokio::test]
async fn request_body_matches_the_api() {
    let endpoint = FakeEndpoint::with_behavior(EndpointBehavior::Answer).await;
    let config = OpenAiConfig {
        api_key: ProviderApiKey::new("sk-very-secret"),
        ..endpoint.openai_config()
    };
    let vision_provider = OpenAiProvider::new(config.clone()).unwrap();
    let page = LlmRequest {
        system_prompt: Some("You read pages.".into()),
        image: Some(EncodedImage {
            media_type: "image/jpeg",
            bytes: Arc::from(*b"\xff\xd8 page"),
        }),
        ..build_request("page 3")
    };
    assert_eq!(vision_provider.call_model(&page).await.unwrap().text, "page 3");
    let newer = OpenAiConfig {
        token_limit: TokenLimitParameter::MaxCompletionTokens,
        temperature: None,
        stream: false,
        api_key: None,
        ..config
    };
    OpenAiProvider::new(newer)
        .unwrap()
        .call_model(&build_request("x"))
        .await
        .unwrap();
    let seen = endpoint.log.requests.lock().clone();
    assert_eq!(seen[0].authorization.as_deref(), Some("Bearer sk-very-secret"));
    assert_eq!(
        seen[0].body,
        json!({
            "model": "test-model",
            "messages": [
                {"role": "system", "content": "You read pages."},
                {"role": "user", "content": [
                    {"type": "text", "text": "Of this: page 3"},
                    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9ggcGFnZQ=="}},
                ]},
            ],
            "max_tokens": 100,
            "temperature": 0.0,
            "stream": true,
            "stream_options": {"include_usage": true},
        })
    );
    assert_eq!(seen[1].authorization, None);
    assert_eq!(
        seen[1].body,
        json!({
            "model": "test-model",
            "messages": [{"role": "user", "content": "Of this: x"}],
            "max_completion_tokens": 100,
            "stream": false,
        })
    );
}

#[tokio::test]
async fn dropped_call_closes_the_connection() {
    let endpoint = FakeEndpoint::with_behavior(EndpointBehavior::GoesSilent).await;
    let provider = OpenAiProvider::new(OpenAiConfig {
        stall_timeout: Duration::from_secs(3600),
        ..endpoint.openai_config()
    })
    .unwrap();
    let dropped = timeout(
        Duration::from_millis(300),
        provider.call_model(&build_request("x")),
    )
    .await;
    assert!(dropped.is_err());
    let connection_closed = async {
        while endpoint.log.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), connection_closed)
        .await
        .expect("the connection is closed");
}
