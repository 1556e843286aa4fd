//! Search with the hits as Server-Sent Events: `hit` for each passage, then `done`; or `problem` if the search fails.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use weir_core::search::SearchHit;
use weir_core::tenancy::KeyScope;

use super::search_buffer::PendingSearchHandle;
use super::{FoundPassage, SearchQuery, enqueue_query};
use crate::auth::Caller;
use crate::events;
use crate::events::SentEvent;
use crate::http_input::JsonBody;
use crate::problem::Problem;
use crate::state::AppState;
use crate::stream_limiter::StreamPermit;

/// Events buffered for a client that reads slowly.
const EVENT_CHANNEL_CAPACITY: usize = 4;

/// Time for sending the `problem` event after the search has timed out.
const TIMEOUT_REPORT_GRACE: Duration = Duration::from_secs(1);

/// Data of the `done` event.
#[derive(Debug, Serialize)]
struct DoneEventData {
    hits: usize,
    millis: u64,
}

/// Search passages and stream the hits.
///
/// The response consists of Server-Sent Events: `hit` for each passage, best first, then `done` with the number of hits and
/// the duration in milliseconds. If the search fails, the stream has one `problem` event. At most `query_stream.max_streams` streams
/// are open at a time, each for at most `query_stream.query_timeout_seconds`.
#[utoipa::path(post, path = "/v1/stream/query", tag = "search", request_body = SearchQuery, responses(
    (status = 200, description = "The hits", content_type = "text/event-stream", body = SentEvent),
    (status = 400, description = "The body is not valid JSON", body = Problem, content_type = "application/problem+json"),
    (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "The content type is not application/json", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A value is out of range", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "Too many streams are open, or the tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The search buffer is full, or the query timed out", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn stream_query(
    State(app): State<AppState>,
    caller: Caller,
    JsonBody(search): JsonBody<SearchQuery>,
) -> Result<Response, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let request = search.into_engine_request(caller.tenant_id())?;
    let permit = app.search_stream_limiter.try_acquire(caller.tenant_id()).await?;
    let began = Instant::now();
    let pending_search = enqueue_query(&app, caller.tenant_id(), request)?;
    let (chunks, body) = mpsc::channel(EVENT_CHANNEL_CAPACITY);
    let limiter = Arc::clone(&app.search_stream_limiter);
    limiter.spawn_stream(async move {
        let deadline = began
            + Duration::from_secs(app.control.settings.query_stream_query_timeout_seconds.into())
            + TIMEOUT_REPORT_GRACE;
        // The deadline also applies to a client that does not read its response.
        let _ = timeout_at(
            deadline,
            send_result_events(app, caller, pending_search, began, chunks, permit),
        )
        .await;
    });
    Ok(events::sse_response(body))
}

async fn send_result_events(
    app: AppState,
    caller: Caller,
    pending_search: PendingSearchHandle,
    began: Instant,
    chunks: mpsc::Sender<Bytes>,
    _permit: StreamPermit,
) {
    let result = tokio::select! {
        answered = pending_search.wait_for_hits() => answered,
        () = chunks.closed() => return,
    };
    let hits: Vec<SearchHit> = match result {
        Ok(hits) => hits,
        Err(problem) => {
            send_event(&chunks, "problem", &problem).await;
            return;
        }
    };
    let done = DoneEventData {
        hits: hits.len(),
        millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    for hit in hits {
        if !send_event(
            &chunks,
            "hit",
            &FoundPassage::new(&app.link_signer, caller.tenant_id(), hit),
        )
        .await
        {
            return;
        }
    }
    send_event(&chunks, "done", &done).await;
}

async fn send_event(chunks: &mpsc::Sender<Bytes>, event: &str, data: &impl Serialize) -> bool {
    let data = serde_json::to_string(data).unwrap_or_default();
    chunks
        .send(format!("event: {event}\ndata: {data}\n\n").into())
        .await
        .is_ok()
}
