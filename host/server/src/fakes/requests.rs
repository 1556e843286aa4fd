//! Requests to a host, and what comes back.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use metrics_exporter_prometheus::PrometheusRecorder;
use serde_json::Value;
use tower::ServiceExt as _;
use weir_core::JobId;

use super::Host;
use crate::app::routes;

impl Host {
    pub(crate) fn router(&self) -> Router {
        routes(Arc::clone(&self.app)).0
    }

    /// The answer to a request.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router().oneshot(request).await.unwrap()
    }

    /// The answer to a GET with a key.
    pub(crate) async fn get(&self, path: &str, key: &str) -> Response<Body> {
        self.send(Host::request("GET", path, key, Body::empty())).await
    }

    /// The answer to a POST of JSON with a key.
    pub(crate) async fn post(&self, path: &str, key: &str, body: &Value) -> Response<Body> {
        self.send(Host::request("POST", path, key, Body::from(body.to_string())))
            .await
    }

    /// The answer to a PATCH with JSON and a key.
    pub(crate) async fn patch(&self, path: &str, key: &str, body: &Value) -> Response<Body> {
        self.send(Host::request("PATCH", path, key, Body::from(body.to_string())))
            .await
    }

    /// The answer to a DELETE with a key.
    pub(crate) async fn delete(&self, path: &str, key: &str) -> Response<Body> {
        self.send(Host::request("DELETE", path, key, Body::empty())).await
    }

    pub(crate) fn request(method: &str, path: &str, key: &str, body: Body) -> Request<Body> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .unwrap()
    }

    /// A submission with this body, made by [`form`].
    pub(crate) fn submission(key: &str, body: impl Into<Body>) -> Request<Body> {
        let mut request = Host::request("POST", "/v1/jobs", key, body.into());
        let kind = "multipart/form-data; boundary=XX".parse().unwrap();
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        request
    }

    /// The answer to a submission of one file.
    pub(crate) async fn submit(&self, key: &str, content: &str) -> Response<Body> {
        let body = form(&[("file", Some("a.pdf"), content)]);
        self.send(Host::submission(key, body)).await
    }

    /// The job of one file, which is accepted.
    pub(crate) async fn submitted(&self, key: &str, content: &str) -> JobId {
        job_of(self.submit(key, content).await).await
    }
}

/// A form of parts: name, file name and content.
pub(crate) fn form(parts: &[(&str, Option<&str>, &str)]) -> String {
    let part = |(name, file, content): &(&str, Option<&str>, &str)| {
        let file = file.map_or_else(String::new, |file| format!("; filename=\"{file}\""));
        format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{content}\r\n")
    };
    parts.iter().map(part).collect::<String>() + "--XX--\r\n"
}

/// The job that was accepted.
pub(crate) async fn job_of(answer: Response<Body>) -> JobId {
    let status = answer.status();
    let body = json(answer).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    body["id"].as_str().unwrap().parse().unwrap()
}

/// A JSON body.
pub(crate) async fn json(response: Response<Body>) -> Value {
    let bytes = axum::body::to_bytes(response.into_body(), 16 << 20)
        .await
        .unwrap();
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&bytes)))
}

/// What a refusal says.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The end of its type.
    pub(crate) kind: String,
    pub(crate) detail: String,
    pub(crate) quota: Option<String>,
    /// Seconds.
    pub(crate) retry_after: Option<u64>,
}

/// A refusal, which has the form that all of them have.
pub(crate) async fn refusal(answer: Response<Body>) -> Refusal {
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = json(answer).await;
    assert_eq!(
        headers[header::CONTENT_TYPE],
        "application/problem+json",
        "{body}"
    );
    assert_eq!(body["status"], status);
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    let retry_after = headers.get(header::RETRY_AFTER);
    Refusal {
        status,
        kind: text("type").unwrap().trim_start_matches("/problems/").to_owned(),
        detail: text("detail").unwrap(),
        quota: text("quota"),
        retry_after: retry_after.map(|seconds| seconds.to_str().unwrap().parse().unwrap()),
    }
}

/// A measurement by name and labels, as it is written for Prometheus; 0 if it has not been recorded.
pub(crate) fn measured(recorder: &PrometheusRecorder, series: &str) -> f64 {
    let text = recorder.handle().render();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}
