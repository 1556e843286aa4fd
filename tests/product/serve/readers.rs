//! Followers of events that do not read: they hold nobody up, cost little, are dropped, and miss nothing when they come back.

use serde_json::Value;
use weir_tests::processes::Growth;
use weir_tests::server::{Client, Server};
use weir_tests::stuck::{Follower, Way};
use weir_tests::{Weir, eventually};

const WAYS: [Way; 2] = [Way::ServerSentEvents, Way::WebSocket];

/// Followers that were dropped for taking nothing.
pub(super) fn dropped(admin: &Client) -> usize {
    admin.measured("weir_event_readers_dropped_total") as usize
}

/// Waits until so many were.
pub(super) fn until_dropped(admin: &Client, followers: usize) {
    eventually(|| match dropped(admin) {
        dropped if dropped == followers => Ok(()),
        dropped => Err(format!(
            "{dropped} of {followers} followers that take nothing are dropped"
        )),
    });
}

#[track_caller]
fn numbered_from(first: u64, events: &[Value]) {
    for (place, event) in (first..).zip(events) {
        assert_eq!(event["seq"], place, "{event}");
    }
}

/// Followers at one time.
const FOLLOWERS: usize = 100;
/// What each may cost: the connection's 64 KiB of what is written, and some groups of 64 events on their way there.
const BYTES_EACH: u64 = 192 << 10;

#[test]
fn a_reader_that_never_reads_is_dropped_and_comes_back_for_all_it_missed() {
    let weir = Weir::new();
    let server = Server::start(&weir, &["--set", "server.stall_seconds=1"]);
    let client = server.admin();
    let job = client.job("nothing.pdf", &weir_samples::empty_pages(1000));
    let stuck = WAYS.map(|way| (way, Follower::stuck(server.address, client.key(), &job, way)));
    // Whoever reads has it all meanwhile.
    let events = client.wait(&job);
    numbered_from(1, &events);
    until_dropped(&client, stuck.len());
    for (way, stuck) in stuck {
        let mut seen = stuck.read();
        numbered_from(1, &seen);
        let last = seen.len();
        assert!(
            (1..events.len()).contains(&last),
            "{way:?}: {last} of {}",
            events.len()
        );
        let rest = Follower::after(server.address, client.key(), &job, way, last as u64).read();
        numbered_from(last as u64 + 1, &rest);
        seen.extend(rest);
        assert_eq!(seen, events, "{way:?}");
        eprintln!("{way:?}: dropped after {last} of {} events", events.len());
    }
    many_cost_little(&server, &client, &job, &events);
    server.stop();
}

/// Many followers of a job that has ended: whatever the host's memory grows by is for them.
fn many_cost_little(server: &Server, client: &Client, job: &str, events: &[Value]) {
    let log: usize = events.iter().map(|event| event.to_string().len()).sum();
    assert!(log as u64 > 2 * BYTES_EACH, "{log} bytes would fit anywhere");
    let (growth, before) = (Growth::of(server.pid()), dropped(client));
    let ways = WAYS.iter().cycle().take(FOLLOWERS);
    let stuck: Vec<_> = ways
        .map(|way| Follower::stuck(server.address, client.key(), job, *way))
        .collect();
    until_dropped(client, before + stuck.len());
    let grown = growth.most();
    eprintln!(
        "{FOLLOWERS} such followers of {} KiB of events: {} KiB of memory each",
        log >> 10,
        (grown >> 10) / FOLLOWERS as u64
    );
    assert!(
        grown <= FOLLOWERS as u64 * BYTES_EACH,
        "memory grew by {grown} bytes for {FOLLOWERS} followers"
    );
}
