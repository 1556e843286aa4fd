//! Tests of repeated requests with an idempotency key.

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response};
use weir_core::DocumentId;
use weir_core::tenancy::KeyScope;

use super::count_jobs;
use crate::fakes::{TestHost, accepted_job_id, multipart_form, parse_problem};

fn submission_with_key(key: &str, idempotency_key: &str, content: &str, options: &str) -> Request<Body> {
    let body = multipart_form(&[("file", Some("a.pdf"), content), ("options", None, options)]);
    let mut request = TestHost::build_submission(key, body);
    let header_value = HeaderValue::from_str(idempotency_key).unwrap();
    request.headers_mut().insert("idempotency-key", header_value);
    request
}

fn is_replayed(response: &Response<Body>) -> bool {
    let header = response.headers().get("idempotency-replayed");
    header.is_some_and(|value| value == "true")
}

#[tokio::test]
async fn repeated_request_returns_the_same_job() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let (b, other) = host.create_tenant("b", &[KeyScope::Ingest]).await;
    let first = host.send(submission_with_key(&key, "w", "1 pages", "{}")).await;
    assert!(!is_replayed(&first));
    let first = accepted_job_id(first).await;
    let files = host.uploads.file_names();
    // Explicit default options make the same request.
    for options in ["{}", r#"{"force":false}"#] {
        let again = host
            .send(submission_with_key(&key, "w", "1 pages", options))
            .await;
        assert!(is_replayed(&again));
        assert_eq!(again.headers()["location"], format!("/v1/jobs/{first}").as_str());
        assert_eq!(accepted_job_id(again).await, first);
    }
    assert_eq!(
        (
            count_jobs(&host, &a).await,
            host.control.admission.count_queued_and_running_jobs(&a)
        ),
        (1, (1, 0))
    );
    assert_eq!(host.uploads.file_names(), files);

    // Idempotency keys are scoped to the tenant.
    let others = host.send(submission_with_key(&other, "w", "1 pages", "{}")).await;
    assert!(!is_replayed(&others));
    assert_ne!(accepted_job_id(others).await, first);
    assert_eq!(count_jobs(&host, &b).await, 1);
    // Without an idempotency key, a new job is created.
    assert_ne!(host.submit_accepted_file(&key, "1 pages").await, first);
}

#[tokio::test]
async fn different_request_with_the_same_key_is_refused() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    accepted_job_id(host.send(submission_with_key(&key, "w", "1 pages", "{}")).await).await;
    let files = host.uploads.file_names();
    for (content, options) in [("2 pages", "{}"), ("1 pages", r#"{"dpi":72}"#)] {
        let refused = parse_problem(host.send(submission_with_key(&key, "w", content, options)).await).await;
        assert_eq!(
            (refused.status, refused.kind.as_str()),
            (422, "idempotency-key-reused")
        );
    }
    assert_eq!(
        (
            count_jobs(&host, &a).await,
            host.control.admission.count_queued_and_running_jobs(&a)
        ),
        (1, (1, 0))
    );
    assert_eq!(
        host.uploads.file_names(),
        files,
        "the file of the refused request is removed, and the file of the job stays"
    );
    let refused = parse_problem(
        host.send(submission_with_key(&key, "two words", "1 pages", "{}"))
            .await,
    )
    .await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn concurrent_equal_requests_create_one_job() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let sent = (0..8).map(|_| host.send(submission_with_key(&key, "w", "1 pages", "{}")));
    let responses = futures::future::join_all(sent).await;
    assert_eq!(
        responses.iter().filter(|response| is_replayed(response)).count(),
        7
    );
    let mut ids = Vec::new();
    for response in responses {
        ids.push(accepted_job_id(response).await);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(
        (
            count_jobs(&host, &a).await,
            host.control.admission.count_queued_and_running_jobs(&a)
        ),
        (1, (1, 0))
    );
    let document = DocumentId::from_content(b"1 pages");
    assert_eq!(host.uploads.file_names(), [format!("a-{document}")]);
}

#[tokio::test]
async fn repeated_request_is_answered_above_quotas() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let first = accepted_job_id(host.send(submission_with_key(&key, "w", "1 pages", "{}")).await).await;
    let files = host.uploads.file_names();
    for (quota, limit) in [("queued_jobs", 1), ("stored_bytes", 10)] {
        host.set_quota(&a, quota, limit).await;
        let again = host.send(submission_with_key(&key, "w", "1 pages", "{}")).await;
        assert!(is_replayed(&again), "{quota}");
        assert_eq!(accepted_job_id(again).await, first);
        // A request with another key gets the quota error. A different request with the same key gets a conflict.
        let other = parse_problem(host.send(submission_with_key(&key, "v", "1 pages", "{}")).await).await;
        assert_eq!((other.status, other.quota.as_deref()), (429, Some(quota)));
        let other = parse_problem(host.send(submission_with_key(&key, "w", "2 pages", "{}")).await).await;
        assert_eq!(other.status, 422, "{other:?}");
        host.set_quota(&a, quota, 0).await;
    }
    assert_eq!(host.control.admission.count_queued_and_running_jobs(&a), (1, 0));
    assert_eq!(host.uploads.file_names(), files);
}
