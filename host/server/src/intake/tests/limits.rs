//! What may not come in, and when that is said.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use axum::body::Body;
use axum::http::header;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use serde_json::json;
use weir_core::original::Originals as _;
use weir_core::settings::Settings;
use weir_core::tenancy::Scope;

use super::{assert_nothing_of, jobs};
use crate::fakes::{Host, form, refusal};

/// A body that says whether anybody wanted it.
fn watched(content: String) -> (Body, Arc<AtomicBool>) {
    let wanted = Arc::new(AtomicBool::new(false));
    let (ours, mut content) = (Arc::clone(&wanted), Some(content));
    let body = stream::poll_fn(move |_| {
        ours.store(true, Ordering::Relaxed);
        Poll::Ready(content.take().map(|content| io::Result::Ok(Bytes::from(content))))
    });
    (Body::from_stream(body), wanted)
}

#[tokio::test]
async fn more_than_a_submission_may_be_is_refused_before_it_comes_or_as_it_does() {
    let host = Host::with(Settings {
        server_upload_bytes: 4 << 20,
        ..Settings::default()
    });
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let (own, own_key) = host.tenant("own", &[Scope::Ingest]).await;
    host.quota(&own, "upload_bytes", 2 << 20).await;
    for (tenant, key, limit, quota) in [
        (&a, &key, 4 << 20, None),
        (&own, &own_key, 2 << 20, Some("upload_bytes")),
    ] {
        let body = form(&[("file", Some("a.pdf"), &"x".repeat(limit + 1))]);
        // Told beforehand, it is not even read. What surrounds the files is not counted.
        let (watched, wanted) = watched(String::new());
        let mut request = Host::submission(key, watched);
        let length = (limit + (1 << 20) + 1).into();
        request.headers_mut().insert(header::CONTENT_LENGTH, length);
        let told = refusal(host.send(request).await).await;
        assert_eq!(
            (told.status, told.kind.as_str(), told.quota.as_deref()),
            (413, "too-large", quota)
        );
        assert!(!wanted.load(Ordering::Relaxed));

        let pieces: Vec<_> = body
            .as_bytes()
            .chunks(1 << 16)
            .map(Bytes::copy_from_slice)
            .collect();
        let pieces = stream::iter(pieces).map(io::Result::Ok);
        let answer = host.send(Host::submission(key, Body::from_stream(pieces))).await;
        let told = refusal(answer).await;
        assert_eq!((told.status, told.quota.as_deref()), (413, quota));
        assert_nothing_of(&host, tenant, "too much").await;

        let body = form(&[("file", Some("a.pdf"), &"x".repeat(limit))]);
        assert_eq!(host.send(Host::submission(key, body)).await.status(), 202);
        host.files.clear(tenant).await.unwrap();
    }
}

#[tokio::test]
async fn a_submission_has_so_many_files() {
    let host = Host::with(Settings {
        server_upload_files: 3,
        ..Settings::default()
    });
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let file = ("file", None, "1 pages");
    let answer = host.send(Host::submission(&key, form(&[file; 4]))).await;
    assert_eq!(answer.status(), 413);
    assert_nothing_of(&host, &a, "too many files").await;
    let one = json!({"url": "https://1.1.1.1/"});
    let known = json!({"document": host.original(&a, "1 pages").to_string()});
    let answer = host
        .post(
            "/v1/jobs",
            &key,
            &json!({"documents": [known, known, known, one]}),
        )
        .await;
    assert_eq!(answer.status(), 413, "before it is fetched");
    let answer = host.send(Host::submission(&key, form(&[file; 3]))).await;
    assert_eq!(answer.status(), 202);
}

#[tokio::test]
async fn what_would_not_fit_into_the_tenants_store_is_refused() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    host.quota(&a, "stored_bytes", 1000).await;
    host.memory.store(&a, 900);
    let refused = async |content: &str| {
        let told = refusal(host.submit(&key, content).await).await;
        assert_eq!((told.status, told.quota.as_deref()), (429, Some("stored_bytes")));
        assert_eq!(told.retry_after, Some(3600));
    };
    refused(&"x".repeat(101)).await;
    assert_nothing_of(&host, &a, "too much to keep").await;

    // What waits will be kept, and counts already.
    assert_eq!(host.submit(&key, &"x".repeat(60)).await.status(), 202);
    refused(&"y".repeat(60)).await;
    assert_eq!((jobs(&host, &a).await, host.files.names().len()), (1, 1));
    assert_eq!(host.submit(&key, &"y".repeat(40)).await.status(), 202);
}

#[tokio::test]
async fn stored_bytes_refusal_names_what_helps() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    host.quota(&a, "stored_bytes", 1000).await;

    // More than may ever be kept: neither waiting nor deleting helps.
    let told = refusal(host.submit(&key, &"x".repeat(1001)).await).await;
    assert_eq!((told.status, told.kind.as_str()), (413, "too-large"));
    assert_eq!(
        (told.quota.as_deref(), told.retry_after),
        (Some("stored_bytes"), None)
    );
    assert!(
        told.detail.contains("send less") && !told.detail.contains("delete"),
        "{}",
        told.detail
    );

    host.memory.store(&a, 900);
    let told = refusal(host.submit(&key, &"y".repeat(600)).await).await;
    assert_eq!((told.status, told.retry_after), (429, Some(3600)));
    assert!(
        told.detail.contains("delete documents or cancel queued jobs"),
        "{}",
        told.detail
    );
}

#[tokio::test]
async fn a_host_that_stops_takes_nothing() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    host.app.stopping.cancel();
    let (body, wanted) = watched(form(&[("file", None, "1 pages")]));
    let told = refusal(host.send(Host::submission(&key, body)).await).await;
    assert_eq!(
        (told.status, told.kind.as_str(), told.retry_after),
        (503, "stopping", Some(10))
    );
    assert!(!wanted.load(Ordering::Relaxed), "nobody reads what nobody takes");
    assert_nothing_of(&host, &a, "stopping").await;
}

#[tokio::test]
async fn only_a_key_that_may_puts_jobs_in() {
    let host = Host::new();
    let (_, reader) = host
        .tenant("a", &[Scope::Read, Scope::Admin, Scope::Components])
        .await;
    assert_eq!(refusal(host.submit(&reader, "1 pages").await).await.status, 403);
    assert_eq!(
        refusal(host.submit("weir_0_0", "1 pages").await).await.kind,
        "unauthorized"
    );
    assert_eq!(host.files.names(), Vec::<String>::new());
}
