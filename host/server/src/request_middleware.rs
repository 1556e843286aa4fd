//! The middleware around every request: a tracing span, metrics, a request id, and a handler for panics.
//!
//! The request id is the trace id. A client that sends `traceparent` (W3C Trace Context) finds its own trace id in the logs, in
//! exported traces and in the response header `x-request-id`. Other requests get a new id. The log contains the tenant and the
//! public part of the key, never the key itself.

use std::any::Any;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use metrics::{counter, gauge, histogram};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use uuid::Uuid;
use weir_control::trace_context::TraceParent;

use crate::problem::Problem;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The label `route` of requests that match no route.
const UNMATCHED_ROUTE: &str = "unmatched";

/// Adds the middleware to all routes.
pub(crate) fn add_request_middleware(router: Router) -> Router {
    router
        .layer(CatchPanicLayer::custom(panic_response))
        .layer(from_fn(trace_and_measure_request))
}

/// Returns the response to a request whose handler panicked.
fn panic_response(_: Box<dyn Any + Send>) -> Response {
    Problem::internal_error("the request handler panicked: this is an error of the host, see its log")
        .into_response()
}

async fn trace_and_measure_request(request: Request, next: Next) -> Response {
    let method = method_label(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| UNMATCHED_ROUTE.to_owned(), |path| path.as_str().to_owned());
    // At the error level, so that every log line inside carries the span, whatever level the log has.
    let span = tracing::error_span!(
        "request",
        method,
        route,
        request_id = Empty,
        tenant = Empty,
        key = Empty,
        status = Empty,
    );
    let parent = parse_traceparent_header(request.headers());
    if let Some(parent) = &parent {
        // It only fails if no traces are exported; the request id is the client's in any case.
        let _ = span.set_parent(parent.to_context());
    }
    let id = parent.map_or_else(
        || span_trace_id_or_new(&span),
        |parent| parent.trace_id().to_string(),
    );
    span.record("request_id", &id);

    let in_flight = RequestInFlightGuard::count_in_flight_request();
    let began = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let seconds = began.elapsed().as_secs_f64();
    drop(in_flight);

    let status = response.status();
    span.record("status", status.as_u16());
    span.in_scope(|| tracing::info!(seconds, "request completed"));
    let class = status_class_label(status.as_u16());
    counter!("weir_http_requests_total", "method" => method, "route" => route.clone(), "status" => class)
        .increment(1);
    histogram!("weir_http_request_duration_seconds", "method" => method, "route" => route).record(seconds);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Reads the header `traceparent`; `None` if it is missing or malformed.
fn parse_traceparent_header(headers: &HeaderMap) -> Option<TraceParent> {
    TraceParent::parse(headers.get("traceparent")?.to_str().ok()?)
}

/// Returns the id of the exported trace, or a new id if none is exported.
fn span_trace_id_or_new(span: &Span) -> String {
    match TraceParent::from_span(span) {
        Some(parent) => parent.trace_id().to_string(),
        None => Uuid::now_v7().simple().to_string(),
    }
}

/// Returns the label of a method. Clients can invent methods, so the number of labels is limited to the known ones.
fn method_label(method: &Method) -> &'static str {
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

const fn status_class_label(status: u16) -> &'static str {
    match status {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}

/// Counts a request in the metrics until it is dropped, also if its client disconnects before the response.
struct RequestInFlightGuard;

impl RequestInFlightGuard {
    fn count_in_flight_request() -> Self {
        gauge!("weir_http_requests_in_flight").increment(1);
        Self
    }
}

impl Drop for RequestInFlightGuard {
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

    fn test_router() -> Router {
        async fn dies() {
            panic!("on purpose");
        }
        add_request_middleware(
            Router::new()
                .route("/things/{id}", get(|| async { "thing" }))
                .route("/dies", get(dies))
                .fallback(|| async { Problem::not_found("nothing") }),
        )
    }

    async fn send_request(path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        test_router()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn request_id_is_the_trace_id_of_the_client() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        let response = send_request("/things/1", &[("traceparent", &parent)]).await;
        assert_eq!(response.headers()[REQUEST_ID], trace);
    }

    #[tokio::test]
    async fn request_without_valid_traceparent_gets_a_new_id() {
        let mut ids = Vec::new();
        for headers in [&[][..], &[("traceparent", "00-nonsense")]] {
            let response = send_request("/nowhere", headers).await;
            assert_eq!(response.status(), 404);
            ids.push(response.headers()[REQUEST_ID].to_str().unwrap().to_owned());
        }
        assert!(ids.iter().all(|id| id.len() == 32) && ids[0] != ids[1], "{ids:?}");
    }

    #[tokio::test]
    async fn panicking_handler_gets_status_500() {
        let response = send_request("/dies", &[]).await;
        assert_eq!(response.status(), 500);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
    }

    #[test]
    fn method_and_status_labels_are_bounded() {
        assert_eq!(method_label(&Method::from_bytes(b"FROBNICATE").unwrap()), "other");
        assert_eq!(
            (
                status_class_label(101),
                status_class_label(204),
                status_class_label(304),
                status_class_label(429),
                status_class_label(507)
            ),
            ("1xx", "2xx", "3xx", "4xx", "5xx")
        );
    }
}
