//! The same request twice.

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response};
use weir_core::DocumentId;
use weir_core::tenancy::Scope;

use super::jobs;
use crate::fakes::{Host, form, job_of, refusal};

fn request(key: &str, word: &str, content: &str, options: &str) -> Request<Body> {
    let body = form(&[("file", Some("a.pdf"), content), ("options", None, options)]);
    let mut request = Host::submission(key, body);
    let word = HeaderValue::from_str(word).unwrap();
    request.headers_mut().insert("idempotency-key", word);
    request
}

fn replayed(answer: &Response<Body>) -> bool {
    let said = answer.headers().get("idempotency-replayed");
    said.is_some_and(|said| said == "true")
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_the_same_job() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let (b, other) = host.tenant("b", &[Scope::Ingest]).await;
    let first = host.send(request(&key, "w", "1 pages", "{}")).await;
    assert!(!replayed(&first));
    let first = job_of(first).await;
    let files = host.files.names();
    // The same in other words is the same.
    for options in ["{}", r#"{"force":false}"#] {
        let again = host.send(request(&key, "w", "1 pages", options)).await;
        assert!(replayed(&again));
        assert_eq!(again.headers()["location"], format!("/v1/jobs/{first}").as_str());
        assert_eq!(job_of(again).await, first);
    }
    assert_eq!(
        (jobs(&host, &a).await, host.app.admission.counts(&a)),
        (1, (1, 0))
    );
    assert_eq!(host.files.names(), files);

    // A word is its tenant's own.
    let others = host.send(request(&other, "w", "1 pages", "{}")).await;
    assert!(!replayed(&others));
    assert_ne!(job_of(others).await, first);
    assert_eq!(jobs(&host, &b).await, 1);
    // Without a word it is another job.
    assert_ne!(host.submitted(&key, "1 pages").await, first);
}

#[tokio::test]
async fn another_request_under_the_same_word_is_refused() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    job_of(host.send(request(&key, "w", "1 pages", "{}")).await).await;
    let files = host.files.names();
    for (content, options) in [("2 pages", "{}"), ("1 pages", r#"{"dpi":72}"#)] {
        let refused = refusal(host.send(request(&key, "w", content, options)).await).await;
        assert_eq!(
            (refused.status, refused.kind.as_str()),
            (422, "idempotency-key-reused")
        );
    }
    assert_eq!(
        (jobs(&host, &a).await, host.app.admission.counts(&a)),
        (1, (1, 0))
    );
    assert_eq!(
        host.files.names(),
        files,
        "its file goes, and that of the job stays"
    );
    let refused = refusal(host.send(request(&key, "two words", "1 pages", "{}")).await).await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn of_requests_at_once_one_is_the_job() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let sent = (0..8).map(|_| host.send(request(&key, "w", "1 pages", "{}")));
    let answers = futures::future::join_all(sent).await;
    assert_eq!(answers.iter().filter(|answer| replayed(answer)).count(), 7);
    let mut ids = Vec::new();
    for answer in answers {
        ids.push(job_of(answer).await);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(
        (jobs(&host, &a).await, host.app.admission.counts(&a)),
        (1, (1, 0))
    );
    let document = DocumentId::of(b"1 pages");
    assert_eq!(host.files.names(), [format!("a-{document}")]);
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_answered_whatever_is_used_up() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let first = job_of(host.send(request(&key, "w", "1 pages", "{}")).await).await;
    let files = host.files.names();
    for (quota, limit) in [("queued_jobs", 1), ("stored_bytes", 10)] {
        host.quota(&a, quota, limit).await;
        let again = host.send(request(&key, "w", "1 pages", "{}")).await;
        assert!(replayed(&again), "{quota}");
        assert_eq!(job_of(again).await, first);
        // Another one is told of the quota, or that the word is taken.
        let other = refusal(host.send(request(&key, "v", "1 pages", "{}")).await).await;
        assert_eq!((other.status, other.quota.as_deref()), (429, Some(quota)));
        let other = refusal(host.send(request(&key, "w", "2 pages", "{}")).await).await;
        assert_eq!(other.status, 422, "{other:?}");
        host.quota(&a, quota, 0).await;
    }
    assert_eq!(host.app.admission.counts(&a), (1, 0));
    assert_eq!(host.files.names(), files);
}
