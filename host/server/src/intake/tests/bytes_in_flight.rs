//! Tests that bytes in flight count against quotas and free space, exactly once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, header};
use axum::routing::get;
use bytes::Bytes;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use serde_json::json;
use tokio::task::JoinHandle;
use weir_core::TenantId;
use weir_core::settings::Settings;
use weir_core::tenancy::KeyScope;

use super::{assert_no_traces_left, count_jobs};
use crate::fakes::{TestHost, accepted_job_id, multipart_form, parse_problem};

/// A submission whose body is sent in pieces.
struct UploadInProgress {
    pieces: UnboundedSender<io::Result<Bytes>>,
    response_task: JoinHandle<Response<Body>>,
}

impl UploadInProgress {
    /// Starts a request with additional `headers` and sends the first piece of its body.
    fn begin(host: &TestHost, key: &str, first: &str, headers: &[(&'static str, String)]) -> Self {
        let (pieces, body) = unbounded();
        let mut request = TestHost::build_submission(key, Body::from_stream(body));
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let router = host.router();
        let response_task = tokio::spawn(async move { send(router, request).await });
        let upload = Self {
            pieces,
            response_task,
        };
        upload.send_piece(first);
        upload
    }

    fn send_piece(&self, piece: &str) {
        let piece = Bytes::copy_from_slice(piece.as_bytes());
        self.pieces.unbounded_send(Ok(piece)).unwrap();
    }

    /// Ends the body and returns the response.
    async fn finish_body(self) -> Response<Body> {
        drop(self.pieces);
        self.response_task.await.unwrap()
    }
}

async fn send(router: Router, request: Request<Body>) -> Response<Body> {
    tower::ServiceExt::oneshot(router, request).await.unwrap()
}

/// Waits until at least `bytes` of a tenant's uploads are counted.
async fn wait_until_counted(host: &TestHost, tenant: &TenantId, bytes: u64) {
    let counted = async {
        while host.control.upload_reservations.reserved_bytes_of_tenant(tenant) < bytes {
            tokio::task::yield_now().await;
        }
    };
    let counted = tokio::time::timeout(std::time::Duration::from_secs(60), counted).await;
    counted.expect("the upload was not counted within 60 s");
}

/// Returns a form with a file of 700 bytes, in two pieces.
fn form_in_two_pieces() -> (String, String) {
    let whole = multipart_form(&[("file", Some("a.pdf"), &"x".repeat(700))]);
    let (first, rest) = whole.split_at(whole.len() - 20);
    (first.to_owned(), rest.to_owned())
}

#[tokio::test]
async fn concurrent_uploads_share_the_storage_quota() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let (_, other) = host.create_tenant("b", &[KeyScope::Ingest]).await;
    host.set_quota(&a, "stored_bytes", 1000).await;
    let (first, rest) = form_in_two_pieces();
    let upload = UploadInProgress::begin(&host, &key, &first, &[]);
    wait_until_counted(&host, &a, 600).await;

    let refused = parse_problem(host.submit_file(&key, &"y".repeat(400)).await).await;
    assert_eq!(
        (refused.status, refused.quota.as_deref()),
        (429, Some("stored_bytes"))
    );
    assert_eq!(host.submit_file(&other, &"y".repeat(400)).await.status(), 202);
    upload.send_piece(&rest);
    assert_eq!(upload.finish_body().await.status(), 202);
    assert_eq!(
        host.control.upload_reservations.reserved_bytes_of_tenant(&a),
        0,
        "a stored file is no longer in flight"
    );

    // An incomplete upload releases its bytes.
    let (first, _) = form_in_two_pieces();
    let refused = parse_problem(
        UploadInProgress::begin(&host, &key, &first, &[])
            .finish_body()
            .await,
    )
    .await;
    assert_eq!(refused.status, 429);
    let broken = UploadInProgress::begin(
        &host,
        &key,
        &multipart_form(&[("file", None, &"z".repeat(250))])[..300],
        &[],
    );
    assert_eq!(broken.finish_body().await.status(), 400);
    assert_eq!(host.control.upload_reservations.reserved_bytes_of_tenant(&a), 0);
    assert_eq!(host.submit_file(&key, &"y".repeat(300)).await.status(), 202);
}

#[tokio::test]
async fn content_length_counts_before_the_body_arrives() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    host.set_quota(&a, "stored_bytes", 3000).await;
    // One mebibyte of the announced length is the allowance for the form.
    let length = [("content-length", ((1 << 20) + 2000).to_string())];
    let upload = UploadInProgress::begin(&host, &key, "--XX\r\n", &length);
    wait_until_counted(&host, &a, 2000).await;
    let second = UploadInProgress::begin(&host, &key, "--XX\r\n", &length);
    let refused = parse_problem(second.response_task.await.unwrap()).await;
    assert_eq!(refused.quota.as_deref(), Some("stored_bytes"));
    assert_eq!(upload.finish_body().await.status(), 400);
    assert_no_traces_left(&host, &a, "announced and not sent").await;
}

