//! A real HTTP server with OpenAI's API whose responses can be broken in many ways, and that records its requests.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use axum::routing::post;
use futures::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use weir_core::settings::TokenLimitParameter;
use weir_llm::{OpenAiConfig, OpenAiProvider};

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum EndpointBehavior {
    /// Responds with the request's text, whole or streamed, as requested.
    Answer,
    /// The same, after a delay.
    AnswerAfter(Duration),
    /// Responds with a status, headers and a body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Responds with status 200 and this body.
    Body(String),
    /// Responds with status 200 and these events, without a final `[DONE]`.
    Events(Vec<String>),
    /// Sends the start of a stream and closes the connection.
    HalfStream,
    /// Sends half of the announced body.
    HalfBody,
    /// Starts a stream and then sends only keep-alive comments.
    GoesSilent,
    /// Never responds.
    Hangs,
    /// Closes the connection without a response.
    Closes,
    /// Sends a stream that never ends.
    Endless,
}

/// The recorded requests, and the number of requests in flight.
#[derive(Default)]
pub(crate) struct RequestLog {
    in_flight: AtomicU32,
    peak_in_flight: AtomicU32,
    pub(crate) requests: Mutex<Vec<RecordedRequest>>,
}

#[derive(Clone)]
pub(crate) struct RecordedRequest {
    pub(crate) received_at: Instant,
    pub(crate) body: Value,
    pub(crate) authorization: Option<String>,
}

impl RequestLog {
    pub(crate) fn request_count(&self) -> usize {
        self.requests.lock().len()
    }

    pub(crate) fn peak_in_flight(&self) -> u32 {
        self.peak_in_flight.load(Ordering::SeqCst)
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }
}

struct InFlightGuard(Arc<RequestLog>);

impl InFlightGuard {
    fn start(seen: &Arc<RequestLog>) -> Self {
        let busy = seen.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        seen.peak_in_flight.fetch_max(busy, Ordering::SeqCst);
        Self(Arc::clone(seen))
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

type BehaviorScript = dyn Fn(usize, &Value) -> EndpointBehavior + Send + Sync;

struct EndpointState {
    log: Arc<RequestLog>,
    script: Box<BehaviorScript>,
}

/// The server, which stops when it is dropped.
pub(crate) struct FakeEndpoint {
    pub(crate) url: String,
    pub(crate) log: Arc<RequestLog>,
    server_task: JoinHandle<()>,
}

impl Drop for FakeEndpoint {
    fn drop(&mut self) {
        self.server_task.abort();
    }
}

impl FakeEndpoint {
    /// Starts a server. The script gets the number of the request, from 0, and its body.
    pub(crate) async fn start(
        script: impl Fn(usize, &Value) -> EndpointBehavior + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(RequestLog::default());
        let served = Arc::new(EndpointState {
            log: Arc::clone(&seen),
            script: Box::new(script),
        });
        let app = Router::new()
            .route("/v1/chat/completions", post(handle_request))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(served);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url,
            log: seen,
            server_task: task,
        }
    }

    pub(crate) async fn with_behavior(act: EndpointBehavior) -> Self {
        Self::start(move |_, _| act.clone()).await
    }

    /// The configuration of a provider for this server, with a stall timeout of 200 ms.
    pub(crate) fn openai_config(&self) -> OpenAiConfig {
        OpenAiConfig {
            base_url: self.url.clone(),
            model_name: "test-model".into(),
            api_key: None,
            key_file: None,
            supports_images: true,
            stream: true,
            temperature: Some(0.0),
            token_limit: TokenLimitParameter::MaxTokens,
            stall_timeout: Duration::from_millis(200),
        }
    }

    pub(crate) fn openai_provider(&self) -> OpenAiProvider {
        OpenAiProvider::new(self.openai_config()).unwrap()
    }
}

/// The text of a request, from its prompt.
pub(crate) fn request_text(body: &Value) -> String {
    let content = &body["messages"].as_array().unwrap().last().unwrap()["content"];
    let prompt = content.as_str().or_else(|| content[0]["text"].as_str()).unwrap();
    prompt.trim_start_matches("Of this: ").to_owned()
}

pub(crate) fn stream_chunk_json(text: &str, finish: Option<&str>) -> String {
    json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}).to_string()
}

