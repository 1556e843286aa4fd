//! Tests of the documents API.

use axum::body::Body;
use axum::http::{StatusCode, header};
use serde_json::Value;
use weir_core::collection_and_labels::CollectionAndLabelsRequest;
use weir_core::event::ErrorInfo;
use weir_core::ledger::{DocumentRecord, FinalPageState, JobState, LedgerEntry, PageRecord};
use weir_core::page::OutlineEntry;
use weir_core::page_text::{Line, StoredPageText, TextSource};
use weir_core::ports::{BlobStore as _, Ledger as _};
use weir_core::search::{page_image_blob_key, page_lines_blob_key};
use weir_core::tenancy::KeyScope;
use weir_core::{DocumentId, JobId, Rect, RevisionId, TenantId};

use crate::fakes::{TestHost, job_record, parse_json};

fn document_record(tenant: &TenantId, id: DocumentId, created_millis: u64) -> DocumentRecord {
    DocumentRecord {
        id,
        tenant: tenant.clone(),
        name: "report.pdf".into(),
        bytes: 1234,
        pages: 5,
        title: Some("A <b>report</b>".into()),
        outline: vec![OutlineEntry {
            title: "One".into(),
            level: 1,
            page: Some(1),
        }],
        collection: "c".into(),
        labels: vec![("team".into(), "north".into())],
        requested_collection_and_labels: CollectionAndLabelsRequest::default(),
        created_millis,
    }
}

fn page_entry(tenant: &TenantId, document: DocumentId, page: u32, state: FinalPageState) -> LedgerEntry {
    LedgerEntry::Page(PageRecord {
        tenant: tenant.clone(),
        document,
        page,
        revision: RevisionId::from_content(b"r"),
        job: JobId::new(),
        state,
    })
}

/// Stores a document of 5 pages: 3 done, 1 failed, 1 not ended.
async fn store_sample_document(host: &TestHost, tenant: &TenantId, name: &str) -> DocumentId {
    let id = DocumentId::from_content(name.as_bytes());
    let mut entries = vec![LedgerEntry::Document(document_record(tenant, id, 1))];
    for number in 1..=3 {
        let (image, lines) = (
            page_image_blob_key(&id, number, 150, "jpg"),
            page_lines_blob_key(&id, number),
        );
        let stored = StoredPageText {
            document: id,
            page: number,
            width: 100.0,
            height: 100.0,
            source: TextSource::Ocr,
            lines: vec![Line {
                text: format!("Text of page {number}."),
                rect: Rect::WHOLE_PAGE,
                size: 10.0,
                confidence: 1.0,
            }],
        };
        host.blobs
            .put_blob(tenant, &image, format!("image {number}").as_bytes())
            .await
            .unwrap();
        host.blobs
            .put_blob(tenant, &lines, &serde_json::to_vec(&stored).unwrap())
            .await
            .unwrap();
        let state = FinalPageState::Done {
            source: TextSource::Ocr,
            passages: 2,
            image: Some(image),
            text: Some(lines),
        };
        entries.push(page_entry(tenant, id, number, state));
    }
    let error = ErrorInfo {
        kind: "page-unreadable".into(),
        message: "page 4 cannot be read".into(),
    };
    entries.push(page_entry(tenant, id, 4, FinalPageState::Failed { error }));
    host.control.ledger.commit_entries(entries).await.unwrap();
    id
}

async fn body_text(response: axum::http::Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn document_lists_the_outcome_of_its_pages() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let id = store_sample_document(&host, &a, "d").await;
    let document = parse_json(host.send_get(&format!("/v1/documents/{id}"), &key).await).await;
    assert_eq!(document["document"], id.to_string());
    assert_eq!(
        (&document["name"], &document["pages"]),
        (&"report.pdf".into(), &5.into())
    );
    assert_eq!(document["outline"][0]["title"], "One");
    assert_eq!(document["labels"]["team"], "north");
    let states: Vec<_> = document["page_states"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["state"])
        .collect();
    assert_eq!(states, ["done", "done", "done", "failed"]);
    assert_eq!(document["page_states"][3]["error"]["kind"], "page-unreadable");
    assert_eq!(document["next"], Value::Null);

    let part = parse_json(
        host.send_get(&format!("/v1/documents/{id}?after=1&limit=2"), &key)
            .await,
    )
    .await;
    let pages: Vec<_> = part["page_states"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["page"])
        .collect();
    assert_eq!(
        (pages, &part["next"]),
        (vec![&Value::from(2), &3.into()], &3.into())
    );

    let one = parse_json(host.send_get(&format!("/v1/documents/{id}/pages/2"), &key).await).await;
    assert_eq!((&one["source"], &one["passages"]), (&"ocr".into(), &2.into()));
    let link = one["image_url"].as_str().unwrap();
    let image = host
        .send(axum::http::Request::get(link).body(Body::empty()).unwrap())
        .await;
    assert!(
        image.headers()[header::CACHE_CONTROL]
            .to_str()
            .unwrap()
            .starts_with("private, max-age=")
    );
    assert_eq!(body_text(image).await, "image 2");
}

