//! A real HTTP server that speaks OpenAI's API as badly as it is told to, and counts.

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
use weir_core::settings::TokenLimit;
use weir_llm::{OpenAi, OpenAiConfig};

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Answers with the question's text, whole or as a stream, as was asked for.
    Answer,
    /// The same, after a while.
    AnswerAfter(Duration),
    /// A status with headers and a body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Status 200 and this body.
    Whole(String),
    /// Status 200, and events with these data, `[DONE]` not added.
    Events(Vec<String>),
    /// Half of a stream, and then the connection is closed.
    HalfStream,
    /// Half of what was announced.
    HalfBody,
    /// Begins a stream and goes silent, with signs of life that say nothing.
    GoesSilent,
    /// Never answers at all.
    Hangs,
    /// Closes the connection without an answer.
    Closes,
    /// A stream that never ends.
    Endless,
}

/// What the server has seen.
#[derive(Default)]
pub(crate) struct Seen {
    busy: AtomicU32,
    peak: AtomicU32,
    pub(crate) requests: Mutex<Vec<Request>>,
}

#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) at: Instant,
    pub(crate) body: Value,
    pub(crate) authorization: Option<String>,
}

impl Seen {
    pub(crate) fn count(&self) -> usize {
        self.requests.lock().len()
    }

    pub(crate) fn peak(&self) -> u32 {
        self.peak.load(Ordering::SeqCst)
    }

    pub(crate) fn busy(&self) -> u32 {
        self.busy.load(Ordering::SeqCst)
    }
}

struct Busy(Arc<Seen>);

impl Busy {
    fn begin(seen: &Arc<Seen>) -> Self {
        let busy = seen.busy.fetch_add(1, Ordering::SeqCst) + 1;
        seen.peak.fetch_max(busy, Ordering::SeqCst);
        Self(Arc::clone(seen))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

type Script = dyn Fn(usize, &Value) -> Act + Send + Sync;

struct Served {
    seen: Arc<Seen>,
    script: Box<Script>,
}

/// The server; it ends when this is dropped.
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Endpoint {
    /// The script is given the number of a request, from 0, and what it asks.
    pub(crate) async fn start(script: impl Fn(usize, &Value) -> Act + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Seen::default());
        let served = Arc::new(Served {
            seen: Arc::clone(&seen),
            script: Box::new(script),
        });
        let app = Router::new()
            .route("/v1/chat/completions", post(answer))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(served);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, seen, task }
    }

    pub(crate) async fn always(act: Act) -> Self {
        Self::start(move |_, _| act.clone()).await
    }

    /// Someone who asks it; goes silent for a fifth of a second at most.
    pub(crate) fn config(&self) -> OpenAiConfig {
        OpenAiConfig {
            url: self.url.clone(),
            model: "test-model".into(),
            key: None,
            key_file: None,
            vision: true,
            stream: true,
            temperature: Some(0.0),
            token_limit: TokenLimit::MaxTokens,
            stall: Duration::from_millis(200),
        }
    }

    pub(crate) fn provider(&self) -> OpenAi {
        OpenAi::new(self.config()).unwrap()
    }
}

/// What a question is about, by its prompt.
pub(crate) fn asked(body: &Value) -> String {
    let content = &body["messages"].as_array().unwrap().last().unwrap()["content"];
    let prompt = content.as_str().or_else(|| content[0]["text"].as_str()).unwrap();
    prompt.trim_start_matches("Of this: ").to_owned()
}

pub(crate) fn chunk(text: &str, finish: Option<&str>) -> String {
    json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}).to_string()
}

pub(crate) fn whole(text: &str, finish: &str) -> String {
    json!({
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7},
    })
    .to_string()
}

async fn answer(State(served): State<Arc<Served>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let busy = Busy::begin(&served.seen);
    let body: Value = serde_json::from_slice(&body).unwrap();
    let number = {
        let mut requests = served.seen.requests.lock();
        let authorization = headers
            .get("authorization")
            .map(|v| v.to_str().unwrap().to_owned());
        requests.push(Request {
            at: Instant::now(),
            body: body.clone(),
            authorization,
        });
        requests.len() - 1
    };
    let act = (served.script)(number, &body);
    perform(act, &body, busy).await
}

async fn perform(act: Act, body: &Value, busy: Busy) -> Response<Body> {
    let text = asked(body);
    match act {
        Act::AnswerAfter(after) => {
            sleep(after).await;
            Box::pin(perform(Act::Answer, body, busy)).await
        }
        Act::Answer if body["stream"] == true => {
            let (half, rest) = text.split_at(text.len() / 2);
            let usage = json!({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}});
            let data = [
                chunk("", None),
                chunk(half, None),
                chunk(rest, None),
                chunk("", Some("stop")),
                usage.to_string(),
                "[DONE]".into(),
            ];
            events(data.to_vec(), busy)
        }
        Act::Answer => response("application/json", Body::from(whole(&text, "stop"))),
        Act::Status(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).unwrap()
        }
        Act::Whole(body) => response("application/json", Body::from(body)),
        Act::Events(data) => events(data, busy),
        Act::HalfStream => events(vec![chunk(&text, None)], busy),
        Act::HalfBody => {
            let body = whole(&text, "stop");
            let half = Bytes::from(body.as_bytes()[..body.len() / 2].to_vec());
            // In two steps, for the first to be on its way when the second breaks it off.
            let broken = stream::once(async {
                sleep(Duration::from_millis(50)).await;
                Err(std::io::Error::other("broken"))
            });
            let broken = stream::iter([Ok(half)]).chain(broken);
            response("application/json", Body::from_stream(broken))
        }
        Act::GoesSilent => {
            let begun = stream::iter([event(&chunk(&text, None))]);
            let alive = stream::unfold(busy, |busy| async move {
                sleep(Duration::from_millis(50)).await;
                Some((Ok(Bytes::from_static(b": still here\n\n")), busy))
            });
            response("text/event-stream", Body::from_stream(begun.chain(alive)))
        }
        Act::Endless => {
            let word = "again and ".repeat(1000);
            let endless = stream::repeat_with(move || event(&chunk(&word, None)));
            response("text/event-stream", Body::from_stream(endless))
        }
        Act::Hangs => {
            sleep(Duration::from_secs(3600)).await;
            drop(busy);
            response("text/plain", Body::empty())
        }
        Act::Closes => {
            let broken = stream::iter([Err::<Bytes, _>(std::io::Error::other("closed"))]);
            response("application/json", Body::from_stream(broken))
        }
    }
}

fn event(data: &str) -> Result<Bytes, Infallible> {
    Ok(Bytes::from(format!("data: {data}\n\n")))
}

/// A stream of events. The call counts as ended before the last is sent: who reads it may ask again at once.
fn events(data: Vec<String>, busy: Busy) -> Response<Body> {
    let last = data.len() - 1;
    let mut busy = Some(busy);
    let events = stream::iter(data.into_iter().enumerate()).map(move |(i, data)| {
        if i == last {
            busy.take();
        }
        event(&data)
    });
    response("text/event-stream; charset=utf-8", Body::from_stream(events))
}

fn response(kind: &str, body: Body) -> Response<Body> {
    Response::builder()
        .header("content-type", kind)
        .body(body)
        .unwrap()
}
