//! Documents as their clients see them.

use axum::body::Body;
use axum::http::{StatusCode, header};
use serde_json::Value;
use weir_core::event::ErrorNote;
use weir_core::filing::Filing;
use weir_core::ledger::{DocumentRecord, Entry, JobState, PageRecord, PageState};
use weir_core::original::Originals as _;
use weir_core::page::OutlineEntry;
use weir_core::ports::{BlobStore as _, Ledger as _};
use weir_core::search::{image_key, lines_key};
use weir_core::tenancy::Scope;
use weir_core::text::{Line, PageLines, TextSource};
use weir_core::{DocumentId, JobId, Rect, RevisionId, TenantId};

use crate::fakes::{Host, job_record, json};

fn record(tenant: &TenantId, id: DocumentId, created_millis: u64) -> DocumentRecord {
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
        requested: Filing::default(),
        created_millis,
    }
}

fn page(tenant: &TenantId, document: DocumentId, page: u32, state: PageState) -> Entry {
    Entry::Page(PageRecord {
        tenant: tenant.clone(),
        document,
        page,
        revision: RevisionId::of(b"r"),
        job: JobId::new(),
        state,
    })
}

/// A document of 5 pages: 3 done, 1 failed, 1 not ended.
async fn ingest(host: &Host, tenant: &TenantId, name: &str) -> DocumentId {
    let id = DocumentId::of(name.as_bytes());
    let mut entries = vec![Entry::Document(record(tenant, id, 1))];
    for number in 1..=3 {
        let (image, lines) = (image_key(&id, number, 150, "jpg"), lines_key(&id, number));
        let stored = PageLines {
            document: id,
            page: number,
            width: 100.0,
            height: 100.0,
            source: TextSource::Ocr,
            lines: vec![Line {
                text: format!("Text of page {number}."),
                rect: Rect::PAGE,
                size: 10.0,
                confidence: 1.0,
            }],
        };
        host.blobs
            .put(tenant, &image, format!("image {number}").as_bytes())
            .await
            .unwrap();
        host.blobs
            .put(tenant, &lines, &serde_json::to_vec(&stored).unwrap())
            .await
            .unwrap();
        let state = PageState::Done {
            source: TextSource::Ocr,
            passages: 2,
            image: Some(image),
            text: Some(lines),
        };
        entries.push(page(tenant, id, number, state));
    }
    let error = ErrorNote {
        kind: "page-unreadable".into(),
        message: "page 4 cannot be read".into(),
    };
    entries.push(page(tenant, id, 4, PageState::Failed { error }));
    host.app.ledger.commit(entries).await.unwrap();
    id
}

async fn text(response: axum::http::Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_document_says_what_became_of_its_pages() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Read]).await;
    let id = ingest(&host, &a, "d").await;
    let document = json(host.get(&format!("/v1/documents/{id}"), &key).await).await;
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

    let part = json(
        host.get(&format!("/v1/documents/{id}?after=1&limit=2"), &key)
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

    let one = json(host.get(&format!("/v1/documents/{id}/pages/2"), &key).await).await;
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
    assert_eq!(text(image).await, "image 2");
}

#[tokio::test]
async fn image_and_text_of_a_page_come_as_they_are_stored() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Read]).await;
    let id = ingest(&host, &a, "d").await;
    let image = host.get(&format!("/v1/documents/{id}/pages/3/image"), &key).await;
    assert_eq!(image.headers()[header::CONTENT_TYPE], "image/jpeg");
    assert_eq!(image.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(
        image.headers()[header::CONTENT_DISPOSITION],
        "inline; filename=\"page-3.jpg\""
    );
    let tag = image.headers()[header::ETAG].clone();
    assert_eq!(text(image).await, "image 3");
    let mut again = Host::request(
        "GET",
        &format!("/v1/documents/{id}/pages/3/image"),
        &key,
        Body::empty(),
    );
    again.headers_mut().insert(header::IF_NONE_MATCH, tag);
    let again = host.send(again).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(text(again).await, "");

    let lines = json(host.get(&format!("/v1/documents/{id}/pages/3/text"), &key).await).await;
    assert_eq!(lines["lines"][0]["text"], "Text of page 3.");
    // What failed or has not ended has neither.
    for path in [
        "pages/4/image",
        "pages/4/text",
        "pages/5",
        "pages/5/image",
        "pages/0",
        "pages/x",
        "pages/-1",
    ] {
        let answer = host.get(&format!("/v1/documents/{id}/{path}"), &key).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn markdown_is_what_a_run_writes() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Read]).await;
    let id = ingest(&host, &a, "d").await;
    let answer = host.get(&format!("/v1/documents/{id}/markdown"), &key).await;
    assert_eq!(
        answer.headers()[header::CONTENT_TYPE],
        "text/markdown; charset=utf-8"
    );
    let all = text(answer).await;
    for part in [
        "# A \\<b\\>report\\</b\\>",
        "<!-- page 1 -->",
        "![Page 1](<pages/1/image>)",
        "Text of page 2.",
        "**Page 4 could not be read:** page 4 cannot be read",
    ] {
        assert!(all.contains(part), "{part} is not in {all}");
    }
    let part = text(
        host.get(&format!("/v1/documents/{id}/markdown?from=2&to=3"), &key)
            .await,
    )
    .await;
    assert!(
        !part.contains("<!-- page 1 -->") && part.contains("<!-- page 3 -->") && !part.contains("page 4")
    );
    for range in ["from=0", "from=3&to=2", "from=x", "first=1"] {
        let answer = host
            .get(&format!("/v1/documents/{id}/markdown?{range}"), &key)
            .await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{range}");
    }
}