#[tokio::test]
async fn page_image_and_text_are_returned_as_stored() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let id = store_sample_document(&host, &a, "d").await;
    let image = host
        .send_get(&format!("/v1/documents/{id}/pages/3/image"), &key)
        .await;
    assert_eq!(image.headers()[header::CONTENT_TYPE], "image/jpeg");
    assert_eq!(image.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(
        image.headers()[header::CONTENT_DISPOSITION],
        "inline; filename=\"page-3.jpg\""
    );
    let tag = image.headers()[header::ETAG].clone();
    assert_eq!(body_text(image).await, "image 3");
    let mut again = TestHost::build_request(
        "GET",
        &format!("/v1/documents/{id}/pages/3/image"),
        &key,
        Body::empty(),
    );
    again.headers_mut().insert(header::IF_NONE_MATCH, tag);
    let again = host.send(again).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(body_text(again).await, "");

    let lines = parse_json(
        host.send_get(&format!("/v1/documents/{id}/pages/3/text"), &key)
            .await,
    )
    .await;
    assert_eq!(lines["lines"][0]["text"], "Text of page 3.");
    // A page that failed or has not ended has no image and no text.
    for path in [
        "pages/4/image",
        "pages/4/text",
        "pages/5",
        "pages/5/image",
        "pages/0",
        "pages/x",
        "pages/-1",
    ] {
        let response = host.send_get(&format!("/v1/documents/{id}/{path}"), &key).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn markdown_contains_the_requested_pages() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let id = store_sample_document(&host, &a, "d").await;
    let response = host.send_get(&format!("/v1/documents/{id}/markdown"), &key).await;
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/markdown; charset=utf-8"
    );
    let all = body_text(response).await;
    for part in [
        "# A \\<b\\>report\\</b\\>",
        "<!-- page 1 -->",
        "![Page 1](<pages/1/image>)",
        "Text of page 2.",
        "**Page 4 could not be read:** page 4 cannot be read",
    ] {
        assert!(all.contains(part), "{part} is missing in {all}");
    }
    let part = body_text(
        host.send_get(&format!("/v1/documents/{id}/markdown?from=2&to=3"), &key)
            .await,
    )
    .await;
    assert!(
        !part.contains("<!-- page 1 -->") && part.contains("<!-- page 3 -->") && !part.contains("page 4")
    );
    for range in ["from=0", "from=3&to=2", "from=x", "first=1"] {
        let response = host
            .send_get(&format!("/v1/documents/{id}/markdown?{range}"), &key)
            .await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{range}");
    }
}

