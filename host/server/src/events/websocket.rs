//! Event streams over WebSocket: each event is one JSON text frame.
//!
//! A browser cannot set headers on a WebSocket request, and a key in the URL would end up in logs. So the key may also be sent as a
//! subprotocol: `new WebSocket(url, ["weir.events", "weir.bearer." + key])`. The host responds with `weir.events` and never repeats
//! the key. So clients are authenticated before the connection is upgraded, and refusals are ordinary HTTP responses.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, State};
use axum::http::{HeaderMap, header, request};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use weir_control::events::{EncodedEvent, EventReader, JobStreamStart, check_and_resolve_stream_start};
use weir_core::JobId;
use weir_core::tenancy::KeyScope;

use super::event_stream::{EventSink, EventStreamSession, StreamEndReason};
use super::sse::ResumeQuery;
use crate::auth::{self, Caller};
use crate::connections::mark_connection_authenticated;
use crate::http_input::{PathParams, QueryParams};
use crate::problem::Problem;
use crate::state::AppState;
use crate::write_timeout::WriteTimedOutFlag;

/// The subprotocol in the response of the host.
const SUBPROTOCOL: &str = "weir.events";
/// The prefix of a key that is sent as a subprotocol.
const BEARER_PREFIX: &str = "weir.bearer.";
/// The maximum size of a client's message in bytes. Clients have no reason to send messages.
const MAX_INCOMING_BYTES: usize = 1024;
/// The initial size of a socket's read buffer in bytes.
const READ_BUFFER_BYTES: usize = 1024;
/// The number of bytes that are collected before a write.
const WRITE_BUFFER_BYTES: usize = 16 << 10;
/// The maximum number of successive pings without any message from the client.
const MAX_UNANSWERED_PINGS: u32 = 2;
/// The maximum duration of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The caller of a WebSocket request, authenticated by a key in the header or in a subprotocol.
pub(crate) struct WebSocketCaller(Caller);

impl FromRequestParts<AppState> for WebSocketCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, app: &AppState) -> Result<Self, Problem> {
        if parts.headers.contains_key(header::AUTHORIZATION) {
            return Caller::from_request_parts(parts, app).await.map(Self);
        }
        let caller =
            auth::authenticate_key_and_check_rate(&app.control, api_key_from_subprotocol(&parts.headers))
                .await?;
        mark_connection_authenticated(parts);
        Ok(Self(caller))
    }
}

fn api_key_from_subprotocol(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|protocol| protocol.trim().strip_prefix(BEARER_PREFIX))
}

/// Stream the events of a job over a WebSocket.
///
/// Each event is a text frame of JSON. The host sends pings, and closes with code 1000 after the last event of the job. The key is
/// sent in the header or, by a browser, as the subprotocol `weir.bearer.<key>` beside `weir.events`.
pub(crate) async fn stream_job_events_ws(
    State(app): State<AppState>,
    WebSocketCaller(caller): WebSocketCaller,
    PathParams(job): PathParams<JobId>,
    QueryParams(after): QueryParams<ResumeQuery>,
    write_timed_out: WriteTimedOutFlag,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let after = after.after.map_or(0, |after| after.0);
    let seq =
        match check_and_resolve_stream_start(app.control.ledger.as_ref(), caller.tenant_id(), &job, after)
            .await?
        {
            JobStreamStart::AfterEvent(seq) => Some(seq),
            JobStreamStart::JobAlreadyEnded => None,
        };
    let upgrade = upgrade.map_err(|e| {
        Problem::upgrade_required(format!("this path needs a WebSocket request: {}", e.body_text()))
    })?;
    let permit = app.event_stream_limiter.try_acquire(caller.tenant_id()).await?;
    let reader = EventReader::for_job(&app.control.event_feeds, caller.tenant_id(), job, after).await?;
    let streams = Arc::clone(&app.event_stream_limiter);
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(MAX_INCOMING_BYTES)
        .max_frame_size(MAX_INCOMING_BYTES)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES);
    Ok(upgrade.on_upgrade(move |socket| {
        streams.track_stream(async move {
            let (outgoing, incoming) = socket.split();
            let mut sink = WebSocketSink {
                outgoing,
                incoming,
                unanswered_pings: 0,
            };
            let end = match seq {
                None => StreamEndReason::JobEnded,
                Some(_) => {
                    let stream = EventStreamSession {
                        control: app.control,
                        caller,
                        reader,
                        ends_with_job: true,
                        permit,
                        write_timed_out,
                    };
                    stream.send_events_until_end(&mut sink).await
                }
            };
            sink.close_with_reason(end).await;
        })
    }))
}

struct WebSocketSink {
    outgoing: SplitSink<WebSocket, Message>,
    incoming: SplitStream<WebSocket>,
    /// The number of pings since the last message from the client.
    unanswered_pings: u32,
}

impl WebSocketSink {
    async fn send_message(&mut self, message: Message) -> bool {
        self.outgoing.send(message).await.is_ok()
    }

    async fn close_with_reason(mut self, end: StreamEndReason) {
        let (code, reason) = match end {
            StreamEndReason::ClientDisconnected => return,
            StreamEndReason::JobEnded => (close_code::NORMAL, "the job has ended"),
            StreamEndReason::KeyNoLongerValid => (close_code::POLICY, "the key is not valid any more"),
            StreamEndReason::ClientTooSlow => (close_code::AGAIN, "too slow: connect again with after="),
            StreamEndReason::HostStopping => (
                close_code::RESTART,
                "the host is stopping: connect again with after=",
            ),
            StreamEndReason::EventsUnreadable => (
                close_code::ERROR,
                "cannot read the events: connect again with after=",
            ),
        };
        let close_handshake = async {
            let reason = Utf8Bytes::from_static(reason);
            if self
                .send_message(Message::Close(Some(CloseFrame { code, reason })))
                .await
            {
                // Wait for the client to close first, so that it receives all frames.
                self.wait_for_disconnect().await;
            }
        };
        // A client that does not close in time is disconnected.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, close_handshake).await;
    }
}

impl EventSink for WebSocketSink {
    async fn send_events(&mut self, events: &[Arc<EncodedEvent>]) -> bool {
        for event in events {
            let Ok(text) = Utf8Bytes::try_from(event.json.clone()) else {
                continue;
            };
            if self.outgoing.feed(Message::Text(text)).await.is_err() {
                return false;
            }
        }
        self.outgoing.flush().await.is_ok()
    }

    async fn send_heartbeat(&mut self) -> bool {
        self.unanswered_pings += 1;
        self.unanswered_pings <= MAX_UNANSWERED_PINGS && self.send_message(Message::Ping(Bytes::new())).await
    }

    async fn wait_for_disconnect(&mut self) {
        while let Some(Ok(message)) = self.incoming.next().await {
            if matches!(message, Message::Close(_)) {
                return;
            }
            self.unanswered_pings = 0;
        }
    }
}
