//! Refusals and errors as RFC 9457 problem details.
//!
//! `type` is a path on this host, `/problems/<kind>`, and stable: programs decide by it. `detail` is one line for people.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use weir_core::{InferenceError, StorageError};
use weir_engine::SearchError;

/// Problem details, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// What kind of problem it is: a path under `/problems/`.
    #[serde(rename = "type")]
    #[schema(example = "/problems/not-found")]
    kind: String,
    /// The kind in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened here, and what to do about it.
    detail: String,
    /// The quota that was reached, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<&'static str>,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident => $kind:literal, $status:ident, $title:literal;)*) => {
        impl Problem {
            $($(#[doc = $doc])+ pub fn $name(detail: impl Into<String>) -> Self {
                Self::new($kind, StatusCode::$status, $title, detail.into())
            })*

            /// Every kind of problem: its name, status and title.
            pub const KINDS: &[(&str, StatusCode, &str)] = &[$(($kind, StatusCode::$status, $title),)*];
        }
    };
}

kinds! {
    /// The request is not what the interface takes.
    invalid => "invalid-request", BAD_REQUEST, "The request cannot be understood";
    /// No key, or one that does not count.
    unauthorized => "unauthorized", UNAUTHORIZED, "A valid key is needed";
    /// The key does not allow it.
    forbidden => "forbidden", FORBIDDEN, "The key does not allow this";
    /// The tenant is suspended.
    suspended => "tenant-suspended", FORBIDDEN, "The tenant is suspended";
    /// Nothing there for this tenant.
    not_found => "not-found", NOT_FOUND, "There is no such thing";
    /// The path exists, the method does not.
    method => "method-not-allowed", METHOD_NOT_ALLOWED, "The method does not fit the path";
    /// It contradicts the state things are in.
    conflict => "conflict", CONFLICT, "The state does not allow this";
    /// More bytes than allowed.
    too_large => "too-large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// Bytes stopped coming, or their number is not what was said.
    incomplete => "incomplete-body", REQUEST_TIMEOUT, "The body did not arrive whole";
    /// A kind of body that is not taken.
    unsupported => "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "This kind of body is not taken";
    /// The path is for another protocol.
    upgrade => "upgrade-required", UPGRADE_REQUIRED, "This path speaks another protocol";
    /// The body is understood and still cannot be followed.
    unprocessable => "unprocessable", UNPROCESSABLE_ENTITY, "The request cannot be followed";
    /// The same idempotency key for something else.
    reused => "idempotency-key-reused", UNPROCESSABLE_ENTITY, "The idempotency key belongs to another request";
    /// A quota is reached.
    quota => "quota-exceeded", TOO_MANY_REQUESTS, "A quota is reached";
    /// The host has too much to do.
    overloaded => "overloaded", SERVICE_UNAVAILABLE, "The host is overloaded";
    /// The host is going down.
    stopping => "stopping", SERVICE_UNAVAILABLE, "The host is stopping";
    /// No room on the disk.
    full => "storage-full", INSUFFICIENT_STORAGE, "There is no space left";
    /// A fault of the host.
    internal => "internal", INTERNAL_SERVER_ERROR, "The host failed";
}

impl Problem {
    fn new(kind: &str, status: StatusCode, title: &'static str, detail: String) -> Self {
        Self {
            kind: format!("/problems/{kind}"),
            title,
            status: status.as_u16(),
            detail,
            quota: None,
            retry_after: None,
        }
    }

    /// Says when to come again.
    #[must_use]
    pub const fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// A quota of this name is reached; `wait` until it may be worth trying again.
    pub fn over_quota(name: &'static str, detail: impl Into<String>, wait: Duration) -> Self {
        Self::quota(detail).after(wait).of_quota(name)
    }

    /// Names the quota that says so.
    #[must_use]
    pub const fn of_quota(mut self, name: &'static str) -> Self {
        self.quota = Some(name);
        self
    }

    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        self.status
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
            tracing::error!(kind = self.kind, detail = self.detail, "a request failed");
        }
        let retry = self.retry_after;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(wait) = retry {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.max(1).into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"weir\""),
            );
        }
        response
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Full { .. } => Self::full(error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<InferenceError> for Problem {
    fn from(error: InferenceError) -> Self {
        match error {
            InferenceError::Full { .. } => Self::overloaded(error.to_string()).after(Duration::from_secs(1)),
            InferenceError::Input { .. } => Self::unprocessable(error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<SearchError> for Problem {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Inference(error) => error.into(),
            SearchError::Storage(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_problem_on_the_wire() {
        let problem = Problem::over_quota(
            "pages_per_day",
            "100 pages a day are used up",
            Duration::from_millis(1500),
        );
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["type"], "/problems/quota-exceeded");
        assert_eq!(body["quota"], "pages_per_day");
        assert_eq!(body["status"], 429);
    }

    #[test]
    fn kinds_are_told_apart_by_name() {
        let mut names: Vec<_> = Problem::KINDS.iter().map(|(name, ..)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Problem::KINDS.len());
    }
}