#[tokio::test]
async fn concurrent_uploads_share_the_free_disk_space() {
    let host = TestHost::with_settings(Settings {
        server_min_free_disk_bytes: 500,
        ..Settings::default()
    });
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let (b, other) = host.create_tenant("b", &[KeyScope::Ingest]).await;
    host.uploads.set_free_bytes(3000);
    let length = [("content-length", ((1 << 20) + 2000).to_string())];
    let upload = UploadInProgress::begin(&host, &key, "--XX\r\n", &length);
    wait_until_counted(&host, &a, 2000).await;
    let refused = parse_problem(host.submit_file(&other, &"y".repeat(501)).await).await;
    assert_eq!(
        (refused.status, refused.kind.as_str()),
        (507, "storage-full"),
        "{refused:?}"
    );
    assert_no_traces_left(&host, &b, "no space").await;
    assert_eq!(host.submit_file(&other, &"y".repeat(500)).await.status(), 202);
    drop(upload.finish_body().await);
    assert_eq!(host.submit_file(&other, &"z".repeat(501)).await.status(), 202);
}

#[tokio::test]
async fn files_of_queued_jobs_count_once_against_the_quota() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    host.set_quota(&a, "stored_bytes", 1000).await;
    assert_eq!(host.submit_file(&key, &"x".repeat(600)).await.status(), 202);
    assert_eq!(host.control.admission.count_queued_and_running_jobs(&a), (1, 0));
    assert_eq!(host.submit_file(&key, &"y".repeat(400)).await.status(), 202);
    assert_eq!(host.submit_file(&key, "z").await.status(), 429);
}

#[tokio::test]
async fn repeated_request_is_compared_without_disk_space() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let idempotency_header = [("idempotency-key", "w".to_owned())];
    let (first, rest) = form_in_two_pieces();
    let whole = UploadInProgress::begin(&host, &key, &format!("{first}{rest}"), &idempotency_header);
    let job = accepted_job_id(whole.finish_body().await).await;
    let files = host.uploads.file_names();
    host.uploads.set_free_bytes(0);
    host.set_quota(&a, "stored_bytes", 1).await;
    let again = UploadInProgress::begin(&host, &key, &first, &idempotency_header);
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert_eq!(
            host.uploads.file_names(),
            files,
            "the repeated upload is written to the disk"
        );
    }
    again.send_piece(&rest);
    assert_eq!(accepted_job_id(again.finish_body().await).await, job);
    let other = UploadInProgress::begin(
        &host,
        &key,
        &multipart_form(&[("file", None, "other")]),
        &idempotency_header,
    );
    assert_eq!(
        parse_problem(other.finish_body().await).await.kind,
        "idempotency-key-reused"
    );
}

#[tokio::test]
async fn repeated_request_fetches_no_urls() {
    let host = TestHost::with_settings(Settings {
        server_allow_client_urls_to_private_addresses: true,
        ..Settings::default()
    });
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let fetched = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&fetched);
    let router = Router::new().route(
        "/a.pdf",
        get(async move || {
            counting.fetch_add(1, Ordering::Relaxed);
            "1 pages"
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/a.pdf", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let sent = async |body: serde_json::Value| {
        let mut request = TestHost::build_request("POST", "/v1/jobs", &key, Body::from(body.to_string()));
        let header_value = "w".parse().unwrap();
        request.headers_mut().insert("idempotency-key", header_value);
        host.send(request).await
    };
    let body = json!({"documents": [{"url": url}]});
    let first = accepted_job_id(sent(body.clone()).await).await;
    let again = sent(body).await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert!(again.headers().contains_key(header::LOCATION));
    assert_eq!(accepted_job_id(again).await, first);
    for differs in [
        json!({"documents": [{"url": url, "name": "b.pdf"}]}),
        json!({"documents": [{"url": url}], "options": {"dpi": 72}}),
        json!({"documents": [{"url": url}], "options": {"passwords": {"a.pdf": "p"}}}),
    ] {
        let refused = parse_problem(sent(differs.clone()).await).await;
        assert_eq!(refused.kind, "idempotency-key-reused", "{differs}");
    }
    assert_eq!(fetched.load(Ordering::Relaxed), 1);
    assert_eq!(count_jobs(&host, &a).await, 1);
}
