//! Uploads count while they come, and once.

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
use weir_core::tenancy::Scope;

use super::{assert_nothing_of, jobs};
use crate::fakes::{Host, form, job_of, refusal};

/// A submission whose body comes in pieces.
struct Upload {
    pieces: UnboundedSender<io::Result<Bytes>>,
    answer: JoinHandle<Response<Body>>,
}

impl Upload {
    /// Sends the first piece of a body; `headers` are further ones of the request.
    fn begin(host: &Host, key: &str, first: &str, headers: &[(&'static str, String)]) -> Self {
        let (pieces, body) = unbounded();
        let mut request = Host::submission(key, Body::from_stream(body));
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let router = host.router();
        let answer = tokio::spawn(async move { send(router, request).await });
        let upload = Self { pieces, answer };
        upload.send(first);
        upload
    }

    fn send(&self, piece: &str) {
        let piece = Bytes::copy_from_slice(piece.as_bytes());
        self.pieces.unbounded_send(Ok(piece)).unwrap();
    }

    /// The answer once no more is sent.
    async fn finish(self) -> Response<Body> {
        drop(self.pieces);
        self.answer.await.unwrap()
    }
}

async fn send(router: Router, request: Request<Body>) -> Response<Body> {
    tower::ServiceExt::oneshot(router, request).await.unwrap()
}

/// Waits until so many bytes of a tenant's uploads are counted at least.
async fn until_counted(host: &Host, tenant: &TenantId, bytes: u64) {
    let counted = async {
        while host.app.uploads.of(tenant) < bytes {
            tokio::task::yield_now().await;
        }
    };
    let counted = tokio::time::timeout(std::time::Duration::from_secs(60), counted).await;
    counted.expect("the upload is not counted");
}

/// A body of a file of 700 bytes, in two pieces.
fn halves() -> (String, String) {
    let whole = form(&[("file", Some("a.pdf"), &"x".repeat(700))]);
    let (first, rest) = whole.split_at(whole.len() - 20);
    (first.to_owned(), rest.to_owned())
}

#[tokio::test]
async fn uploads_at_one_time_share_the_storage_quota() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let (_, other) = host.tenant("b", &[Scope::Ingest]).await;
    host.quota(&a, "stored_bytes", 1000).await;
    let (first, rest) = halves();
    let upload = Upload::begin(&host, &key, &first, &[]);
    until_counted(&host, &a, 600).await;

    let refused = refusal(host.submit(&key, &"y".repeat(400)).await).await;
    assert_eq!(
        (refused.status, refused.quota.as_deref()),
        (429, Some("stored_bytes"))
    );
    assert_eq!(host.submit(&other, &"y".repeat(400)).await.status(), 202);
    upload.send(&rest);
    assert_eq!(upload.finish().await.status(), 202);
    assert_eq!(host.app.uploads.of(&a), 0, "what is stored is not in flight");

    // One that breaks off gives its bytes back.
    let (first, _) = halves();
    let refused = refusal(Upload::begin(&host, &key, &first, &[]).finish().await).await;
    assert_eq!(refused.status, 429);
    let broken = Upload::begin(
        &host,
        &key,
        &form(&[("file", None, &"z".repeat(250))])[..300],
        &[],
    );
    assert_eq!(broken.finish().await.status(), 400);
    assert_eq!(host.app.uploads.of(&a), 0);
    assert_eq!(host.submit(&key, &"y".repeat(300)).await.status(), 202);
}

#[tokio::test]
async fn announced_bytes_count_before_they_come() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    host.quota(&a, "stored_bytes", 3000).await;
    // A mebibyte is left for what surrounds the files.
    let length = [("content-length", ((1 << 20) + 2000).to_string())];
    let upload = Upload::begin(&host, &key, "--XX\r\n", &length);
    until_counted(&host, &a, 2000).await;
    let second = Upload::begin(&host, &key, "--XX\r\n", &length);
    let refused = refusal(second.answer.await.unwrap()).await;
    assert_eq!(refused.quota.as_deref(), Some("stored_bytes"));
    assert_eq!(upload.finish().await.status(), 400);
    assert_nothing_of(&host, &a, "announced and not sent").await;
}

#[tokio::test]
async fn uploads_at_one_time_share_the_free_space() {
    let host = Host::with(Settings {
        server_min_free_disk_bytes: 500,
        ..Settings::default()
    });
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let (b, other) = host.tenant("b", &[Scope::Ingest]).await;
    host.files.leave_free(3000);
    let length = [("content-length", ((1 << 20) + 2000).to_string())];
    let upload = Upload::begin(&host, &key, "--XX\r\n", &length);
    until_counted(&host, &a, 2000).await;
    let refused = refusal(host.submit(&other, &"y".repeat(501)).await).await;
    assert_eq!(
        (refused.status, refused.kind.as_str()),
        (507, "storage-full"),
        "{refused:?}"
    );
    assert_nothing_of(&host, &b, "no space").await;
    assert_eq!(host.submit(&other, &"y".repeat(500)).await.status(), 202);
    drop(upload.finish().await);
    assert_eq!(host.submit(&other, &"z".repeat(501)).await.status(), 202);
}

#[tokio::test]
async fn files_of_waiting_jobs_count_once() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    host.quota(&a, "stored_bytes", 1000).await;
    assert_eq!(host.submit(&key, &"x".repeat(600)).await.status(), 202);
    assert_eq!(host.app.admission.counts(&a), (1, 0));
    assert_eq!(host.submit(&key, &"y".repeat(400)).await.status(), 202);
    assert_eq!(host.submit(&key, "z").await.status(), 429);
}

#[tokio::test]
async fn known_request_is_compared_without_space() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let word = [("idempotency-key", "w".to_owned())];
    let (first, rest) = halves();
    let whole = Upload::begin(&host, &key, &format!("{first}{rest}"), &word);
    let job = job_of(whole.finish().await).await;
    let files = host.files.names();
    host.files.leave_free(0);
    host.quota(&a, "stored_bytes", 1).await;
    let again = Upload::begin(&host, &key, &first, &word);
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert_eq!(host.files.names(), files, "it is written to the disk");
    }
    again.send(&rest);
    assert_eq!(job_of(again.finish().await).await, job);
    let other = Upload::begin(&host, &key, &form(&[("file", None, "other")]), &word);
    assert_eq!(refusal(other.finish().await).await.kind, "idempotency-key-reused");
}

#[tokio::test]
async fn known_urls_are_not_fetched_again() {
    let host = Host::with(Settings {
        server_fetch_private: true,
        ..Settings::default()
    });
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
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
        let mut request = Host::request("POST", "/v1/jobs", &key, Body::from(body.to_string()));
        let word = "w".parse().unwrap();
        request.headers_mut().insert("idempotency-key", word);
        host.send(request).await
    };
    let body = json!({"documents": [{"url": url}]});
    let first = job_of(sent(body.clone()).await).await;
    let again = sent(body).await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert!(again.headers().contains_key(header::LOCATION));
    assert_eq!(job_of(again).await, first);
    for differs in [
        json!({"documents": [{"url": url, "name": "b.pdf"}]}),
        json!({"documents": [{"url": url}], "options": {"dpi": 72}}),
        json!({"documents": [{"url": url}], "options": {"passwords": {"a.pdf": "p"}}}),
    ] {
        let refused = refusal(sent(differs.clone()).await).await;
        assert_eq!(refused.kind, "idempotency-key-reused", "{differs}");
    }
    assert_eq!(fetched.load(Ordering::Relaxed), 1);
    assert_eq!(jobs(&host, &a).await, 1);
}
