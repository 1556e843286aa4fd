//! Tests of the view of a job while it is queued, while it runs, and after its end.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use weir_core::decision::{QueueState, StageTotals};
use weir_core::event::{ErrorInfo, Event, EventKind};
use weir_core::ledger::{FinalPageState, JobState, LedgerEntry, PageRecord};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::KeyScope;
use weir_core::{DocumentId, JobId, RevisionId, Stage};

use super::fetch_job_json;
use crate::fakes::{TestHost, accepted_job_id, multipart_form, parse_json as body, wait_until};

#[tokio::test]
async fn view_shows_the_progress_of_a_job() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest, KeyScope::Read]).await;
    let before = host.submit_accepted_file(&key, "1 pages").await;
    let job = host.submit_accepted_file(&key, "3 pages").await;
    let waiting = fetch_job_json(&host, &key, job).await;
    assert_eq!(
        (&waiting["state"], &waiting["position"], &waiting["lane"]),
        (&json!("queued"), &json!(2), &Value::Null)
    );
    assert_eq!(
        (&waiting["started_millis"], &waiting["ended_millis"]),
        (&Value::Null, &Value::Null)
    );
    let document = &waiting["documents"][0];
    assert_eq!(
        (&document["state"], &document["pages"], &document["done"]),
        (&json!("waiting"), &Value::Null, &json!(0))
    );

    host.send_delete(&format!("/v1/jobs/{before}"), &key).await;
    assert_eq!(fetch_job_json(&host, &key, job).await["position"], 1);
    host.processing.hold_pages();
    host.processing.release_pages(1);
    let _dispatching = host.spawn_dispatcher();
    let done = async || fetch_job_json(&host, &key, job).await["documents"][0]["done"] == 1;
    wait_until(host.control.ledger.subscribe_to_tenant_commits(&a), done).await;
    let running = fetch_job_json(&host, &key, job).await;
    assert_eq!(
        (&running["state"], &running["position"]),
        (&json!("running"), &Value::Null)
    );
    assert_eq!(
        (&running["cancelling"], &running["ended_millis"]),
        (&json!(false), &Value::Null)
    );
    let document = &running["documents"][0];
    assert_eq!(
        (&document["state"], &document["pages"]),
        (&json!("running"), &json!(3))
    );

    host.processing.release_pages(2);
    host.wait_for_job_state(&a, job, JobState::Done).await;
    let ended = fetch_job_json(&host, &key, job).await;
    assert_eq!(ended["state"], "done");
    let document = &ended["documents"][0];
    assert_eq!(
        (&document["state"], &document["done"], &document["failed"]),
        (&json!("done"), &json!(3), &json!(0))
    );
    let time = |name: &str| ended[name].as_u64().unwrap();
    assert!(time("created_millis") <= time("started_millis"));
    assert!(time("started_millis") <= time("ended_millis"));
    for same in ["id", "created_millis", "revision", "pipeline"] {
        assert_eq!(waiting[same], ended[same], "{same}");
    }
}

#[tokio::test]
async fn only_the_file_that_is_not_a_pdf_fails() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest, KeyScope::Read]).await;
    let parts = [
        ("file", Some("bad.pdf"), "nothing"),
        ("file", Some("good.pdf"), "2 pages"),
        ("file", Some("again.pdf"), "2 pages"),
    ];
    let job = accepted_job_id(
        host.send(TestHost::build_submission(&key, multipart_form(&parts)))
            .await,
    )
    .await;
    let _dispatching = host.spawn_dispatcher();
    host.wait_for_job_state(&a, job, JobState::Failed).await;
    let view = fetch_job_json(&host, &key, job).await;
    let documents: Vec<_> = view["documents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| {
            (
                d["name"].as_str().unwrap(),
                d["state"].as_str().unwrap(),
                d["done"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        documents,
        [
            ("bad.pdf", "failed", 0),
            ("good.pdf", "done", 2),
            ("again.pdf", "done", 2)
        ]
    );
    let error = &view["documents"][0]["error"];
    assert_eq!(error["kind"], "not-a-pdf", "{error}");
    assert_eq!(view["documents"][1]["error"], Value::Null);
}

#[tokio::test]
async fn page_is_waiting_and_then_links_to_its_lines() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest, KeyScope::Read]).await;
    let job = host.submit_accepted_file(&key, "3 pages").await;
    let page = async |page: &str| host.send_get(&format!("/v1/jobs/{job}/pages/{page}"), &key).await;
    assert_eq!(page("1").await.status(), 404, "the document is not opened yet");
    host.processing.hold_pages();
    host.processing.release_pages(1);
    let document = DocumentId::from_content(b"3 pages");
    let _dispatching = host.spawn_dispatcher();
    let pages = async || host.store.list_pages(&a, &document, None).await.unwrap();
    wait_until(host.control.ledger.subscribe_to_tenant_commits(&a), async || {
        pages().await.len() == 1
    })
    .await;
    let done = pages().await[0].page;
    for number in 1..=3 {
        let seen = body(page(&number.to_string()).await).await;
        assert_eq!(
            (&seen["page"], &seen["document"]),
            (&json!(number), &json!(document.to_string()))
        );
        if number != done {
            assert_eq!(
                (&seen["state"], &seen["lines_url"]),
                (&json!("waiting"), &Value::Null)
            );
            continue;
        }
        assert_eq!(
            (&seen["state"], &seen["source"]),
            (&json!("done"), &json!("text-layer"))
        );
        assert_eq!((&seen["image_url"], &seen["passages"]), (&Value::Null, &json!(0)));
        // The link needs no key.
        let link = Request::get(seen["lines_url"].as_str().unwrap());
        let lines = body(host.send(link.body(Body::empty()).unwrap()).await).await;
        assert_eq!(lines["page"], done);
    }
    for none in ["0", "4", "x", "-1", "99999999999"] {
        assert_eq!(page(none).await.status(), 404, "{none}");
    }
    host.processing.release_pages(2);
    host.wait_for_job_state(&a, job, JobState::Done).await;
    assert_eq!(body(page("2").await).await["state"], "done");
}

