//! Operating system resources of the server: it raises its limit of descriptors, and abusive clients leak no resources.

use serde_json::json;
use weir_tests::WeirFixture;
use weir_tests::abusive_requests::{
    RawUpload, send_endless_continuation, send_endless_header, send_endless_headers, trickle_header_bytes,
};
use weir_tests::event_follower::{EventFollower, EventTransport};
use weir_tests::server::{ApiClient, TestServer};
use weir_tests::server_resources::ResourceCounts;
use weir_tests::small_disk::SmallDisk;

use super::slow_event_readers::{dropped_readers, wait_until_dropped};

#[test]
fn soft_limit_of_open_files_is_raised_to_the_hard_limit() {
    let weir = WeirFixture::new();
    let server = TestServer::start_with_descriptor_limit(&weir, 256);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let fields: Vec<_> = line.unwrap().split_whitespace().collect();
    assert_eq!(fields[0], fields[1], "soft and hard: {fields:?}");
    assert_ne!(
        fields[1], "256",
        "the hard limit of this machine is too low for this test"
    );
    server.stop();
}

/// Runs the abusive requests of the other tests one after the other, cancels a job and fills the disk.
fn abuse_server(server: &TestServer, key: &str, disk: &SmallDisk) {
    let address = server.address;
    for flood in [
        send_endless_headers,
        send_endless_header,
        send_endless_continuation,
    ] {
        flood(address);
    }
    trickle_header_bytes(address);
    let upload = RawUpload::new(address, key, &weir_samples::generate_text_document(3, 1));
    upload.stall_midway();
    upload.end_body_early();
    upload.send_beyond_length();
    upload.send_endless_chunks();
    upload.disconnect_midway();

    let client = server.client_with_key(key);
    let (job, before) = (
        submit_forced_job(&client, &weir_samples::document_of_empty_pages(500)),
        dropped_readers(&client),
    );
    let stuck = [EventTransport::ServerSentEvents, EventTransport::WebSocket]
        .map(|transport| EventFollower::connect_slow_reader(address, key, &job, transport));
    wait_until_dropped(&client, before + stuck.len());
    stuck.into_iter().for_each(|stuck| drop(stuck.read_events()));

    let job = submit_forced_job(&client, &weir_samples::generate_book(60, 3));
    let mut events = client.follow_events(&job, 0);
    events
        .find(|(_, event)| event["type"] == "page-done")
        .expect("a page is done");
    assert_eq!(client.delete(&format!("/v1/jobs/{job}")).status, 202);
    let (_, last) = events.last().unwrap();
    assert_eq!(last["state"], "cancelled", "{last}");

    disk.fill();
    let refused = client.submit_files(
        &[("a.pdf", &weir_samples::generate_text_document(3, 2))],
        &json!({}),
        &[],
    );
    assert_eq!(refused.problem_type(), "storage-full", "{}", refused.body);
    disk.free_space();
}

/// Submits a job that does all pages again, even if they are done. Returns its id.
fn submit_forced_job(client: &ApiClient, file: &[u8]) -> String {
    let response = client.submit_files(&[("file.pdf", file)], &json!({ "force": true }), &[]);
    assert_eq!(response.status, 202, "{}", response.body);
    response.body["id"].as_str().unwrap().to_owned()
}

#[test]
fn abusive_clients_leak_no_server_resources() {
    let weir = WeirFixture::new();
    let disk = SmallDisk::mount(&weir.data_folder(), 256);
    let settings = [
        "server.transfer_idle_timeout_seconds=1",
        "server.header_timeout_seconds=1",
        "server.max_upload_bytes=4194304",
    ];
    let server = TestServer::start(&weir, &settings.map(|setting| ["--set", setting]).concat());
    let key = server.admin_client().key().to_owned();
    // The first round creates everything that is created on first use: workers, ledger connections, models.
    abuse_server(&server, &key, &disk);
    let before = ResourceCounts::count_when_idle(server.pid(), &weir.data_folder());
    eprintln!("{before:#?}");
    abuse_server(&server, &key, &disk);
    before.wait_until_restored(server.pid(), &weir.data_folder());
    server.stop();
}