#[tokio::test]
async fn the_list_is_read_part_by_part_though_it_changes() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Read]).await;
    let (b, _) = host.tenant("b", &[Scope::Read]).await;
    let id = |n: u32| DocumentId::of(&n.to_be_bytes());
    // Several have the same age.
    let entries = (0..25)
        .map(|n| Entry::Document(record(&a, id(n), u64::from(n / 4))))
        .collect();
    host.app.ledger.commit(entries).await.unwrap();
    host.app
        .ledger
        .commit(vec![Entry::Document(record(&b, id(100), 3))])
        .await
        .unwrap();
    let (mut seen, mut cursor, mut parts) = (Vec::new(), String::new(), 0);
    loop {
        let list = json(host.get(&format!("/v1/documents?limit=7{cursor}"), &key).await).await;
        seen.extend(list["documents"].as_array().unwrap().iter().cloned());
        parts += 1;
        let Some(next) = list["next"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
        // What the cursor names is gone by the next part, and newer ones have come.
        let last: DocumentId = seen.last().unwrap()["document"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        host.app.ledger.forget(&a, &last).await.unwrap();
        let newer = Entry::Document(record(&a, id(1000 + parts), 99));
        host.app.ledger.commit(vec![newer]).await.unwrap();
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
    assert_eq!(ids.len(), 25, "each once");
    for wrong in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "cursor=x",
        "cursor=1-x",
        "page=2",
    ] {
        let answer = host.get(&format!("/v1/documents?{wrong}"), &key).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn a_document_is_deleted_with_everything_unless_a_job_has_it() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Read, Scope::Ingest]).await;
    let id = ingest(&host, &a, "d").await;
    let original = host.files.path(&a, &id);
    std::fs::write(&original, b"d").unwrap();
    let path = format!("/v1/documents/{id}");
    let delete = || host.send(Host::request("DELETE", &path, &key, Body::empty()));

    let job = JobId::new();
    host.order(&a, job, id).await;
    let refused = delete().await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    assert!(original.exists());
    let ended = Entry::Job(job_record(&a, job, JobState::Done));
    host.app.ledger.commit(vec![ended]).await.unwrap();

    assert_eq!(delete().await.status(), StatusCode::NO_CONTENT);
    assert!(!original.exists());
    assert!(host.blobs.list(&a, "").await.unwrap().is_empty());
    assert_eq!(host.get(&path, &key).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(delete().await.status(), StatusCode::NOT_FOUND);
    // A file whose job failed before it was read goes as well.
    std::fs::write(&original, b"d").unwrap();
    assert_eq!(delete().await.status(), StatusCode::NO_CONTENT);
    assert!(!original.exists());
}

#[tokio::test]
async fn a_foreign_document_does_not_exist() {
    let host = Host::new();
    let (a, _) = host.tenant("a", &[Scope::Read, Scope::Ingest]).await;
    let (b, foreign) = host.tenant("b", &[Scope::Read, Scope::Ingest]).await;
    let (_, no_reader) = host.tenant("c", &[Scope::Components]).await;
    let id = ingest(&host, &a, "d").await;
    ingest(&host, &b, "another").await;
    let original = host.files.path(&a, &id);
    std::fs::write(&original, b"d").unwrap();
    for path in ["", "/pages/1", "/pages/1/image", "/pages/1/text", "/markdown"] {
        let path = format!("/v1/documents/{id}{path}");
        assert_eq!(
            host.get(&path, &foreign).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
        assert_eq!(
            host.get(&path, &no_reader).await.status(),
            StatusCode::FORBIDDEN,
            "{path}"
        );
        assert_eq!(
            host.get(&path, "weir_0_0").await.status(),
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
    }
    let path = format!("/v1/documents/{id}");
    let delete = |key: &str| host.send(Host::request("DELETE", &path, key, Body::empty()));
    assert_eq!(delete(&foreign).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(delete(&no_reader).await.status(), StatusCode::FORBIDDEN);
    assert!(original.exists());
    assert_eq!(host.blobs.list(&a, "").await.unwrap().len(), 6);
    let list = json(host.get("/v1/documents", &foreign).await).await;
    assert_eq!(list["documents"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_link_is_of_no_use_for_anything_else() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Read]).await;
    let (b, _) = host.tenant("b", &[Scope::Read]).await;
    let id = ingest(&host, &a, "d").await;
    ingest(&host, &b, "d").await;
    let one = json(host.get(&format!("/v1/documents/{id}/pages/1"), &key).await).await;
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
    // It ends with its tenant, and with what it leads to.
    host.blobs.delete(&a, "").await.unwrap();
    assert_eq!(get(link.to_owned()).await.status(), StatusCode::NOT_FOUND);
    weir_core::tenancy::Registry::remove_tenant(host.memory.as_ref(), &a)
        .await
        .unwrap();
    assert_eq!(get(link.to_owned()).await.status(), StatusCode::FORBIDDEN);
}
