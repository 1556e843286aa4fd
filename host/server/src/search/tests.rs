//! Tests of the search API.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::{StatusCode, header};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use weir_core::search::{IndexPoint, page_image_blob_key, page_lines_blob_key};
use weir_core::settings::Settings;
use weir_core::tenancy::KeyScope;
use weir_core::{DocumentId, Rect, TenantId};

use super::SearchBuffer;
use crate::fakes::{TestHost, parse_json as body};

/// A host with a running search buffer.
struct SearchHost {
    host: TestHost,
    _running: JoinSet<()>,
}

impl SearchHost {
    fn new(settings: Settings) -> Self {
        let host = TestHost::with_settings(settings);
        let mut running = JoinSet::new();
        running.spawn(SearchBuffer::dispatch_batches(
            Arc::clone(&host.app.search_buffer),
            Arc::clone(&host.control) as _,
            2,
        ));
        Self {
            host,
            _running: running,
        }
    }
}

fn point(document: &DocumentId, page: u32, text: &str) -> IndexPoint {
    IndexPoint {
        id: uuid::Uuid::now_v7(),
        document: *document,
        document_name: format!("{text}.pdf"),
        page,
        passage: 0,
        text: text.to_owned(),
        rect: Rect {
            x: 0.25,
            y: 0.5,
            width: 0.125,
            height: 0.0625,
        },
        dense_vector: vec![1.0],
        labels: vec![("kind".into(), format!("k{page}"))],
        image: Some(page_image_blob_key(document, page, 150, "jpg")),
        lines: Some(page_lines_blob_key(document, page)),
    }
}

fn store_point(host: &TestHost, tenant: &TenantId, collection: &str, point: IndexPoint) {
    host.vectors
        .0
        .lock()
        .push((tenant.clone(), collection.to_owned(), point));
}

async fn search_hits(host: &TestHost, key: &str, search: Value) -> Vec<Value> {
    let response = host.send_post("/v1/search", key, &search).await;
    assert_eq!(response.status(), StatusCode::OK, "{search}");
    body(response).await["hits"].as_array().unwrap().clone()
}

