//! The event log over HTTP: a client sees every event once and in order, however often it reconnects and the host restarts.

use std::collections::BTreeMap;

use serde_json::Value;
use weir_tests::WeirFixture;
use weir_tests::server::{ApiClient, TestServer};

/// Reads at most `max_events` events after `after` into `seen`. Returns whether the job has ended.
fn read_events(
    client: &ApiClient,
    job: &str,
    after: u64,
    max_events: usize,
    seen: &mut BTreeMap<u64, Value>,
) -> bool {
    for (id, event) in client.follow_events(job, after).take(max_events) {
        assert_eq!(event["seq"], id, "{event}");
        let last = seen.last_key_value().map_or(0, |(id, _)| *id);
        assert_eq!(id, last + 1, "out of order or lost: {event}");
        let ended = event["type"] == "job-ended";
        assert!(seen.insert(id, event).is_none());
        if ended {
            return true;
        }
    }
    false
}

#[test]
fn client_reconnecting_across_a_restart_sees_every_event_once() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.admin_client();
    let job = client.submit_file("book.pdf", &weir_samples::generate_book(150, 11));
    let mut seen = BTreeMap::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut ended = false;
    for _ in 0..25 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
        let after = seen.last_key_value().map_or(0, |(id, _)| *id);
        ended = ended || read_events(&client, &job, after, 1 + (random >> 60) as usize, &mut seen);
    }
    assert!(!ended, "the host must be killed before the job ends");
    let key = client.key().to_owned();
    server.kill();

    let server = TestServer::start(&weir, &[]);
    let client = server.client_with_key(&key);
    for round in 0.. {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
        let after = seen.last_key_value().map_or(0, |(id, _)| *id);
        let max_events = if round < 25 {
            1 + (random >> 60) as usize
        } else {
            usize::MAX
        };
        if read_events(&client, &job, after, max_events, &mut seen) {
            break;
        }
    }
    let done: Vec<_> = seen.values().filter(|e| e["type"] == "document-done").collect();
    assert_eq!((done.len(), &done[0]["searchable"]), (1, &150.into()));

    // The whole log, read at once, equals the events that were read in parts.
    let whole: BTreeMap<u64, Value> = client.follow_events(&job, 0).collect();
    assert_eq!(whole, seen);
    server.stop();
}

#[test]
fn stopped_server_resumes_its_jobs_after_a_restart() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.admin_client();
    let job = client.submit_file("book.pdf", &weir_samples::generate_book(150, 13));
    client
        .follow_events(&job, 0)
        .find(|(_, e)| e["type"] == "page-done")
        .expect("a page is done");
    let key = client.key().to_owned();
    let ended = server.stop();
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);

    let server = TestServer::start(&weir, &[]);
    let events = server.client_with_key(&key).wait_for_job(&job);
    for (seq, event) in (1..).zip(&events) {
        assert_eq!(event["seq"], seq, "{event}");
    }
    let done = events.iter().rfind(|e| e["type"] == "document-done").unwrap();
    assert_eq!(done["searchable"], 150);
    let pages = events.iter().filter(|e| e["type"] == "page-done").count();
    assert_eq!(pages, 150, "each page is done once");
    server.stop();
}
