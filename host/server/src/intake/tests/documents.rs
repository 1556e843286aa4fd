//! Tests of JSON submissions with stored and remote documents.

use axum::Router;
use axum::body::Body;
use axum::http::header;
use axum::routing::get;
use serde_json::{Value, json};
use weir_core::settings::Settings;
use weir_core::tenancy::KeyScope;
use weir_core::{DocumentId, TenantId};

use super::{assert_no_traces_left, count_jobs};
use crate::fakes::{TestHost, parse_json as body, parse_problem};

async fn submit_documents(host: &TestHost, key: &str, documents: &Value) -> axum::http::Response<Body> {
    host.send_post("/v1/jobs", key, &json!({ "documents": documents }))
        .await
}

#[tokio::test]
async fn stored_document_needs_no_upload() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let document = host.store_upload(&a, "1 pages").to_string();
    let options = json!({"dpi": 100, "passwords": {"again.pdf": "p"}});
    let documents = json!([{"document": document}, {"document": document, "name": "../again.pdf"}]);
    let response = host
        .send_post(
            "/v1/jobs",
            &key,
            &json!({"documents": documents, "options": options}),
        )
        .await;
    assert_eq!(response.status(), 202);
    let job = body(response).await;
    let seen: Vec<_> = job["documents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| {
            (
                d["name"].as_str().unwrap(),
                d["document"].as_str().unwrap(),
                &d["bytes"],
            )
        })
        .collect();
    let bytes = Value::from(7);
    assert_eq!(
        seen,
        [
            ("document-1", document.as_str(), &bytes),
            ("again.pdf", document.as_str(), &bytes)
        ]
    );
    assert_eq!(host.uploads.file_names(), [format!("a-{document}")]);
}

#[tokio::test]
async fn document_of_another_tenant_is_not_found() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let (b, _) = host.create_tenant("b", &[KeyScope::Ingest]).await;
    let foreign = host.store_upload(&b, "1 pages").to_string();
    let absent = DocumentId::from_content(b"nowhere").to_string();
    let mut details = Vec::new();
    for document in [&foreign, &absent] {
        let refused =
            parse_problem(submit_documents(&host, &key, &json!([{ "document": document }])).await).await;
        assert_eq!(refused.status, 404);
        details.push(refused.detail.replace(document, "it"));
    }
    assert_eq!(
        details[0], details[1],
        "the response does not reveal documents of other tenants"
    );
    assert_eq!(count_jobs(&host, &a).await, 0);
    let own: TenantId = a;
    assert_eq!(host.control.admission.count_queued_and_running_jobs(&own), (0, 0));
}

#[tokio::test]
async fn malformed_json_submissions_are_refused() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let url = "https://1.1.1.1/a.pdf";
    let document = DocumentId::from_content(b"d").to_string();
    for documents in [
        json!([]),
        json!({}),
        json!(["a.pdf"]),
        json!([{}]),
        json!([{"name": "a.pdf"}]),
        json!([{"document": "abc"}]),
        json!([{"document": document, "url": url}]),
        json!([{"document": document, "password": "p"}]),
        json!([{"url": 7}]),
    ] {
        let refused = parse_problem(submit_documents(&host, &key, &documents).await).await;
        assert_eq!(refused.status, 422, "{documents}: {refused:?}");
    }
    for (text, status) in [
        (r#"{"documents":"#, 400),
        ("", 400),
        (r#"{"files":[]}"#, 422),
        ("[]", 422),
        (
            &format!(
                r#"{{"documents":[],"options":{{"dpi":1,"x":"{}"}}}}"#,
                "x".repeat(3 << 20)
            ),
            413,
        ),
    ] {
        let request = TestHost::build_request("POST", "/v1/jobs", &key, Body::from(text.to_owned()));
        let refused = parse_problem(host.send(request).await).await;
        assert_eq!(refused.status, status, "{refused:?}");
    }
    assert_no_traces_left(&host, &a, "no order").await;
}

#[tokio::test]
async fn only_public_urls_are_fetched_and_only_if_enabled() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    for (url, status) in [
        ("http://127.0.0.1/a.pdf", 403),
        ("http://localhost/a.pdf", 403),
        ("https://10.1.2.3/", 403),
        ("https://192.168.0.1/", 403),
        ("http://169.254.169.254/latest/meta-data", 403),
        ("http://[::1]/", 403),
        ("http://[::ffff:10.0.0.1]/", 403),
        ("http://2130706433/", 403),
        ("https://user:hunter2@example.com/", 422),
        ("file:///etc/passwd", 422),
        ("a.pdf", 422),
    ] {
        let refused = parse_problem(submit_documents(&host, &key, &json!([{ "url": url }])).await).await;
        assert_eq!(refused.status, status, "{url}: {refused:?}");
        assert!(!refused.detail.contains("hunter2"), "{refused:?}");
        assert_no_traces_left(&host, &a, url).await;
    }

    let host = TestHost::with_settings(Settings {
        server_allow_url_fetch: false,
        ..Settings::default()
    });
    let (_, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let refused =
        parse_problem(submit_documents(&host, &key, &json!([{"url": "https://1.1.1.1/"}])).await).await;
    assert_eq!(refused.status, 403, "{refused:?}");
}

/// Starts a local HTTP server and returns its URL.
async fn start_file_server() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endless = || async {
        let pieces = futures::stream::repeat_with(|| std::io::Result::Ok(vec![b'x'; 4096]));
        Body::from_stream(pieces)
    };
    let router = Router::new()
        .route("/docs/report.pdf", get(|| async { "3 pages" }))
        .route("/empty", get(|| async { "" }))
        .route("/endless", get(endless));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test]
async fn fetched_file_is_handled_like_an_upload() {
    let host = TestHost::with_settings(Settings {
        server_allow_client_urls_to_private_addresses: true,
        server_max_upload_bytes: 1 << 20,
        ..Settings::default()
    });
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let server = start_file_server().await;
    for (path, status) in [("/empty", 404), ("/nothing", 404), ("/endless", 413)] {
        let documents = json!([
            {"url": format!("{server}/docs/report.pdf")},
            {"url": format!("{server}{path}")},
        ]);
        let refused = parse_problem(submit_documents(&host, &key, &documents).await).await;
        assert_eq!(refused.status, status, "{path}: {refused:?}");
        assert_no_traces_left(&host, &a, path).await;
    }
    let documents = json!([
        {"url": format!("{server}/docs/report.pdf?token=secret#page=2")},
        {"url": format!("{server}/docs/report.pdf"), "name": "b.pdf"},
    ]);
    let response = submit_documents(&host, &key, &documents).await;
    assert!(response.headers().contains_key(header::LOCATION));
    let job = body(response).await;
    let document = DocumentId::from_content(b"3 pages").to_string();
    for (at, name) in ["report.pdf", "b.pdf"].into_iter().enumerate() {
        let seen = &job["documents"][at];
        assert_eq!(
            (&seen["name"], &seen["document"]),
            (&json!(name), &json!(document))
        );
    }
    assert_eq!(host.uploads.file_names(), [format!("a-{document}")]);
}