#[tokio::test]
async fn hit_has_its_position_and_signed_links() {
    let bench = SearchHost::new(Settings::default());
    let host = &bench.host;
    let (a, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let document = DocumentId::from_content(b"d");
    store_point(host, &a, "c", point(&document, 3, "warranty"));
    host.control
        .engine
        .port_implementations()
        .blobs
        .put_blob(&a, &page_image_blob_key(&document, 3, 150, "jpg"), b"image")
        .await
        .unwrap();
    host.control
        .engine
        .port_implementations()
        .blobs
        .put_blob(&a, &page_lines_blob_key(&document, 3), b"{}")
        .await
        .unwrap();
    let hits = search_hits(host, &key, json!({ "query": " warranty " })).await;
    assert_eq!(hits.len(), 1);
    let hit = &hits[0];
    assert_eq!(hit["document"], document.to_string());
    assert_eq!(
        (&hit["name"], &hit["page"], &hit["text"]),
        (&json!("warranty.pdf"), &json!(3), &json!("warranty"))
    );
    assert_eq!(
        hit["box"],
        json!({ "x": 0.25, "y": 0.5, "width": 0.125, "height": 0.0625 })
    );
    // The links work without a key.
    for (link, content) in [("image_url", "image"), ("lines_url", "{}")] {
        let link = hit[link].as_str().unwrap();
        let request = axum::http::Request::get(link)
            .body(axum::body::Body::empty())
            .unwrap();
        let response = host.send(request).await;
        assert_eq!(response.status(), StatusCode::OK, "{link}");
        let bytes = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        assert_eq!(bytes, content);
    }
}

#[tokio::test]
async fn search_is_scoped_to_the_tenant_with_any_filter() {
    let bench = SearchHost::new(Settings::default());
    let host = &bench.host;
    let (a, of_a) = host.create_tenant("a", &[KeyScope::Read]).await;
    let (b, _) = host.create_tenant("b", &[KeyScope::Read]).await;
    let (mine, theirs) = (
        DocumentId::from_content(b"mine"),
        DocumentId::from_content(b"theirs"),
    );
    store_point(host, &a, "c", point(&mine, 1, "secret"));
    store_point(host, &a, "other", point(&mine, 2, "secret"));
    store_point(host, &b, "c", point(&theirs, 1, "secret"));
    let count = async |filter: Value| {
        search_hits(host, &of_a, json!({ "query": "secret", "filter": filter }))
            .await
            .len()
    };
    assert_eq!(count(json!({})).await, 2);
    assert_eq!(count(json!({ "documents": [theirs] })).await, 0);
    assert_eq!(count(json!({ "documents": [mine, theirs] })).await, 2);
    assert_eq!(count(json!({ "collection": "c" })).await, 1);
    assert_eq!(count(json!({ "labels": { "kind": "k2" } })).await, 1);
    assert_eq!(
        count(json!({ "labels": { "kind": "k2" }, "collection": "c" })).await,
        0
    );
    let hits = search_hits(host, &of_a, json!({ "query": "secret", "top_k": 1 })).await;
    assert_eq!(hits.len(), 1);
}

#[tokio::test]
async fn out_of_range_searches_are_refused() {
    let bench = SearchHost::new(Settings::default());
    let host = &bench.host;
    let (_, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let (_, no_reader) = host.create_tenant("b", &[KeyScope::Ingest]).await;
    let documents: Vec<_> = (0..101).map(|n: u8| DocumentId::from_content(&[n])).collect();
    for search in [
        json!({ "query": "" }),
        json!({ "query": "  " }),
        json!({ "query": "x".repeat(4097) }),
        json!({ "query": "x", "top_k": 0 }),
        json!({ "query": "x", "top_k": 101 }),
        json!({ "query": "x", "top_k": -1 }),
        json!({ "query": "x", "limit": 1 }),
        json!({ "query": "x", "filter": { "documents": ["none"] } }),
        json!({ "query": "x", "filter": { "documents": documents } }),
        json!({ "query": "x", "filter": { "collection": "c".repeat(257) } }),
        json!({ "query": "x", "filter": { "labels": { "a": "b".repeat(1025) } } }),
        json!({}),
        json!([]),
    ] {
        for path in ["/v1/search", "/v1/stream/query"] {
            let response = host.send_post(path, &key, &search).await;
            assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY, "{search}");
            assert_eq!(body(response).await["type"], "/problems/unprocessable");
        }
        let response = host
            .send_post("/v1/search/batch", &key, &json!({ "queries": [search] }))
            .await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
    for queries in [json!([]), json!(vec![json!({ "query": "x" }); 33])] {
        let response = host
            .send_post("/v1/search/batch", &key, &json!({ "queries": queries }))
            .await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
    for path in ["/v1/search", "/v1/search/batch", "/v1/stream/query"] {
        let search = json!({ "query": "x", "queries": [{ "query": "x" }] });
        let refused = host.send_post(path, "weir_0_0", &search).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        let search = if path.ends_with("batch") {
            json!({ "queries": [{ "query": "x" }] })
        } else {
            json!({ "query": "x" })
        };
        let refused = host.send_post(path, &no_reader, &search).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        let get = host.send_get(path, &key).await;
        assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
    assert_eq!(host.app.search_stream_limiter.open_stream_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn concurrent_queries_share_embedding_batches() {
    let bench = SearchHost::new(Settings::default());
    let host = &bench.host;
    *host.embedder.delay.lock() = Duration::from_millis(20);
    let (_, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let search = json!({ "query": "x" });
    let responses = join_all((0..32).map(|_| host.send_post("/v1/search", &key, &search))).await;
    assert!(responses.iter().all(|a| a.status() == StatusCode::OK));
    let calls = host.embedder.embed_calls.load(Ordering::Relaxed);
    assert_eq!(host.embedder.embedded_texts.load(Ordering::Relaxed), 32);
    assert!(calls <= 3, "{calls} calls for 32 queries");
    let queries: Vec<_> = (0..32).map(|n| json!({ "query": format!("q{n}") })).collect();
    let response = host
        .send_post("/v1/search/batch", &key, &json!({ "queries": queries }))
        .await;
    assert_eq!(body(response).await["results"].as_array().unwrap().len(), 32);
    assert_eq!(
        host.embedder.embed_calls.load(Ordering::Relaxed),
        calls + 1,
        "a batch is embedded with one call"
    );
}

#[tokio::test]
async fn batch_results_are_in_query_order() {
    let bench = SearchHost::new(Settings::default());
    let host = &bench.host;
    let (a, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    for n in 0..5 {
        store_point(
            host,
            &a,
            "c",
            point(&DocumentId::from_content(&[n]), 1, &format!("word{n}")),
        );
    }
    let queries: Vec<_> = [3, 0, 4, 9]
        .iter()
        .map(|n| json!({ "query": format!("word{n}") }))
        .collect();
    let response = host
        .send_post("/v1/search/batch", &key, &json!({ "queries": queries }))
        .await;
    let results = body(response).await;
    let first = |n: usize| results["results"][n]["hits"][0]["text"].as_str();
    assert_eq!(
        [first(0), first(1), first(2), first(3)],
        [Some("word3"), Some("word0"), Some("word4"), None]
    );
}

#[tokio::test]
async fn batch_beyond_capacity_fails_query_by_query() {
    let settings = Settings {
        query_stream_max_queued_queries: 2,
        ..Settings::default()
    };
    let bench = SearchHost::new(settings);
    let (_, key) = bench.host.create_tenant("a", &[KeyScope::Read]).await;
    let queries = json!({ "queries": vec![json!({ "query": "x" }); 3] });
    let results = body(bench.host.send_post("/v1/search/batch", &key, &queries).await).await;
    assert!(results["results"][1]["hits"].is_array());
    assert_eq!(results["results"][2]["problem"]["type"], "/problems/overloaded");
}

#[tokio::test]
async fn search_stream_ends_with_done() {
    let bench = SearchHost::new(Settings::default());
    let host = &bench.host;
    let (a, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    for page in 1..=3 {
        store_point(
            host,
            &a,
            "c",
            point(&DocumentId::from_content(b"d"), page, "word"),
        );
    }
    let response = host
        .send_post("/v1/stream/query", &key, &json!({ "query": "word", "top_k": 2 }))
        .await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();
    let events: Vec<(&str, Value)> = text
        .split_terminator("\n\n")
        .map(|block| {
            let (event, data) = block.split_once('\n').unwrap();
            let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            (event.strip_prefix("event: ").unwrap(), data)
        })
        .collect();
    let kinds: Vec<_> = events.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, ["hit", "hit", "done"]);
    assert_eq!(events[0].1["text"], "word");
    assert_eq!(events[2].1["hits"], 2);
    assert!(events[2].1["millis"].is_u64());
    host.app.search_stream_limiter.wait_until_closed().await;
}

#[tokio::test(start_paused = true)]
async fn search_streams_are_limited_in_number_and_time() {
    let settings = Settings {
        query_stream_max_streams: 3,
        query_stream_max_streams_per_tenant: 2,
        ..Settings::default()
    };
    let bench = SearchHost::new(settings);
    let host = &bench.host;
    *host.embedder.delay.lock() = Duration::from_secs(3600);
    let (_, a) = host.create_tenant("a", &[KeyScope::Read]).await;
    let (_, b) = host.create_tenant("b", &[KeyScope::Read]).await;
    let search = json!({ "query": "x" });
    let first = host.send_post("/v1/stream/query", &a, &search).await;
    let second = host.send_post("/v1/stream/query", &a, &search).await;
    let refused = host.send_post("/v1/stream/query", &a, &search).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    let _third = host.send_post("/v1/stream/query", &b, &search).await;
    assert_eq!(
        host.send_post("/v1/stream/query", &b, &search).await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    drop(second);
    let bytes = axum::body::to_bytes(first.into_body(), 1 << 20).await.unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();
    assert!(
        text.starts_with("event: problem\ndata: {\"type\":\"/problems/overloaded\""),
        "{text}"
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        host.app.search_stream_limiter.open_stream_count(),
        0,
        "the stream without a reader is also closed"
    );
}
