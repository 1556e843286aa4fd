//! Event followers that do not read: they delay no other client, use little memory, are dropped, and miss no event when they
//! reconnect.

use serde_json::Value;
use weir_tests::event_follower::{EventFollower, EventTransport};
use weir_tests::processes::PeakMemoryGrowth;
use weir_tests::server::{ApiClient, TestServer};
use weir_tests::{WeirFixture, wait_until};

const TRANSPORTS: [EventTransport; 2] = [EventTransport::ServerSentEvents, EventTransport::WebSocket];

/// Returns the number of followers that the server dropped because they did not read.
pub(super) fn dropped_readers(admin: &ApiClient) -> usize {
    admin.metric_value("weir_event_streams_too_slow_total") as usize
}

/// Waits until the server has dropped this many followers.
pub(super) fn wait_until_dropped(admin: &ApiClient, followers: usize) {
    wait_until(|| match dropped_readers(admin) {
        dropped if dropped == followers => Ok(()),
        dropped => Err(format!(
            "{dropped} of {followers} followers that do not read are dropped"
        )),
    });
}

#[track_caller]
fn assert_numbered_from(first: u64, events: &[Value]) {
    for (seq, event) in (first..).zip(events) {
        assert_eq!(event["seq"], seq, "{event}");
    }
}

/// Concurrent followers in the memory measurement.
const FOLLOWER_COUNT: usize = 100;
/// Memory limit for each follower: the connection's 64 KiB write buffer and some groups of 64 events on their way to it.
const MAX_BYTES_PER_FOLLOWER: u64 = 192 << 10;

#[test]
fn dropped_event_reader_reconnects_and_misses_no_event() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &["--set", "server.transfer_idle_timeout_seconds=1"]);
    let client = server.admin_client();
    let job = client.submit_file("nothing.pdf", &weir_samples::document_of_empty_pages(1000));
    let stuck = TRANSPORTS.map(|transport| {
        (
            transport,
            EventFollower::connect_slow_reader(server.address, client.key(), &job, transport),
        )
    });
    // A client that reads gets all events meanwhile.
    let events = client.wait_for_job(&job);
    assert_numbered_from(1, &events);
    wait_until_dropped(&client, stuck.len());
    for (transport, stuck) in stuck {
        let mut seen = stuck.read_events();
        assert_numbered_from(1, &seen);
        let last = seen.len();
        assert!(
            (1..events.len()).contains(&last),
            "{transport:?}: {last} of {}",
            events.len()
        );
        let rest = EventFollower::connect_after(server.address, client.key(), &job, transport, last as u64)
            .read_events();
        assert_numbered_from(last as u64 + 1, &rest);
        seen.extend(rest);
        assert_eq!(seen, events, "{transport:?}");
        eprintln!("{transport:?}: dropped after {last} of {} events", events.len());
    }
    assert_followers_use_little_memory(&server, &client, &job, &events);
    server.stop();
}

/// Measures the memory that many followers of a finished job use. No job runs, so all growth is theirs.
fn assert_followers_use_little_memory(server: &TestServer, client: &ApiClient, job: &str, events: &[Value]) {
    let log: usize = events.iter().map(|event| event.to_string().len()).sum();
    assert!(
        log as u64 > 2 * MAX_BYTES_PER_FOLLOWER,
        "a log of {log} bytes fits into the allowed memory"
    );
    let (growth, before) = (PeakMemoryGrowth::start(server.pid()), dropped_readers(client));
    let transports = TRANSPORTS.iter().cycle().take(FOLLOWER_COUNT);
    let stuck: Vec<_> = transports
        .map(|transport| EventFollower::connect_slow_reader(server.address, client.key(), job, *transport))
        .collect();
    wait_until_dropped(client, before + stuck.len());
    let grown = growth.peak_growth_bytes();
    eprintln!(
        "{FOLLOWER_COUNT} followers that do not read {} KiB of events: {} KiB of memory each",
        log >> 10,
        (grown >> 10) / FOLLOWER_COUNT as u64
    );
    assert!(
        grown <= FOLLOWER_COUNT as u64 * MAX_BYTES_PER_FOLLOWER,
        "memory grew by {grown} bytes for {FOLLOWER_COUNT} followers"
    );
}
