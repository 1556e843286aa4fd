//! Error responses as RFC 9457 problem details.
//!
//! `type` is a path on this host, `/problems/<kind>`. It is stable, so programs can rely on it. `detail` is one line for
//! people.

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
    /// Type of the problem: a path under `/problems/`.
    #[serde(rename = "type")]
    #[schema(example = "/problems/not-found")]
    type_path: String,
    /// Title of the problem type.
    title: &'static str,
    /// HTTP status.
    status: u16,
    /// What failed in this request, and how to solve it.
    detail: String,
    /// Name of the exceeded quota, if a quota was exceeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<&'static str>,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

macro_rules! problem_types {
    ($($(#[doc = $doc:literal])+ $name:ident => $kind:literal, $status:ident, $title:literal;)*) => {
        impl Problem {
            $($(#[doc = $doc])+ pub fn $name(detail: impl Into<String>) -> Self {
                Self::new($kind, StatusCode::$status, $title, detail.into())
            })*

            /// All problem types: name, status and title.
            pub const KINDS: &[(&str, StatusCode, &str)] = &[$(($kind, StatusCode::$status, $title),)*];
        }
    };
}

problem_types! {
    /// The request is malformed.
    invalid_request => "invalid-request", BAD_REQUEST, "The request is malformed";
    /// The key is missing or invalid.
    unauthorized => "unauthorized", UNAUTHORIZED, "A valid key is required";
    /// The key lacks a scope, or the host does not allow the operation.
    forbidden => "forbidden", FORBIDDEN, "The operation is not allowed";
    /// The tenant is suspended.
    tenant_suspended => "tenant-suspended", FORBIDDEN, "The tenant is suspended";
    /// The resource does not exist for this tenant.
    not_found => "not-found", NOT_FOUND, "The resource does not exist";
    /// The path does not support the method.
    method_not_allowed => "method-not-allowed", METHOD_NOT_ALLOWED, "The path does not support the method";
    /// The request conflicts with the current state of the resource.
    conflict => "conflict", CONFLICT, "The request conflicts with the current state";
    /// The body exceeds a size limit.
    too_large => "too-large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// The body ended early, or its size differs from the announced one.
    incomplete_body => "incomplete-body", REQUEST_TIMEOUT, "The body is incomplete";
    /// The content type of the body is not supported.
    unsupported_media_type => "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The content type is not supported";
    /// The path requires a protocol upgrade.
    upgrade_required => "upgrade-required", UPGRADE_REQUIRED, "The path requires a protocol upgrade";
    /// The body is well-formed and its content is invalid.
    unprocessable => "unprocessable", UNPROCESSABLE_ENTITY, "The content of the request is invalid";
    /// The idempotency key was used for a different request.
    idempotency_key_reused => "idempotency-key-reused", UNPROCESSABLE_ENTITY, "The idempotency key was used for another request";
    /// A quota of the tenant is exceeded.
    quota_exceeded => "quota-exceeded", TOO_MANY_REQUESTS, "A quota is exceeded";
    /// The host is overloaded.
    overloaded => "overloaded", SERVICE_UNAVAILABLE, "The host is overloaded";
    /// The host is stopping.
    stopping => "stopping", SERVICE_UNAVAILABLE, "The host is stopping";
    /// A store on another machine does not respond.
    storage_unavailable => "storage-unavailable", SERVICE_UNAVAILABLE, "A store of the host is not available";
    /// The disk has no free space.
    storage_full => "storage-full", INSUFFICIENT_STORAGE, "The host has no disk space left";
    /// The host failed.
    internal_error => "internal", INTERNAL_SERVER_ERROR, "An internal error occurred";
}

impl Problem {
    fn new(kind: &str, status: StatusCode, title: &'static str, detail: String) -> Self {
        Self {
            type_path: format!("/problems/{kind}"),
            title,
            status: status.as_u16(),
            detail,
            quota: None,
            retry_after: None,
        }
    }

    /// Sets the `Retry-After` header.
    #[must_use]
    pub const fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Reports that the quota `name` is exceeded, with `wait` as `Retry-After`.
    pub fn named_quota_exceeded(name: &'static str, detail: impl Into<String>, wait: Duration) -> Self {
        Self::quota_exceeded(detail)
            .with_retry_after(wait)
            .with_quota_name(name)
    }

    /// Sets the name of the exceeded quota.
    #[must_use]
    pub const fn with_quota_name(mut self, name: &'static str) -> Self {
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
            tracing::error!(kind = self.type_path, detail = self.detail, "a request failed");
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

/// `Retry-After` while a store does not respond.
const UNAVAILABLE_STORE_RETRY: Duration = Duration::from_secs(5);

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NoSpace { .. } => Self::storage_full(error.to_string()),
            StorageError::Unavailable { .. } => {
                Self::storage_unavailable(error.to_string()).with_retry_after(UNAVAILABLE_STORE_RETRY)
            }
            _ => Self::internal_error(error.to_string()),
        }
    }
}

impl From<InferenceError> for Problem {
    fn from(error: InferenceError) -> Self {
        match error {
            InferenceError::QueueFull { .. } => {
                Self::overloaded(error.to_string()).with_retry_after(Duration::from_secs(1))
            }
            InferenceError::InvalidInput { .. } => Self::unprocessable(error.to_string()),
            _ => Self::internal_error(error.to_string()),
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
    async fn problem_is_encoded_as_problem_json() {
        let problem = Problem::named_quota_exceeded(
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
    fn problem_types_have_unique_names() {
        let mut names: Vec<_> = Problem::KINDS.iter().map(|(name, ..)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Problem::KINDS.len());
    }
}