pub(crate) fn completion_json(text: &str, finish: &str) -> String {
    json!({
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7},
    })
    .to_string()
}

async fn handle_request(
    State(served): State<Arc<EndpointState>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let busy = InFlightGuard::start(&served.log);
    let body: Value = serde_json::from_slice(&body).unwrap();
    let number = {
        let mut requests = served.log.requests.lock();
        let authorization = headers
            .get("authorization")
            .map(|v| v.to_str().unwrap().to_owned());
        requests.push(RecordedRequest {
            received_at: Instant::now(),
            body: body.clone(),
            authorization,
        });
        requests.len() - 1
    };
    let act = (served.script)(number, &body);
    respond(act, &body, busy).await
}

async fn respond(act: EndpointBehavior, body: &Value, busy: InFlightGuard) -> Response<Body> {
    let text = request_text(body);
    match act {
        EndpointBehavior::AnswerAfter(after) => {
            sleep(after).await;
            Box::pin(respond(EndpointBehavior::Answer, body, busy)).await
        }
        EndpointBehavior::Answer if body["stream"] == true => {
            let (half, rest) = text.split_at(text.len() / 2);
            let usage = json!({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}});
            let data = [
                stream_chunk_json("", None),
                stream_chunk_json(half, None),
                stream_chunk_json(rest, None),
                stream_chunk_json("", Some("stop")),
                usage.to_string(),
                "[DONE]".into(),
            ];
            sse_response(data.to_vec(), busy)
        }
        EndpointBehavior::Answer => {
            build_response("application/json", Body::from(completion_json(&text, "stop")))
        }
        EndpointBehavior::Status(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).unwrap()
        }
        EndpointBehavior::Body(body) => build_response("application/json", Body::from(body)),
        EndpointBehavior::Events(data) => sse_response(data, busy),
        EndpointBehavior::HalfStream => sse_response(vec![stream_chunk_json(&text, None)], busy),
        EndpointBehavior::HalfBody => {
            let body = completion_json(&text, "stop");
            let half = Bytes::from(body.as_bytes()[..body.len() / 2].to_vec());
            // Sends the first half at once and the error later, so that the first half arrives.
            let broken = stream::once(async {
                sleep(Duration::from_millis(50)).await;
                Err(std::io::Error::other("broken"))
            });
            let broken = stream::iter([Ok(half)]).chain(broken);
            build_response("application/json", Body::from_stream(broken))
        }
        EndpointBehavior::GoesSilent => {
            let begun = stream::iter([sse_event(&stream_chunk_json(&text, None))]);
            let alive = stream::unfold(busy, |busy| async move {
                sleep(Duration::from_millis(50)).await;
                Some((Ok(Bytes::from_static(b": still here\n\n")), busy))
            });
            build_response("text/event-stream", Body::from_stream(begun.chain(alive)))
        }
        EndpointBehavior::Endless => {
            let word = "again and ".repeat(1000);
            let endless = stream::repeat_with(move || sse_event(&stream_chunk_json(&word, None)));
            build_response("text/event-stream", Body::from_stream(endless))
        }
        EndpointBehavior::Hangs => {
            sleep(Duration::from_secs(3600)).await;
            drop(busy);
            build_response("text/plain", Body::empty())
        }
        EndpointBehavior::Closes => {
            let broken = stream::iter([Err::<Bytes, _>(std::io::Error::other("closed"))]);
            build_response("application/json", Body::from_stream(broken))
        }
    }
}

fn sse_event(data: &str) -> Result<Bytes, Infallible> {
    Ok(Bytes::from(format!("data: {data}\n\n")))
}

/// Responds with a stream of events. The call stops counting as in flight before the last event, because its reader may send
/// the next request at once.
fn sse_response(data: Vec<String>, busy: InFlightGuard) -> Response<Body> {
    let last = data.len() - 1;
    let mut busy = Some(busy);
    let events = stream::iter(data.into_iter().enumerate()).map(move |(i, data)| {
        if i == last {
            busy.take();
        }
        sse_event(&data)
    });
    build_response("text/event-stream; charset=utf-8", Body::from_stream(events))
}

fn build_response(kind: &str, body: Body) -> Response<Body> {
    Response::builder()
        .header("content-type", kind)
        .body(body)
        .unwrap()
}
