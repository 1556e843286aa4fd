//! Event streams over Server-Sent Events (SSE).
//!
//! A client that reconnects sends the last `id` as `Last-Event-ID`, so the EventSource of a browser resumes by itself. After the end
//! of a job it gets status 204, which tells it not to reconnect.
//!
//! An empty line is sent after an event and nowhere else. The standard ignores an empty line after a comment or after `retry`, but
//! some clients turn it into an event without data.

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
use weir_control::events::{EncodedEvent, EventReader, JobStreamStart, check_and_resolve_stream_start};
use weir_core::JobId;
use weir_core::ports::Ledger as _;
use weir_core::tenancy::KeyScope;

use super::event_stream::{EventSink, EventStreamSession};
use crate::auth::Caller;
use crate::http_input::{PathParams, QueryParams};
use crate::problem::Problem;
use crate::state::AppState;
use crate::stream_limiter::StreamLimiter;
use crate::write_timeout::WriteTimedOutFlag;

/// The maximum number of chunks that wait to be sent; beyond that the stream waits for the client.
const MAX_PENDING_CHUNKS: usize = 2;
/// Events of at least this many bytes are sent from the copy that all readers share.
const SHARED_COPY_MIN_BYTES: usize = 4096;
/// The start of a stream: a client that loses its connection reconnects after one second.
const RECONNECT_HINT: &[u8] = b"retry: 1000\n";
/// A comment, which clients ignore.
const HEARTBEAT_COMMENT: &[u8] = b": still here\n";
const LAST_EVENT_ID: &str = "last-event-id";

/// The fields of one event in a stream.
#[derive(ToSchema)]
#[allow(dead_code)] // only its description is used
pub(crate) struct SentEvent {
    /// The value of `Last-Event-ID` to resume after this event; responses to a query have none.
    id: Option<String>,
    /// The type of the event.
    event: Option<String>,
    /// The event as JSON.
    data: Option<String>,
    /// The delay in milliseconds before a client reconnects.
    retry: Option<u32>,
}

/// The number or position of an event, with at most 18 digits, which clients and the ledger can represent.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "u64")]
pub(super) struct ValidatedEventNumber(pub(super) u64);

impl TryFrom<u64> for ValidatedEventNumber {
    type Error = &'static str;

    fn try_from(number: u64) -> Result<Self, Self::Error> {
        if number < 10_u64.pow(18) {
            Ok(Self(number))
        } else {
            Err("the number of an event has at most 18 digits")
        }
    }
}

/// The query parameters of an event stream.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ResumeQuery {
    /// Send only events after this number; the header `Last-Event-ID` takes precedence.
    #[param(value_type = Option<u64>, maximum = 999_999_999_999_999_999_u64)]
    pub(super) after: Option<ValidatedEventNumber>,
}

impl ResumeQuery {
    fn resume_position(&self, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
        match headers.get(LAST_EVENT_ID).map(HeaderValue::as_bytes) {
            None | Some(b"") => Ok(self.after.map(|after| after.0)),
            Some(text) => std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.trim().parse::<u64>().ok())
                .and_then(|number| ValidatedEventNumber::try_from(number).ok())
                .map(|seq| Some(seq.0))
                .ok_or_else(|| {
                    Problem::invalid_request("Last-Event-ID must be the id of an event, a number")
                }),
        }
    }
}

