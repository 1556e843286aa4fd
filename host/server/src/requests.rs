//! What every request passes: a span, a measurement, an id to ask after it by, and a net for what should not happen.
//!
//! The id is the trace's: a client that sends `traceparent` (W3C Trace Context) finds its own trace again, in the logs, in
//! the traces that are exported and in `x-request-id` of the answer; others are given one. What is logged of a caller is the
//! tenant and the key's public part, never the key.

mod parent;

use std::any::Any;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use metrics::{counter, gauge, histogram};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use uuid::Uuid;

use crate::problem::Problem;
use parent::Parent;

/// The span of the request in hand, for [`goes_on`]; `None` if no traces are made.
pub(crate) fn here() -> Option<String> {
    Some(Parent::of_span(&Span::current())?.to_string())
}

/// Makes `span` part of the trace that a request began, which may have been answered long ago.
pub(crate) fn goes_on(span: &Span, trace: Option<&str>) {
    if let Some(parent) = trace.and_then(Parent::parse) {
        // Nobody exports traces if this is refused.
        let _ = span.set_parent(parent.context());
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What is at no route, in labels.
const UNMATCHED: &str = "unmatched";

/// Puts it all around the routes.
pub(crate) fn around(router: Router) -> Router {
    router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(watched))
}

/// A handler that panicked; the other requests go on.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    Problem::internal("the request's handler died: this is a fault of the host, see its log").into_response()
}

async fn watched(request: Request, next: Next) -> Response {
    let method = method(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| UNMATCHED.to_owned(), |path| path.as_str().to_owned());
    // Not a level of its own: what is logged inside carries the span only if the log takes the span too.
    let span = tracing::error_span!(
        "request",
        method,
        route,
        request_id = Empty,
        tenant = Empty,
        key = Empty,
        status = Empty,
    );
    let parent = Parent::of(request.headers());
    if let Some(parent) = &parent {
        // Nobody exports traces if this is refused, and the id is the client's all the same.
        let _ = span.set_parent(parent.context());
    }
    let id = parent.map_or_else(|| fresh_id(&span), |parent| parent.trace().to_string());
    span.record("request_id", &id);

    let in_flight = InFlight::begin();
    let began = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let seconds = began.elapsed().as_secs_f64();
    drop(in_flight);

    let status = response.status();
    span.record("status", status.as_u16());
    span.in_scope(|| tracing::info!(seconds, "answered"));
    let class = class(status.as_u16());
    counter!("weir_http_requests_total", "method" => method, "route" => route.clone(), "status" => class)
        .increment(1);
    histogram!("weir_http_request_seconds", "method" => method, "route" => route).record(seconds);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The id of the trace that is exported, or one that is new.
fn fresh_id(span: &Span) -> String {
    match Parent::of_span(span) {
        Some(parent) => parent.trace().to_string(),
        None => Uuid::now_v7().simple().to_string(),
    }
}

/// A client may invent methods; a label does not follow it.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

const fn class(status: u16) -> &'static str {
    match status {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}

/// Counts a request until it is dropped, also when its client goes before the answer.
struct InFlight;

impl InFlight {
    fn begin() -> Self {
        gauge!("weir_http_requests_in_flight").increment(1);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        gauge!("weir_http_requests_in_flight").decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    fn router() -> Router {
        async fn dies() {
            panic!("on purpose");
        }
        around(
            Router::new()
                .route("/things/{id}", get(|| async { "thing" }))
                .route("/dies", get(dies))
                .fallback(|| async { Problem::not_found("nothing") }),
        )
    }

    async fn ask(path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        router()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_clients_trace_is_its_request_id() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        let response = ask("/things/1", &[("traceparent", &parent)]).await;
        assert_eq!(response.headers()[REQUEST_ID], trace);
    }

    #[tokio::test]
    async fn other_requests_are_given_an_id() {
        let mut ids = Vec::new();
        for headers in [&[][..], &[("traceparent", "00-nonsense")]] {
            let response = ask("/nowhere", headers).await;
            assert_eq!(response.status(), 404);
            ids.push(response.headers()[REQUEST_ID].to_str().unwrap().to_owned());
        }
        assert!(ids.iter().all(|id| id.len() == 32) && ids[0] != ids[1], "{ids:?}");
    }

    #[tokio::test]
    async fn a_handler_that_dies_is_a_problem_of_the_host() {
        let response = ask("/dies", &[]).await;
        assert_eq!(response.status(), 500);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
    }

    #[test]
    fn labels_have_few_values() {
        assert_eq!(method(&Method::from_bytes(b"FROBNICATE").unwrap()), "other");
        assert_eq!(
            (class(101), class(204), class(304), class(429), class(507)),
            ("1xx", "2xx", "3xx", "4xx", "5xx")
        );
    }
}
