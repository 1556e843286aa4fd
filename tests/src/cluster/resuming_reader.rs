//! A client that reads the events of a job until its end, and connects again after each interruption.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::server::ApiClient;

/// Pause before the next connection.
const PAUSE: Duration = Duration::from_millis(200);
/// Time after which a job without a new event counts as lost.
const MAX_STANDSTILL: Duration = Duration::from_secs(300);

/// Reads the events of a job from this address until the job has ended. Returns the events as they were received, and the number of
/// connections.
pub fn read_events_across_interruptions(address: SocketAddr, key: &str, job: &str) -> (Vec<Value>, usize) {
    let (mut events, mut connections) = (Vec::<Value>::new(), 0);
    let mut last_event_at = Instant::now();
    loop {
        let after = events.last().map_or(0, |event| event["seq"].as_u64().unwrap());
        // A new client has no open connection to a node that was killed.
        let stream = ApiClient::new(address, key).try_follow_events(job, after);
        for (_, event) in stream.into_iter().filter(|stream| stream.status == 200).flatten() {
            last_event_at = Instant::now();
            events.push(event);
        }
        connections += 1;
        if events.last().is_some_and(|event| event["type"] == "job-ended") {
            return (events, connections);
        }
        assert!(
            last_event_at.elapsed() < MAX_STANDSTILL,
            "job {job} has no new event since {:?}",
            events.last()
        );
        sleep(PAUSE);
    }
}
