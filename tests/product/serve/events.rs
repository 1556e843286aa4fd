//! The event log over HTTP: every event once, in order, however often a client comes back and the host goes down.

use std::collections::BTreeMap;

use serde_json::Value;
use weir_tests::Weir;
use weir_tests::server::{Client, Server};

/// Reads at most `most` events after `after`; what came, and whether the job has ended.
fn some(client: &Client, job: &str, after: u64, most: usize, seen: &mut BTreeMap<u64, Value>) -> bool {
    for (id, event) in client.events(job, after).take(most) {
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
fn a_client_that_comes_back_fifty_times_sees_every_event_once_also_over_a_restart() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.admin();
    let job = client.job("book.pdf", &weir_samples::book(150, 11));
    let mut seen = BTreeMap::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut ended = false;
    for _ in 0..25 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
        let after = seen.last_key_value().map_or(0, |(id, _)| *id);
        ended = ended || some(&client, &job, after, 1 + (random >> 60) as usize, &mut seen);
    }
    assert!(!ended, "the host is to be killed in the middle");
    let key = client.key().to_owned();
    server.kill();

    let server = Server::start(&weir, &[]);
    let client = server.client(&key);
    for round in 0.. {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
        let after = seen.last_key_value().map_or(0, |(id, _)| *id);
        let most = if round < 25 {
            1 + (random >> 60) as usize
        } else {
            usize::MAX
        };
        if some(&client, &job, after, most, &mut seen) {
            break;
        }
    }
    let done: Vec<_> = seen.values().filter(|e| e["type"] == "document-done").collect();
    assert_eq!((done.len(), &done[0]["searchable"]), (1, &150.into()));

    // The whole log, read again, is what was seen piece by piece.
    let whole: BTreeMap<u64, Value> = client.events(&job, 0).collect();
    assert_eq!(whole, seen);
    server.stop();
}

#[test]
fn a_host_that_is_told_to_stop_goes_on_where_it_was() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.admin();
    let job = client.job("book.pdf", &weir_samples::book(150, 13));
    client
        .events(&job, 0)
        .find(|(_, e)| e["type"] == "page-done")
        .expect("a page");
    let key = client.key().to_owned();
    let ended = server.stop();
    assert_eq!(ended.code, 0, "{}", ended.errors);

    let server = Server::start(&weir, &[]);
    let events = server.client(&key).wait(&job);
    for (place, event) in (1..).zip(&events) {
        assert_eq!(event["seq"], place, "{event}");
    }
    let done = events.iter().rfind(|e| e["type"] == "document-done").unwrap();
    assert_eq!(done["searchable"], 150);
    let pages = events.iter().filter(|e| e["type"] == "page-done").count();
    assert_eq!(pages, 150, "each page is done once");
    server.stop();
}
