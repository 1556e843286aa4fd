//! A query answered as Server-Sent Events: `hit` for each, then `done`; `problem` in place of what could not be had.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use weir_core::search::Hit;
use weir_core::tenancy::Scope;

use super::buffer::Ticket;
use super::{FoundPassage, Search, ask};
use crate::app::App;
use crate::auth::Caller;
use crate::events;
use crate::events::SentEvent;
use crate::places::Place;
use crate::problem::Problem;
use crate::wire::Body;

/// Events on their way to a client; beyond that the stream waits for it.
const UNDER_WAY: usize = 4;

/// Time for saying that there was no answer in time.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The last event of an answer.
#[derive(Debug, Serialize)]
struct Done {
    hits: usize,
    millis: u64,
}

/// Answers a query as a stream.
///
/// Server-Sent Events: `hit` for each passage, the best first, then `done` with the number of hits and the milliseconds it
/// took; or `problem`. At most `stream.streams` at one time, each of at most `stream.seconds`.
#[utoipa::path(post, path = "/v1/stream/query", tag = "search", request_body = Search, responses(
    (status = 200, description = "the hits", content_type = "text/event-stream", body = SentEvent),
    (status = 400, description = "no JSON", body = Problem, content_type = "application/problem+json"),
    (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "too large", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "no JSON by its type", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "out of bounds", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "too many streams", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "too many queries wait", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn stream_query(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(search): Body<Search>,
) -> Result<Response, Problem> {
    caller.may(Scope::Read)?;
    let request = search.request(caller.id())?;
    let place = app.query_streams.take(caller.id())?;
    let began = Instant::now();
    let ticket = ask(&app, caller.id(), request)?;
    let (chunks, body) = mpsc::channel(UNDER_WAY);
    let places = Arc::clone(&app.query_streams);
    places.spawn(async move {
        let deadline = began + Duration::from_secs(app.settings.stream_seconds.into()) + LAST_WORD;
        // A client that has not taken its answer by then has given up its place.
        let _ = timeout_at(deadline, answer(app, caller, ticket, began, chunks, place)).await;
    });
    Ok(events::response(body))
}

async fn answer(
    app: Arc<App>,
    caller: Caller,
    ticket: Ticket,
    began: Instant,
    chunks: mpsc::Sender<Bytes>,
    _place: Place,
) {
    let answered = tokio::select! {
        answered = ticket.answer() => answered,
        () = chunks.closed() => return,
    };
    let hits: Vec<Hit> = match answered {
        Ok(hits) => hits,
        Err(problem) => {
            send(&chunks, "problem", &problem).await;
            return;
        }
    };
    let done = Done {
        hits: hits.len(),
        millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    for hit in hits {
        if !send(&chunks, "hit", &FoundPassage::new(&app, caller.id(), hit)).await {
            return;
        }
    }
    send(&chunks, "done", &done).await;
}

async fn send(chunks: &mpsc::Sender<Bytes>, event: &str, data: &impl Serialize) -> bool {
    let data = serde_json::to_string(data).unwrap_or_default();
    chunks
        .send(format!("event: {event}\ndata: {data}\n\n").into())
        .await
        .is_ok()
}
