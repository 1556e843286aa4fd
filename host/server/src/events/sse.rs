//! Server-Sent Events.
//!
//! `id` is what a client that reconnects sends back as `Last-Event-ID`, so a browser's EventSource resumes by itself; after
//! a job's end it is answered 204, which tells it to stay away.
//!
//! An empty line is sent behind an event and nowhere else. By the standard one behind a comment or `retry` means nothing, but
//! there are clients that make an event without data of it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::{IntoParams, ToSchema};
use weir_core::JobId;
use weir_core::ports::Ledger as _;
use weir_core::tenancy::Scope;

use super::feed::Told;
use super::follow::{Begin, Sink, Stream, begin};
use super::reader::Reader;
use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::stalled::GivenUp;
use crate::wire::{Params, Route};

/// Chunks on their way to a client; beyond that the stream waits for it.
const UNDER_WAY: usize = 2;
/// Events of at least so many bytes are sent from the copy that all readers share.
const LARGE: usize = 4096;
/// What a stream begins with: a client that loses it comes back after a second.
const GREETING: &[u8] = b"retry: 1000\n";
/// A comment, which clients pass over.
const BEAT: &[u8] = b": still here\n";
const LAST_EVENT_ID: &str = "last-event-id";

/// One event of a stream, by its fields.
#[derive(ToSchema)]
#[allow(dead_code)] // only its description is used
pub(crate) struct SentEvent {
    /// What `Last-Event-ID` says to go on behind it; answers to a query have none.
    id: Option<String>,
    /// Its type.
    event: Option<String>,
    /// The event as JSON.
    data: Option<String>,
    /// Milliseconds after which to come back when the connection is lost.
    retry: Option<u32>,
}

/// The number of an event, within what clients and the ledger can count to.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "u64")]
pub(super) struct Seq(pub(super) u64);

impl TryFrom<u64> for Seq {
    type Error = &'static str;

    fn try_from(number: u64) -> Result<Self, Self::Error> {
        if number < 10_u64.pow(18) {
            Ok(Self(number))
        } else {
            Err("no event has a number of more than 18 digits")
        }
    }
}

/// Where to go on.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct After {
    /// Only what follows this number; the header `Last-Event-ID` stands over it.
    #[param(value_type = Option<u64>, maximum = 999_999_999_999_999_999_u64)]
    pub(super) after: Option<Seq>,
}

impl After {
    fn or_header(&self, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
        match headers.get(LAST_EVENT_ID).map(HeaderValue::as_bytes) {
            None | Some(b"") => Ok(self.after.map(|after| after.0)),
            Some(text) => std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.trim().parse::<u64>().ok())
                .and_then(|number| Seq::try_from(number).ok())
                .map(|seq| Some(seq.0))
                .ok_or_else(|| Problem::invalid("Last-Event-ID is the id of an event, a number")),
        }
    }
}

/// Follows a job.
///
/// Every event from the first on, or from the one after `Last-Event-ID`, each as it is committed: `id` is its number, `event`
/// its type, `data` the event as JSON. The stream ends with the job.
///
/// The same events come over a WebSocket at `/v1/jobs/{id}/events/ws`, with `after` in the query: each is a text frame of
/// JSON, the host sends pings and closes with 1000 after the job's last event. The key comes in the header or, from a
/// browser, as subprotocol `weir.bearer.<key>` beside `weir.events`.
#[utoipa::path(get, path = "/v1/jobs/{id}/events", tag = "events",
    params(
        ("id" = uuid::Uuid, Path, description = "the job"),
        After,
        ("Last-Event-ID" = Option<String>, Header, pattern = "^[0-9]{0,18}$", description = "number of the last event seen"),
    ),
    responses(
        (status = 200, description = "the events", content_type = "text/event-stream", body = SentEvent),
        (status = 204, description = "the job has ended and there is nothing after that event"),
        (status = 400, description = "not a number", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "the job has no such event", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many streams", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the host is stopping", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn job_events(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(job): Route<JobId>,
    Params(after): Params<After>,
    given_up: GivenUp,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may(Scope::Read)?;
    let after = after.or_header(&headers)?.unwrap_or(0);
    let Begin::After(seq) = begin(&app, caller.id(), &job, after).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let place = app.streams.take(caller.id())?;
    let reader = Reader::of_job(&app.feeds, caller.id(), job, seq).await?;
    Ok(answer(
        Stream {
            app,
            caller,
            reader,
            one_job: true,
            place,
            given_up,
        },
        |told| told.seq,
    ))
}

/// Follows all jobs of the tenant.
///
/// Every event that is committed from now on, or from the one after `Last-Event-ID`. `id` is the event's place among all
/// of the tenant's; the number within its job is in the data.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(
        After,
        ("Last-Event-ID" = Option<String>, Header, pattern = "^[0-9]{0,18}$", description = "place of the last event seen"),
    ),
    responses(
        (status = 200, description = "the events", content_type = "text/event-stream", body = SentEvent),
        (status = 400, description = "not a number", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "no event has this place", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many streams", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the host is stopping", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn tenant_events(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(after): Params<After>,
    given_up: GivenUp,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may(Scope::Read)?;
    let after = after.or_header(&headers)?;
    if let Some(place) = after
        && place > app.ledger.tenant_place(caller.id()).await?
    {
        return Err(Problem::conflict(format!(
            "there is no event at place {place}: begin again without a number"
        )));
    }
    let place = app.streams.take(caller.id())?;
    let reader = Reader::of_tenant(&app.feeds, caller.id(), after).await?;
    Ok(answer(
        Stream {
            app,
            caller,
            reader,
            one_job: false,
            place,
            given_up,
        },
        |told| told.place,
    ))
}

fn answer(stream: Stream, id: fn(&Told) -> u64) -> Response {
    let (chunks, body) = mpsc::channel(UNDER_WAY);
    let streams = Arc::clone(&stream.app.streams);
    let mut sink = SseSink { chunks, id };
    streams.spawn(async move {
        if sink.send(Bytes::from_static(GREETING)).await {
            stream.run(&mut sink).await;
        }
    });
    response(body)
}

/// An answer whose body is what comes out of `chunks`.
pub(crate) fn response(chunks: mpsc::Receiver<Bytes>) -> Response {
    let body = HttpBody::from_stream(ReceiverStream::new(chunks).map(Ok::<_, Infallible>));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that gather answers before they pass them on are asked not to.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

struct SseSink {
    chunks: mpsc::Sender<Bytes>,
    id: fn(&Told) -> u64,
}

impl SseSink {
    async fn send(&self, chunk: Bytes) -> bool {
        self.chunks.send(chunk).await.is_ok()
    }
}

impl Sink for SseSink {
    async fn tell(&mut self, events: &[Arc<Told>]) -> bool {
        let mut chunk = BytesMut::new();
        for told in events {
            let head = format!("id: {}\nevent: {}\ndata: ", (self.id)(told), told.kind);
            chunk.extend_from_slice(head.as_bytes());
            if told.json.len() < LARGE {
                chunk.extend_from_slice(&told.json);
            } else if !self.send(chunk.split().freeze()).await || !self.send(told.json.clone()).await {
                return false;
            }
            chunk.extend_from_slice(b"\n\n");
        }
        self.send(chunk.freeze()).await
    }

    async fn beat(&mut self) -> bool {
        self.send(Bytes::from_static(BEAT)).await
    }

    async fn gone(&mut self) {
        self.chunks.closed().await;
    }
}
