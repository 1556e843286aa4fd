//! What the server holds of the machine: as many descriptors as it may have, and after any misuse no more than before it.

use serde_json::json;
use weir_tests::Weir;
use weir_tests::disk::SmallDisk;
use weir_tests::holdings::Holdings;
use weir_tests::misuse::{
    Upload, continuation_without_end, header_without_end, headers_without_end, trickle,
};
use weir_tests::server::{Client, Server};
use weir_tests::stuck::{Follower, Way};

use super::readers::{dropped, until_dropped};

#[test]
fn a_low_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let weir = Weir::new();
    let server = Server::with_few_descriptors(&weir, 256);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let fields: Vec<_> = line.unwrap().split_whitespace().collect();
    assert_eq!(fields[0], fields[1], "soft and hard: {fields:?}");
    assert_ne!(
        fields[1], "256",
        "the hard limit of this machine is too low to see anything"
    );
    server.stop();
}

/// Everything that the other tests do to a server, one after the other.
fn misuse(server: &Server, key: &str, disk: &SmallDisk) {
    let address = server.address;
    for flood in [headers_without_end, header_without_end, continuation_without_end] {
        flood(address);
    }
    trickle(address);
    let upload = Upload::of(address, key, &weir_samples::text_document(3, 1));
    upload.stalls();
    upload.ends_early();
    upload.is_longer_than_said();
    upload.never_ends();
    upload.breaks_off();

    let client = server.client(key);
    let (job, before) = (redo(&client, &weir_samples::empty_pages(500)), dropped(&client));
    let stuck = [Way::ServerSentEvents, Way::WebSocket].map(|way| Follower::stuck(address, key, &job, way));
    until_dropped(&client, before + stuck.len());
    stuck.into_iter().for_each(|stuck| drop(stuck.read()));

    let job = redo(&client, &weir_samples::book(60, 3));
    let mut events = client.events(&job, 0);
    events
        .find(|(_, event)| event["type"] == "page-done")
        .expect("a page");
    assert_eq!(client.delete(&format!("/v1/jobs/{job}")).status, 202);
    let (_, last) = events.last().unwrap();
    assert_eq!(last["state"], "cancelled", "{last}");

    disk.fill();
    let refused = client.submit(&[("a.pdf", &weir_samples::text_document(3, 2))], &json!({}), &[]);
    assert_eq!(refused.problem(), "storage-full", "{}", refused.body);
    disk.free();
}

/// A job that does all of its file, as if nothing of it had been done.
fn redo(client: &Client, file: &[u8]) -> String {
    let answer = client.submit(&[("file.pdf", file)], &json!({ "force": true }), &[]);
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body["id"].as_str().unwrap().to_owned()
}

#[test]
fn after_any_misuse_nothing_is_held_that_was_not_held_before() {
    let weir = Weir::new();
    let disk = SmallDisk::at(&weir.data(), 256);
    let settings = [
        "server.stall_seconds=1",
        "server.header_seconds=1",
        "server.upload_bytes=4194304",
    ];
    let server = Server::start(&weir, &settings.map(|setting| ["--set", setting]).concat());
    let key = server.admin().key().to_owned();
    // Once for all that is made when it is first needed: workers, connections to the ledger, models.
    misuse(&server, &key, &disk);
    let before = Holdings::at_rest(server.pid(), &weir.data());
    eprintln!("{before:#?}");
    misuse(&server, &key, &disk);
    before.come_back(server.pid(), &weir.data());
    server.stop();
}