#[tokio::test]
async fn document_list_is_paged_consistently_while_it_changes() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let (b, _) = host.create_tenant("b", &[KeyScope::Read]).await;
    let id = |n: u32| DocumentId::from_content(&n.to_be_bytes());
    // Several documents have the same creation time.
    let entries = (0..25)
        .map(|n| LedgerEntry::Document(document_record(&a, id(n), u64::from(n / 4))))
        .collect();
    host.control.ledger.commit_entries(entries).await.unwrap();
    host.control
        .ledger
        .commit_entries(vec![LedgerEntry::Document(document_record(&b, id(100), 3))])
        .await
        .unwrap();
    let (mut seen, mut cursor, mut parts) = (Vec::new(), String::new(), 0);
    loop {
        let list = parse_json(
            host.send_get(&format!("/v1/documents?limit=7{cursor}"), &key)
                .await,
        )
        .await;
        seen.extend(list["documents"].as_array().unwrap().iter().cloned());
        parts += 1;
        let Some(next) = list["next"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
        // Before the next part is read, the document of the cursor is removed and a newer one is added.
        let last: DocumentId = seen.last().unwrap()["document"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        host.control.ledger.erase_document(&a, &last).await.unwrap();
        let newer = LedgerEntry::Document(document_record(&a, id(1000 + parts), 99));
        host.control.ledger.commit_entries(vec![newer]).await.unwrap();
    }
    assert_eq!((seen.len(), parts), (25, 4));
    let ages: Vec<_> = seen
        .iter()
        .map(|d| d["created_millis"].as_u64().unwrap())
        .collect();
    assert!(ages.is_sorted_by(|one, next| one >= next));
    let mut ids: Vec<_> = seen.iter().map(|d| d["document"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 25, "each document is listed once");
    for wrong in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "cursor=x",
        "cursor=1-x",
        "page=2",
    ] {
        let response = host.send_get(&format!("/v1/documents?{wrong}"), &key).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn deleting_a_document_removes_everything_unless_a_job_uses_it() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Read, KeyScope::Ingest]).await;
    let id = store_sample_document(&host, &a, "d").await;
    let original = host.uploads.upload_path(&a, &id);
    std::fs::write(&original, b"d").unwrap();
    let path = format!("/v1/documents/{id}");
    let delete = || host.send(TestHost::build_request("DELETE", &path, &key, Body::empty()));

    let job = JobId::new();
    host.create_queued_job(&a, job, id).await;
    let refused = delete().await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    assert!(original.exists());
    let ended = LedgerEntry::Job(job_record(&a, job, JobState::Done));
    host.control.ledger.commit_entries(vec![ended]).await.unwrap();

    assert_eq!(delete().await.status(), StatusCode::NO_CONTENT);
    assert!(!original.exists());
    assert!(host.blobs.list_blob_keys(&a, "").await.unwrap().is_empty());
    assert_eq!(host.send_get(&path, &key).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(delete().await.status(), StatusCode::NOT_FOUND);
    // The deletion also removes a file whose job failed before reading it.
    std::fs::write(&original, b"d").unwrap();
    assert_eq!(delete().await.status(), StatusCode::NO_CONTENT);
    assert!(!original.exists());
}

#[tokio::test]
async fn document_of_another_tenant_is_not_found() {
    let host = TestHost::new();
    let (a, _) = host.create_tenant("a", &[KeyScope::Read, KeyScope::Ingest]).await;
    let (b, foreign) = host.create_tenant("b", &[KeyScope::Read, KeyScope::Ingest]).await;
    let (_, no_reader) = host.create_tenant("c", &[KeyScope::Components]).await;
    let id = store_sample_document(&host, &a, "d").await;
    store_sample_document(&host, &b, "another").await;
    let original = host.uploads.upload_path(&a, &id);
    std::fs::write(&original, b"d").unwrap();
    for path in ["", "/pages/1", "/pages/1/image", "/pages/1/text", "/markdown"] {
        let path = format!("/v1/documents/{id}{path}");
        assert_eq!(
            host.send_get(&path, &foreign).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
        assert_eq!(
            host.send_get(&path, &no_reader).await.status(),
            StatusCode::FORBIDDEN,
            "{path}"
        );
        assert_eq!(
            host.send_get(&path, "weir_0_0").await.status(),
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
    }
    let path = format!("/v1/documents/{id}");
    let delete = |key: &str| host.send(TestHost::build_request("DELETE", &path, key, Body::empty()));
    assert_eq!(delete(&foreign).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(delete(&no_reader).await.status(), StatusCode::FORBIDDEN);
    assert!(original.exists());
    assert_eq!(host.blobs.list_blob_keys(&a, "").await.unwrap().len(), 6);
    let list = parse_json(host.send_get("/v1/documents", &foreign).await).await;
    assert_eq!(list["documents"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn signed_link_is_valid_for_its_target_only() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let (b, _) = host.create_tenant("b", &[KeyScope::Read]).await;
    let id = store_sample_document(&host, &a, "d").await;
    store_sample_document(&host, &b, "d").await;
    let one = parse_json(host.send_get(&format!("/v1/documents/{id}/pages/1"), &key).await).await;
    let link = one["image_url"].as_str().unwrap();
    let get = |path: String| host.send(axum::http::Request::get(path).body(Body::empty()).unwrap());
    assert_eq!(get(link.to_owned()).await.status(), StatusCode::OK);
    for other in [
        link.replace("/files/a/", "/files/b/"),
        link.replace("/1/image", "/2/image"),
        link.replace("expires=1", "expires=2"),
        link.replace("signature=", "signature=x"),
        link.replace("/image/150.jpg", "/ocr.json"),
    ] {
        assert_ne!(other, link);
        assert_eq!(
            get(other.clone()).await.status(),
            StatusCode::FORBIDDEN,
            "{other}"
        );
    }
    let (path, _) = link.split_once('?').unwrap();
    assert_eq!(get(path.to_owned()).await.status(), StatusCode::BAD_REQUEST);
    // A link stops working when its blob or its tenant is removed.
    host.blobs.delete_blobs_with_prefix(&a, "").await.unwrap();
    assert_eq!(get(link.to_owned()).await.status(), StatusCode::NOT_FOUND);
    weir_core::tenancy::TenantStore::remove_tenant(host.store.as_ref(), &a)
        .await
        .unwrap();
    assert_eq!(get(link.to_owned()).await.status(), StatusCode::FORBIDDEN);
}
