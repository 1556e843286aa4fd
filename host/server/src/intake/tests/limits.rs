//! Tests of the limits of submissions, and of the time at which they are enforced.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use axum::body::Body;
use axum::http::header;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use serde_json::json;
use weir_core::settings::Settings;
use weir_core::tenancy::KeyScope;
use weir_core::uploads::UploadStore as _;

use super::{assert_no_traces_left, count_jobs};
use crate::fakes::{TestHost, multipart_form, parse_problem};

/// Returns a body and a flag that is set when the body is read.
fn body_with_read_flag(content: String) -> (Body, Arc<AtomicBool>) {
    let wanted = Arc::new(AtomicBool::new(false));
    let (read_flag, mut content) = (Arc::clone(&wanted), Some(content));
    let body = stream::poll_fn(move |_| {
        read_flag.store(true, Ordering::Relaxed);
        Poll::Ready(content.take().map(|content| io::Result::Ok(Bytes::from(content))))
    });
    (Body::from_stream(body), wanted)
}

#[tokio::test]
async fn oversized_submission_is_refused_early_or_while_it_arrives() {
    let host = TestHost::with_settings(Settings {
        server_max_upload_bytes: 4 << 20,
        ..Settings::default()
    });
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let (own, own_key) = host.create_tenant("own", &[KeyScope::Ingest]).await;
    host.set_quota(&own, "upload_bytes", 2 << 20).await;
    for (tenant, key, limit, quota) in [
        (&a, &key, 4 << 20, None),
        (&own, &own_key, 2 << 20, Some("upload_bytes")),
    ] {
        let body = multipart_form(&[("file", Some("a.pdf"), &"x".repeat(limit + 1))]);
        // With a `Content-Length` above the limit plus the form allowance, the body is not read.
        let (watched, wanted) = body_with_read_flag(String::new());
        let mut request = TestHost::build_submission(key, watched);
        let length = (limit + (1 << 20) + 1).into();
        request.headers_mut().insert(header::CONTENT_LENGTH, length);
        let problem = parse_problem(host.send(request).await).await;
        assert_eq!(
            (problem.status, problem.kind.as_str(), problem.quota.as_deref()),
            (413, "too-large", quota)
        );
        assert!(!wanted.load(Ordering::Relaxed));

        let pieces: Vec<_> = body
            .as_bytes()
            .chunks(1 << 16)
            .map(Bytes::copy_from_slice)
            .collect();
        let pieces = stream::iter(pieces).map(io::Result::Ok);
        let response = host
            .send(TestHost::build_submission(key, Body::from_stream(pieces)))
            .await;
        let problem = parse_problem(response).await;
        assert_eq!((problem.status, problem.quota.as_deref()), (413, quota));
        assert_no_traces_left(&host, tenant, "too much").await;

        let body = multipart_form(&[("file", Some("a.pdf"), &"x".repeat(limit))]);
        assert_eq!(
            host.send(TestHost::build_submission(key, body)).await.status(),
            202
        );
        host.uploads.remove_all_uploads_of_tenant(tenant).await.unwrap();
    }
}

#[tokio::test]
async fn number_of_files_is_limited() {
    let host = TestHost::with_settings(Settings {
        server_max_upload_files: 3,
        ..Settings::default()
    });
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let file = ("file", None, "1 pages");
    let response = host
        .send(TestHost::build_submission(&key, multipart_form(&[file; 4])))
        .await;
    assert_eq!(response.status(), 413);
    assert_no_traces_left(&host, &a, "too many files").await;
    let one = json!({"url": "https://1.1.1.1/"});
    let known = json!({"document": host.store_upload(&a, "1 pages").to_string()});
    let response = host
        .send_post(
            "/v1/jobs",
            &key,
            &json!({"documents": [known, known, known, one]}),
        )
        .await;
    assert_eq!(response.status(), 413, "before it is fetched");
    let response = host
        .send(TestHost::build_submission(&key, multipart_form(&[file; 3])))
        .await;
    assert_eq!(response.status(), 202);
}

#[tokio::test]
async fn submission_above_the_storage_quota_is_refused() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    host.set_quota(&a, "stored_bytes", 1000).await;
    host.store.set_stored_bytes(&a, 900);
    let refused = async |content: &str| {
        let problem = parse_problem(host.submit_file(&key, content).await).await;
        assert_eq!(
            (problem.status, problem.quota.as_deref()),
            (429, Some("stored_bytes"))
        );
        assert_eq!(problem.retry_after, Some(3600));
    };
    refused(&"x".repeat(101)).await;
    assert_no_traces_left(&host, &a, "too much to keep").await;

    // Files of queued jobs count.
    assert_eq!(host.submit_file(&key, &"x".repeat(60)).await.status(), 202);
    refused(&"y".repeat(60)).await;
    assert_eq!(
        (count_jobs(&host, &a).await, host.uploads.file_names().len()),
        (1, 1)
    );
    assert_eq!(host.submit_file(&key, &"y".repeat(40)).await.status(), 202);
}

#[tokio::test]
async fn storage_quota_error_explains_the_solution() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    host.set_quota(&a, "stored_bytes", 1000).await;

    // Above the quota itself, neither waiting nor deleting helps.
    let problem = parse_problem(host.submit_file(&key, &"x".repeat(1001)).await).await;
    assert_eq!((problem.status, problem.kind.as_str()), (413, "too-large"));
    assert_eq!(
        (problem.quota.as_deref(), problem.retry_after),
        (Some("stored_bytes"), None)
    );
    assert!(
        problem.detail.contains("send less") && !problem.detail.contains("delete"),
        "{}",
        problem.detail
    );

    host.store.set_stored_bytes(&a, 900);
    let problem = parse_problem(host.submit_file(&key, &"y".repeat(600)).await).await;
    assert_eq!((problem.status, problem.retry_after), (429, Some(3600)));
    assert!(
        problem.detail.contains("delete documents or cancel queued jobs"),
        "{}",
        problem.detail
    );
}

#[tokio::test]
async fn stopping_host_accepts_no_submission() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    host.control.stop_signal.cancel();
    let (body, wanted) = body_with_read_flag(multipart_form(&[("file", None, "1 pages")]));
    let problem = parse_problem(host.send(TestHost::build_submission(&key, body)).await).await;
    assert_eq!(
        (problem.status, problem.kind.as_str(), problem.retry_after),
        (503, "stopping", Some(10))
    );
    assert!(!wanted.load(Ordering::Relaxed), "the body must not be read");
    assert_no_traces_left(&host, &a, "stopping").await;
}

#[tokio::test]
async fn submission_needs_the_ingest_scope() {
    let host = TestHost::new();
    let (_, reader) = host
        .create_tenant("a", &[KeyScope::Read, KeyScope::Admin, KeyScope::Components])
        .await;
    assert_eq!(
        parse_problem(host.submit_file(&reader, "1 pages").await)
            .await
            .status,
        403
    );
    assert_eq!(
        parse_problem(host.submit_file("weir_0_0", "1 pages").await)
            .await
            .kind,
        "unauthorized"
    );
    assert_eq!(host.uploads.file_names(), Vec::<String>::new());
}