#[tokio::test]
async fn failed_page_has_its_error() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let (job, document) = (JobId::new(), DocumentId::from_content(b"d"));
    host.create_queued_job(&a, job, document).await;
    let error = ErrorInfo {
        kind: "page-unreadable".into(),
        message: "page 7 cannot be read".into(),
    };
    let record = PageRecord {
        tenant: a.clone(),
        document,
        page: 7,
        revision: RevisionId::from_content(b"revision"),
        job,
        state: FinalPageState::Failed { error },
    };
    host.store
        .commit_entries(vec![LedgerEntry::Page(record)])
        .await
        .unwrap();
    let page = body(host.send_get(&format!("/v1/jobs/{job}/pages/7"), &key).await).await;
    assert_eq!(
        (&page["state"], &page["error"]["kind"]),
        (&json!("failed"), &json!("page-unreadable"))
    );
}

#[tokio::test]
async fn page_request_must_name_one_of_several_documents() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest, KeyScope::Read]).await;
    let parts = [
        ("file", Some("a.pdf"), "1 pages"),
        ("file", Some("b.pdf"), "2 pages"),
    ];
    let job = accepted_job_id(
        host.send(TestHost::build_submission(&key, multipart_form(&parts)))
            .await,
    )
    .await;
    let twice = accepted_job_id(
        host.send(TestHost::build_submission(&key, multipart_form(&[parts[0]; 2])))
            .await,
    )
    .await;
    let _dispatching = host.spawn_dispatcher();
    host.wait_for_job_state(&a, job, JobState::Done).await;
    host.wait_for_job_state(&a, twice, JobState::Done).await;
    let second = DocumentId::from_content(b"2 pages");
    for (of, query, status) in [
        (job, String::new(), 409),
        (job, format!("?document={second}"), 200),
        (
            job,
            format!("?document={}", DocumentId::from_content(b"3 pages")),
            404,
        ),
        (job, "?document=b.pdf".into(), 400),
        (twice, String::new(), 200),
        (twice, format!("?document={second}"), 404),
    ] {
        let response = host
            .send_get(&format!("/v1/jobs/{of}/pages/1{query}"), &key)
            .await;
        assert_eq!(response.status(), status, "{query}");
    }
}

#[tokio::test]
async fn diagnosis_names_the_bottleneck_stage() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let job = JobId::new();
    host.create_queued_job(&a, job, DocumentId::from_content(b"d"))
        .await;
    let diagnosis = async || body(host.send_get(&format!("/v1/jobs/{job}/diagnosis"), &key).await).await;
    let first = diagnosis().await;
    assert_eq!(
        (&first["bottleneck"], &first["stages"]),
        (&Value::Null, &json!([]))
    );
    assert!(
        first["sentence"]
            .as_str()
            .unwrap()
            .contains("nothing can be said")
    );

    let queue = |stage, depth| QueueState {
        stage,
        depth,
        capacity: 8,
        workers: 2,
    };
    let commit = async |seq, what| {
        let event = Event {
            seq,
            job,
            document: Some(DocumentId::from_content(b"d")),
            since_job_created_millis: seq,
            kind: what,
        };
        let entry = LedgerEntry::Event(a.clone(), event);
        host.store.commit_entries(vec![entry]).await.unwrap();
    };
    for seq in 1..=10 {
        let what = EventKind::BatchRasterized {
            first_page: 1,
            pages: 1,
            dpi: 150,
            queues: vec![queue(Stage::Read, 8), queue(Stage::Store, 0)],
            stage_timings: Vec::new(),
        };
        commit(seq, what).await;
    }
    let then = diagnosis().await;
    assert_eq!(then["bottleneck"], "read");
    let sentence = then["sentence"].as_str().unwrap();
    assert!(sentence.contains("full in 10 of 10 samples"), "{sentence}");
    let ended = EventKind::JobEnded {
        state: JobState::Done,
        stages: vec![StageTotals {
            stage: Stage::Read,
            pages: 5,
            busy_millis: 1250,
            workers: 2,
        }],
    };
    commit(11, ended).await;
    let then = diagnosis().await;
    let read = then["stages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["stage"] == "read")
        .unwrap();
    assert_eq!(
        read,
        &json!({
            "stage": "read", "queue_samples": 10, "empty": 0, "full": 10, "workers": 2, "pages": 5, "busy_millis": 1250
        })
    );
}
