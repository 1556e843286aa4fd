//! A fake language model behind an OpenAI-compatible endpoint. It answers with a given function and records its requests.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http_server::{HttpRequest, HttpResponse, start_http_server};

/// The reply to one request.
pub enum ModelReply {
    /// A completion with this text, after a delay.
    Text(Duration, String),
    /// An error status with its body.
    ErrorStatus(u16, String),
}

/// A received request with the times at which it arrived and was answered.
#[derive(Debug, Clone)]
pub struct ModelRequest {
    pub prompt: String,
    pub authorization: Option<String>,
    pub received_at: Instant,
    pub responded_at: Option<Instant>,
}

/// A fake model server. It listens until the test process ends.
pub struct ModelServer {
    url: String,
    requests: Arc<Mutex<Vec<ModelRequest>>>,
}

impl ModelServer {
    /// Starts a server that responds to each prompt with the result of `reply`.
    pub fn start(reply: impl Fn(&str) -> ModelReply + Send + Sync + 'static) -> Self {
        let requests: Arc<Mutex<Vec<ModelRequest>>> = Arc::default();
        let seen = Arc::clone(&requests);
        let address = start_http_server(move |request| handle_completion(&request, &seen, &reply));
        Self {
            url: format!("http://{address}/v1"),
            requests,
        }
    }

    /// Returns the requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<ModelRequest> {
        self.requests.lock().unwrap().clone()
    }

    /// Returns a `weir.toml` with the settings in `other`, then this model as a provider with its settings in `more`.
    pub fn settings_toml(&self, other: &str, more: &str) -> String {
        format!(
            "{other}\n[[llm.provider]]\nname = \"model\"\nurl = \"{}\"\nmodel = \"test\"\nstream_responses = false\n{more}\n",
            self.url
        )
    }
}

fn handle_completion(
    request: &HttpRequest,
    seen: &Mutex<Vec<ModelRequest>>,
    reply: &impl Fn(&str) -> ModelReply,
) -> HttpResponse {
    assert_eq!(
        (&*request.method, &*request.target),
        ("POST", "/v1/chat/completions")
    );
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let message = body["messages"].as_array().unwrap().last().unwrap();
    let text = message["content"].as_str().unwrap().to_owned();
    let index = {
        let mut seen = seen.lock().unwrap();
        seen.push(ModelRequest {
            prompt: text.clone(),
            authorization: request.header("authorization").map(str::to_owned),
            received_at: Instant::now(),
            responded_at: None,
        });
        seen.len() - 1
    };
    let response = match reply(&text) {
        ModelReply::Text(after, text) => {
            std::thread::sleep(after);
            completion_response(&text)
        }
        ModelReply::ErrorStatus(status, body) => HttpResponse::new(status, body),
    };
    seen.lock().unwrap()[index].responded_at = Some(Instant::now());
    response
}

/// Builds the response of a finished completion.
pub(crate) fn completion_response(text: &str) -> HttpResponse {
    let body = json!({
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": text },
            "finish_reason": "stop",
        }],
        "usage": { "prompt_tokens": 11, "completion_tokens": 7 },
    });
    HttpResponse::new(200, body.to_string()).with_header("content-type", "application/json")
}
