//! Helpers that send HTTP requests to a host and parse the responses.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use serde_json::Value;
use tower::ServiceExt as _;
use weir_core::JobId;

use super::TestHost;
use crate::routes::build_router_and_openapi;

impl TestHost {
    pub(crate) fn router(&self) -> Router {
        build_router_and_openapi(self.app.clone()).0
    }

    /// Sends a request.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router().oneshot(request).await.unwrap()
    }

    /// Sends a GET request with a key.
    pub(crate) async fn send_get(&self, path: &str, key: &str) -> Response<Body> {
        self.send(TestHost::build_request("GET", path, key, Body::empty()))
            .await
    }

    /// Sends a POST request with a key and a JSON body.
    pub(crate) async fn send_post(&self, path: &str, key: &str, body: &Value) -> Response<Body> {
        self.send(TestHost::build_request(
            "POST",
            path,
            key,
            Body::from(body.to_string()),
        ))
        .await
    }

    /// Sends a PATCH request with a key and a JSON body.
    pub(crate) async fn send_patch(&self, path: &str, key: &str, body: &Value) -> Response<Body> {
        self.send(TestHost::build_request(
            "PATCH",
            path,
            key,
            Body::from(body.to_string()),
        ))
        .await
    }

    /// Sends a DELETE request with a key.
    pub(crate) async fn send_delete(&self, path: &str, key: &str) -> Response<Body> {
        self.send(TestHost::build_request("DELETE", path, key, Body::empty()))
            .await
    }

    pub(crate) fn build_request(method: &str, path: &str, key: &str, body: Body) -> Request<Body> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .unwrap()
    }

    /// Builds a submission with a body from [`multipart_form`].
    pub(crate) fn build_submission(key: &str, body: impl Into<Body>) -> Request<Body> {
        let mut request = TestHost::build_request("POST", "/v1/jobs", key, body.into());
        let kind = "multipart/form-data; boundary=XX".parse().unwrap();
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        request
    }

    /// Submits one file.
    pub(crate) async fn submit_file(&self, key: &str, content: &str) -> Response<Body> {
        let body = multipart_form(&[("file", Some("a.pdf"), content)]);
        self.send(TestHost::build_submission(key, body)).await
    }

    /// Submits one file, which has to be accepted, and returns its job.
    pub(crate) async fn submit_accepted_file(&self, key: &str, content: &str) -> JobId {
        accepted_job_id(self.submit_file(key, content).await).await
    }
}

/// Encodes a multipart form. A part has a name, a file name and content.
pub(crate) fn multipart_form(parts: &[(&str, Option<&str>, &str)]) -> String {
    let part = |(name, file, content): &(&str, Option<&str>, &str)| {
        let file = file.map_or_else(String::new, |file| format!("; filename=\"{file}\""));
        format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{content}\r\n")
    };
    parts.iter().map(part).collect::<String>() + "--XX--\r\n"
}

/// Returns the job of an accepted submission.
pub(crate) async fn accepted_job_id(response: Response<Body>) -> JobId {
    let status = response.status();
    let body = parse_json(response).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    body["id"].as_str().unwrap().parse().unwrap()
}

/// Parses a JSON body.
pub(crate) async fn parse_json(response: Response<Body>) -> Value {
    let bytes = axum::body::to_bytes(response.into_body(), 16 << 20)
        .await
        .unwrap();
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&bytes)))
}

/// A parsed problem response.
#[derive(Debug)]
pub(crate) struct ProblemResponse {
    pub(crate) status: u16,
    /// The last part of its type.
    pub(crate) kind: String,
    pub(crate) detail: String,
    pub(crate) quota: Option<String>,
    /// The header `Retry-After` in seconds.
    pub(crate) retry_after: Option<u64>,
}

/// Parses a response that has to be a well-formed problem.
pub(crate) async fn parse_problem(response: Response<Body>) -> ProblemResponse {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = parse_json(response).await;
    assert_eq!(
        headers[header::CONTENT_TYPE],
        "application/problem+json",
        "{body}"
    );
    assert_eq!(body["status"], status);
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    let retry_after = headers.get(header::RETRY_AFTER);
    ProblemResponse {
        status,
        kind: text("type").unwrap().trim_start_matches("/problems/").to_owned(),
        detail: text("detail").unwrap(),
        quota: text("quota"),
        retry_after: retry_after.map(|seconds| seconds.to_str().unwrap().parse().unwrap()),
    }
}