/// Stream the events of a job.
///
/// The stream sends every event from the first one on, or from the one after `Last-Event-ID`, as it is committed. `id` is the number
/// of the event, `event` its type, and `data` the event as JSON. The stream ends with the job.
///
/// The same events are available over a WebSocket at `/v1/jobs/{id}/events/ws`, with `after` in the query. Each event is a text frame
/// of JSON. The host sends pings, and closes with code 1000 after the last event of the job. The key is sent in the header or, by a
/// browser, as the subprotocol `weir.bearer.<key>` beside `weir.events`.
#[utoipa::path(get, path = "/v1/jobs/{id}/events", tag = "events",
    params(
        ("id" = uuid::Uuid, Path, description = "Id of the job"),
        ResumeQuery,
        ("Last-Event-ID" = Option<String>, Header, pattern = "^[0-9]{0,18}$", description = "Number of the last event received"),
    ),
    responses(
        (status = 200, description = "The events", content_type = "text/event-stream", body = SentEvent),
        (status = 204, description = "The job has ended and has no later event"),
        (status = 400, description = "The event number is not a number", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The job does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The job has no event with this number", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many streams are open, or the tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The host is stopping", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn stream_job_events(
    State(app): State<AppState>,
    caller: Caller,
    PathParams(job): PathParams<JobId>,
    QueryParams(after): QueryParams<ResumeQuery>,
    write_timed_out: WriteTimedOutFlag,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let after = after.resume_position(&headers)?.unwrap_or(0);
    let JobStreamStart::AfterEvent(seq) =
        check_and_resolve_stream_start(app.control.ledger.as_ref(), caller.tenant_id(), &job, after).await?
    else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let permit = app.event_stream_limiter.try_acquire(caller.tenant_id()).await?;
    let reader = EventReader::for_job(&app.control.event_feeds, caller.tenant_id(), job, seq).await?;
    Ok(start_sse_stream(
        &app.event_stream_limiter,
        EventStreamSession {
            control: app.control,
            caller,
            reader,
            ends_with_job: true,
            permit,
            write_timed_out,
        },
        |event| event.seq,
    ))
}

/// Stream the events of all jobs of the tenant.
///
/// The stream sends every event that is committed from now on, or from the one after `Last-Event-ID` on. `id` is the position of the
/// event among all events of the tenant; its number within the job is in `data`.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(
        ResumeQuery,
        ("Last-Event-ID" = Option<String>, Header, pattern = "^[0-9]{0,18}$", description = "Position of the last event received"),
    ),
    responses(
        (status = 200, description = "The events", content_type = "text/event-stream", body = SentEvent),
        (status = 400, description = "The event number is not a number", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The tenant has no event at this position", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many streams are open, or the tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The host is stopping", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn stream_tenant_events(
    State(app): State<AppState>,
    caller: Caller,
    QueryParams(after): QueryParams<ResumeQuery>,
    write_timed_out: WriteTimedOutFlag,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let after = after.resume_position(&headers)?;
    if let Some(position) = after
        && position
            > app
                .control
                .ledger
                .last_tenant_event_position(caller.tenant_id())
                .await?
    {
        return Err(Problem::conflict(format!(
            "there is no event at position {position}: start again without a position"
        )));
    }
    let permit = app.event_stream_limiter.try_acquire(caller.tenant_id()).await?;
    let reader = EventReader::for_tenant(&app.control.event_feeds, caller.tenant_id(), after).await?;
    Ok(start_sse_stream(
        &app.event_stream_limiter,
        EventStreamSession {
            control: app.control,
            caller,
            reader,
            ends_with_job: false,
            permit,
            write_timed_out,
        },
        |event| event.position,
    ))
}

fn start_sse_stream(
    limiter: &Arc<StreamLimiter>,
    stream: EventStreamSession,
    id: fn(&EncodedEvent) -> u64,
) -> Response {
    let (chunks, body) = mpsc::channel(MAX_PENDING_CHUNKS);
    let mut sink = SseSink { chunks, event_id: id };
    limiter.spawn_stream(async move {
        if sink.send_chunk(Bytes::from_static(RECONNECT_HINT)).await {
            stream.send_events_until_end(&mut sink).await;
        }
    });
    sse_response(body)
}

/// Returns a streaming response whose body consists of the received chunks.
pub(crate) fn sse_response(chunks: mpsc::Receiver<Bytes>) -> Response {
    let body = HttpBody::from_stream(ReceiverStream::new(chunks).map(Ok::<_, Infallible>));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Disables response buffering in proxies that support this header.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

struct SseSink {
    chunks: mpsc::Sender<Bytes>,
    event_id: fn(&EncodedEvent) -> u64,
}

impl SseSink {
    async fn send_chunk(&self, chunk: Bytes) -> bool {
        self.chunks.send(chunk).await.is_ok()
    }
}

impl EventSink for SseSink {
    async fn send_events(&mut self, events: &[Arc<EncodedEvent>]) -> bool {
        let mut chunk = BytesMut::new();
        for event in events {
            let head = format!(
                "id: {}\nevent: {}\ndata: ",
                (self.event_id)(event),
                event.event_type
            );
            chunk.extend_from_slice(head.as_bytes());
            if event.json.len() < SHARED_COPY_MIN_BYTES {
                chunk.extend_from_slice(&event.json);
            } else if !self.send_chunk(chunk.split().freeze()).await
                || !self.send_chunk(event.json.clone()).await
            {
                return false;
            }
            chunk.extend_from_slice(b"\n\n");
        }
        self.send_chunk(chunk.freeze()).await
    }

    async fn send_heartbeat(&mut self) -> bool {
        self.send_chunk(Bytes::from_static(HEARTBEAT_COMMENT)).await
    }

    async fn wait_for_disconnect(&mut self) {
        self.chunks.closed().await;
    }
}
