//! A full disk under a running server: writes are refused, stored data can be read, and once there is free space everything
//! continues without a restart.

use serde_json::{Value, json};
use weir_tests::server::{ApiClient, TestServer};
use weir_tests::small_disk::SmallDisk;
use weir_tests::{WeirFixture, wait_until};

const PAGES: usize = 24;

fn single_event<'a>(events: &'a [Value], kind: &str) -> &'a Value {
    let mut of_kind = events.iter().filter(|event| event["type"] == kind);
    let only = of_kind
        .next()
        .unwrap_or_else(|| panic!("no {kind} in {events:#?}"));
    assert_eq!(of_kind.next(), None);
    only
}

#[test]
fn full_disk_refuses_writes_and_jobs_resume_when_space_is_freed() {
    let weir = WeirFixture::new();
    let disk = SmallDisk::mount(&weir.data_folder(), 256);
    let server = TestServer::start(&weir, &["--set", "server.max_running_jobs=1"]);
    let (reader, writer) = (
        server.create_tenant("reader", json!({})),
        server.create_tenant("writer", json!({})),
    );
    let stored_job = reader.submit_file("handbook.pdf", &weir_samples::sample_files()[0].1);
    let document = single_event(&reader.wait_for_job(&stored_job), "document-done")["document"].clone();
    let long = writer.submit_file("long.pdf", &weir_samples::generate_book(PAGES, 5));
    let waiting =
        [1, 2].map(|n| writer.submit_file("waiting.pdf", &weir_samples::generate_text_document(2, n)));
    writer
        .follow_events(&long, 0)
        .find(|(_, event)| event["type"] == "page-done")
        .expect("a page is done");

    disk.fill();
    let file = weir_samples::generate_text_document(3, 9);
    let refused = writer.submit_files(&[("new.pdf", &file)], &json!({}), &[]);
    assert_eq!(
        (refused.status, refused.problem_type()),
        (507, "storage-full"),
        "{}",
        refused.body
    );
    // The running job cannot continue. The other jobs would fail too, so they stay in the queue.
    wait_until(|| {
        let jobs = waiting
            .each_ref()
            .map(|job| writer.get(&format!("/v1/jobs/{job}")).body);
        let are_held = jobs
            .iter()
            .all(|job| job["state"] == "queued" && job["held"] == "storage");
        are_held.then_some(()).ok_or_else(|| format!("{jobs:#?}"))
    });
    let job_view = writer.get(&format!("/v1/jobs/{long}")).body;
    assert_ne!(job_view["state"], "done", "{job_view}");
    assert_reads_work(&reader, &stored_job, document.as_str().unwrap());

    disk.free_space();
    let events = writer.wait_for_job(&long);
    let failed = single_event(&events, "document-failed");
    assert_eq!(failed["error"]["kind"], "storage-full", "{failed}");
    let message = failed["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("no space left for "), "{message}");
    for job in &waiting {
        let done = writer.wait_for_job(job);
        assert_eq!(single_event(&done, "document-done")["searchable"], 2);
    }

    // The retry keeps the finished pages and does the others: every page once.
    let again = writer.post(&format!("/v1/jobs/{long}/retry"), &json!({}));
    assert_eq!(again.status, 202, "{}", again.body);
    let events = writer.wait_for_job(again.body["id"].as_str().unwrap());
    let done = single_event(&events, "document-done");
    let before = single_event(&events, "document-started")["already_done"]
        .as_u64()
        .unwrap();
    let now = events.iter().filter(|e| e["type"] == "page-done").count();
    assert!(before > 0, "{done}");
    assert_eq!(before as usize + now, PAGES, "{done}");
    assert_eq!(
        (&done["pages"], &done["searchable"], &done["failed"]),
        (&PAGES.into(), &PAGES.into(), &json!([])),
        "{done}"
    );
    let accepted = writer.submit_files(&[("new.pdf", &file)], &json!({}), &[]);
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    writer.wait_for_job(accepted.body["id"].as_str().unwrap());
    assert_eq!(server.stop().exit_code, 0);
}

fn assert_reads_work(reader: &ApiClient, job: &str, document: &str) {
    for path in [
        "/v1/jobs".to_owned(),
        format!("/v1/jobs/{job}"),
        format!("/v1/jobs/{job}/events"),
        "/v1/documents".to_owned(),
        format!("/v1/documents/{document}"),
        format!("/v1/documents/{document}/markdown"),
        format!("/v1/documents/{document}/pages/1/image"),
    ] {
        let response = reader.get(&path);
        assert_eq!(response.status, 200, "{path}: {}", response.body);
    }
    let query = json!({ "query": "Which of the three roller gates is opened first?" });
    let found = reader.post("/v1/search", &query);
    assert_eq!(found.body["hits"][0]["document"], document, "{}", found.body);
}
