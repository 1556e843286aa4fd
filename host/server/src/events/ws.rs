//! The same events over a WebSocket: one JSON text frame for each.
//!
//! A browser cannot set headers on a WebSocket, and a key in the address would end up in logs. So a key may also come as a
//! subprotocol: `new WebSocket(url, ["weir.events", "weir.bearer." + key])`; the host answers with `weir.events` and never
//! repeats the key. That way a client is known before the connection is upgraded, refusals are plain HTTP answers, and
//! there are no sockets of nobody.

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
use weir_core::JobId;
use weir_core::tenancy::Scope;

use super::feed::Told;
use super::follow::{Begin, End, Sink, Stream, begin};
use super::reader::Reader;
use super::sse::After;
use crate::app::App;
use crate::auth::{self, Caller};
use crate::connections::authenticate;
use crate::problem::Problem;
use crate::stalled::GivenUp;
use crate::wire::{Params, Route};

/// The subprotocol the host answers with.
const PROTOCOL: &str = "weir.events";
/// What stands before a key that comes as a subprotocol.
const BEARER: &str = "weir.bearer.";
/// Bytes of a client's message; it has nothing to say.
const INCOMING: usize = 1024;
/// Bytes a socket's read buffer takes from the start.
const READ_BUFFER: usize = 1024;
/// Bytes gathered before they are written.
const WRITE_BUFFER: usize = 16 << 10;
/// Pings in a row that may stay without any sign of life.
const UNANSWERED: u32 = 2;
/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Who calls, with a key in the header or as a subprotocol.
pub(crate) struct SocketCaller(Caller);

impl FromRequestParts<Arc<App>> for SocketCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, app: &Arc<App>) -> Result<Self, Problem> {
        if parts.headers.contains_key(header::AUTHORIZATION) {
            return Caller::from_request_parts(parts, app).await.map(Self);
        }
        let caller = auth::identify(app, bearer(&parts.headers)).await?;
        authenticate(parts);
        Ok(Self(caller))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|protocol| protocol.trim().strip_prefix(BEARER))
}

/// Follows a job over a WebSocket.
///
/// Each event is a text frame of JSON; the host sends pings and closes with 1000 after the job's last event. The key comes in
/// the header or, from a browser, as subprotocol `weir.bearer.<key>` beside `weir.events`.
pub(crate) async fn job_events_ws(
    State(app): State<Arc<App>>,
    SocketCaller(caller): SocketCaller,
    Route(job): Route<JobId>,
    Params(after): Params<After>,
    given_up: GivenUp,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    caller.may(Scope::Read)?;
    let after = after.after.map_or(0, |after| after.0);
    let seq = match begin(&app, caller.id(), &job, after).await? {
        Begin::After(seq) => Some(seq),
        Begin::Ended => None,
    };
    let upgrade =
        upgrade.map_err(|e| Problem::upgrade(format!("this path speaks WebSocket: {}", e.body_text())))?;
    let place = app.streams.take(caller.id())?;
    let reader = Reader::of_job(&app.feeds, caller.id(), job, after).await?;
    let streams = Arc::clone(&app.streams);
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .max_message_size(INCOMING)
        .max_frame_size(INCOMING)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER);
    Ok(upgrade.on_upgrade(move |socket| {
        streams.track(async move {
            let (outgoing, incoming) = socket.split();
            let mut sink = SocketSink {
                outgoing,
                incoming,
                unanswered: 0,
            };
            let end = match seq {
                None => End::Over,
                Some(_) => {
                    let stream = Stream {
                        app,
                        caller,
                        reader,
                        one_job: true,
                        place,
                        given_up,
                    };
                    stream.run(&mut sink).await
                }
            };
            sink.close(end).await;
        })
    }))
}

struct SocketSink {
    outgoing: SplitSink<WebSocket, Message>,
    incoming: SplitStream<WebSocket>,
    /// Pings without a sign of life since.
    unanswered: u32,
}

impl SocketSink {
    async fn send(&mut self, message: Message) -> bool {
        self.outgoing.send(message).await.is_ok()
    }

    async fn close(mut self, end: End) {
        let (code, reason) = match end {
            End::Gone => return,
            End::Over => (close_code::NORMAL, "the job has ended"),
            End::Refused => (close_code::POLICY, "the key does not count any more"),
            End::Slow => (close_code::AGAIN, "too slow: connect again with after="),
            End::Stopping => (
                close_code::RESTART,
                "the host is stopping: connect again with after=",
            ),
            End::Broken => (
                close_code::ERROR,
                "the events cannot be read: connect again with after=",
            ),
        };
        let farewell = async {
            let reason = Utf8Bytes::from_static(reason);
            if self.send(Message::Close(Some(CloseFrame { code, reason }))).await {
                // The client closes first, so that nothing is cut off on its side.
                self.gone().await;
            }
        };
        // A client that does not take leave is left.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}

impl Sink for SocketSink {
    async fn tell(&mut self, events: &[Arc<Told>]) -> bool {
        for told in events {
            let Ok(text) = Utf8Bytes::try_from(told.json.clone()) else {
                continue;
            };
            if self.outgoing.feed(Message::Text(text)).await.is_err() {
                return false;
            }
        }
        self.outgoing.flush().await.is_ok()
    }

    async fn beat(&mut self) -> bool {
        self.unanswered += 1;
        self.unanswered <= UNANSWERED && self.send(Message::Ping(Bytes::new())).await
    }

    async fn gone(&mut self) {
        while let Some(Ok(message)) = self.incoming.next().await {
            if matches!(message, Message::Close(_)) {
                return;
            }
            self.unanswered = 0;
        }
    }
}
