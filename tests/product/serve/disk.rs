//! A disk that fills beside a running server: what cannot be kept is refused, what is kept can be read, and with room again
//! everything goes on without a restart.

use serde_json::{Value, json};
use weir_tests::disk::SmallDisk;
use weir_tests::server::{Client, Server};
use weir_tests::{Weir, eventually};

const PAGES: usize = 24;

fn only<'a>(events: &'a [Value], kind: &str) -> &'a Value {
    let mut of_kind = events.iter().filter(|event| event["type"] == kind);
    let only = of_kind
        .next()
        .unwrap_or_else(|| panic!("no {kind} in {events:#?}"));
    assert_eq!(of_kind.next(), None);
    only
}

#[test]
fn a_disk_that_fills_and_is_freed_again() {
    let weir = Weir::new();
    let disk = SmallDisk::at(&weir.data(), 256);
    let server = Server::start(&weir, &["--set", "server.jobs=1"]);
    let (reader, writer) = (
        server.tenant("reader", json!({})),
        server.tenant("writer", json!({})),
    );
    let kept = reader.job("handbook.pdf", &weir_samples::all()[0].1);
    let document = only(&reader.wait(&kept), "document-done")["document"].clone();
    let long = writer.job("long.pdf", &weir_samples::book(PAGES, 5));
    let waiting = [1, 2].map(|n| writer.job("waiting.pdf", &weir_samples::text_document(2, n)));
    writer
        .events(&long, 0)
        .find(|(_, event)| event["type"] == "page-done")
        .expect("a page");

    disk.fill();
    let file = weir_samples::text_document(3, 9);
    let refused = writer.submit(&[("new.pdf", &file)], &json!({}), &[]);
    assert_eq!(
        (refused.status, refused.problem()),
        (507, "storage-full"),
        "{}",
        refused.body
    );
    // The job in work cannot go on. The others would fail just so, and wait instead.
    eventually(|| {
        let standings = waiting
            .each_ref()
            .map(|job| writer.get(&format!("/v1/jobs/{job}")).body);
        let held = standings
            .iter()
            .all(|job| job["state"] == "queued" && job["held"] == "storage");
        held.then_some(()).ok_or_else(|| format!("{standings:#?}"))
    });
    let standing = writer.get(&format!("/v1/jobs/{long}")).body;
    assert_ne!(standing["state"], "done", "{standing}");
    reads_go_on(&reader, &kept, document.as_str().unwrap());

    disk.free();
    let events = writer.wait(&long);
    let failed = only(&events, "document-failed");
    assert_eq!(failed["error"]["kind"], "storage-full", "{failed}");
    let said = failed["error"]["message"].as_str().unwrap();
    assert!(said.starts_with("no space left for "), "{said}");
    for job in &waiting {
        let done = writer.wait(job);
        assert_eq!(only(&done, "document-done")["searchable"], 2);
    }

    // What was done before is known, and the rest is done now: every page once.
    let again = writer.post(&format!("/v1/jobs/{long}/retry"), &json!({}));
    assert_eq!(again.status, 202, "{}", again.body);
    let events = writer.wait(again.body["id"].as_str().unwrap());
    let done = only(&events, "document-done");
    let before = only(&events, "document-started")["already_done"]
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
    let accepted = writer.submit(&[("new.pdf", &file)], &json!({}), &[]);
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    writer.wait(accepted.body["id"].as_str().unwrap());
    assert_eq!(server.stop().code, 0);
}

fn reads_go_on(reader: &Client, job: &str, document: &str) {
    for path in [
        "/v1/jobs".to_owned(),
        format!("/v1/jobs/{job}"),
        format!("/v1/jobs/{job}/events"),
        "/v1/documents".to_owned(),
        format!("/v1/documents/{document}"),
        format!("/v1/documents/{document}/markdown"),
        format!("/v1/documents/{document}/pages/1/image"),
    ] {
        let answer = reader.get(&path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    let query = json!({ "query": "Which of the three roller gates is opened first?" });
    let found = reader.post("/v1/search", &query);
    assert_eq!(found.body["hits"][0]["document"], document, "{}", found.body);
}
