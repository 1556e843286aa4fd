//! Tests that no event is lost or repeated, however often a client reconnects.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use weir_control::testing::TestRng;
use weir_core::ledger::{JobState, LedgerEntry};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::KeyScope;

use super::SseClient;
use crate::fakes::{TestHost, commit_events, job_record};

fn resume_request(path: &str, key: &str, last: u64) -> Request<Body> {
    let mut request = TestHost::build_request("GET", path, key, Body::empty());
    if last > 0 {
        request.headers_mut().insert("last-event-id", last.into());
    }
    request
}

#[tokio::test]
async fn random_reconnects_get_every_event_once_and_in_order() {
    const EVENTS: u64 = 5000;
    let mut host = TestHost::new();
    let (tenant, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let job = host.create_running_job(&tenant).await;
    let path = format!("/v1/jobs/{job}/events");
    let mut dice = TestRng::new(7);
    let (mut last, mut written) = (0, 0);
    for round in 0..=50 {
        if round == 25 {
            // The host restarts with the same ledger.
            host = host.restart();
        }
        let (control, tenant) = (Arc::clone(&host.control), tenant.clone());
        let (mut writes, from) = (TestRng::new(round + 1), written + 1);
        let until = if round == 50 {
            EVENTS
        } else {
            written + dice.next_below(EVENTS / 51) + 1
        };
        let writer = tokio::spawn(async move {
            let mut next = from;
            while next <= until {
                let to = (next + writes.next_below(30)).min(until);
                let ends = to == EVENTS;
                commit_events(control.ledger.as_ref(), &tenant, job, next, to, ends).await;
                next = to + 1;
                for _ in 0..writes.next_below(8) {
                    tokio::task::yield_now().await;
                }
            }
        });
        written = until;
        let mut client = SseClient::new(host.send(resume_request(&path, &key, last)).await);
        // The client disconnects anywhere, even between two events of one chunk.
        let enough = if round == 50 {
            u64::MAX
        } else {
            last + dice.next_below(until - last + 1)
        };
        while last < enough {
            let Some(event) = client.next_event_within_timeout().await else {
                break;
            };
            assert_eq!(event.id, last + 1, "round {round}");
            assert_eq!(event.data["seq"], event.id);
            last = event.id;
        }
        drop(client);
        writer.await.unwrap();
    }
    assert_eq!(last, EVENTS);
    let response = host.send(resume_request(&path, &key, last)).await;
    assert_eq!(response.status(), 204, "an EventSource must not reconnect");
}

#[tokio::test]
async fn tenant_stream_has_all_own_events_by_position() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let (b, _) = host.create_tenant("b", &[KeyScope::Read]).await;
    let jobs = [
        host.create_running_job(&a).await,
        host.create_running_job(&a).await,
        host.create_running_job(&b).await,
    ];
    host.commit_events(&a, jobs[0], 1, 3, false).await;
    // Without a position, a stream starts with the next event.
    let mut client = SseClient::new(host.send_get("/v1/events", &key).await);
    let mut from_start = SseClient::new(host.send_get("/v1/events?after=0", &key).await);
    let (mut written, mut dice) = (HashMap::from([(jobs[0], 3)]), TestRng::new(3));
    for _ in 0..400 {
        let job = jobs[dice.next_below(3) as usize];
        let tenant = if job == jobs[2] { &b } else { &a };
        let seq = written.entry(job).or_insert(0);
        host.commit_events(tenant, job, *seq + 1, *seq + 1, false).await;
        *seq += 1;
    }
    let of_a = written[&jobs[0]] + written[&jobs[1]];
    let (mut last, mut seen) = (0, HashMap::new());
    for _ in 0..of_a {
        let event = from_start.next_event_within_timeout().await.unwrap();
        assert!(event.id > last);
        last = event.id;
        let job: weir_core::JobId = event.data["job"].as_str().unwrap().parse().unwrap();
        let seq = seen.entry(job).or_insert(0);
        *seq += 1;
        assert_eq!(event.data["seq"], *seq);
    }
    assert!(!seen.contains_key(&jobs[2]));
    let first = host.control.ledger.list_tenant_events(&a, 3, 1).await.unwrap();
    assert_eq!(client.next_event_within_timeout().await.unwrap().id, first[0].0);
    // A stream can resume at any position.
    let mut resumed = SseClient::new(host.send(resume_request("/v1/events", &key, last - 1)).await);
    assert_eq!(resumed.next_event_within_timeout().await.unwrap().id, last);
    let response = host.send(resume_request("/v1/events", &key, 1_000_000)).await;
    assert_eq!(response.status(), 409);
}

#[tokio::test(start_paused = true)]
async fn readers_wait_out_a_ledger_that_cannot_be_read() {
    let host = TestHost::new();
    let (tenant, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let job = host.create_running_job(&tenant).await;
    let mut client = SseClient::new(host.send_get(&format!("/v1/jobs/{job}/events"), &key).await);
    host.commit_events(&tenant, job, 1, 1, false).await;
    assert_eq!(client.next_event_within_timeout().await.unwrap().id, 1);
    host.store.set_failing(true);
    host.commit_events(&tenant, job, 2, 3, true).await;
    assert!(
        tokio::time::timeout(std::time::Duration::from_secs(5), client.next_event())
            .await
            .is_err()
    );
    host.store.set_failing(false);
    assert_eq!(client.next_event_within_timeout().await.unwrap().id, 2);
    assert_eq!(
        client.next_event_within_timeout().await.unwrap().kind,
        "job-ended"
    );
    assert_eq!(client.next_event_within_timeout().await, None);
}

#[tokio::test]
async fn restarted_job_continues_its_event_numbers() {
    let host = TestHost::new();
    let (tenant, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let job = host.create_running_job(&tenant).await;
    let path = format!("/v1/jobs/{job}/events");
    host.commit_events(&tenant, job, 1, 3, true).await;
    let mut client = SseClient::new(host.send_get(&path, &key).await);
    for id in 1..=3 {
        assert_eq!(client.next_event_within_timeout().await.unwrap().id, id);
    }
    assert_eq!(client.next_event_within_timeout().await, None);
    let again = LedgerEntry::Job(job_record(&tenant, job, JobState::Running));
    host.control.ledger.commit_entries(vec![again]).await.unwrap();
    let mut client = SseClient::new(host.send(resume_request(&path, &key, 3)).await);
    host.commit_events(&tenant, job, 4, 5, true).await;
    assert_eq!(client.next_event_within_timeout().await.unwrap().id, 4);
    assert_eq!(
        client.next_event_within_timeout().await.unwrap().kind,
        "job-ended"
    );
    assert_eq!(client.next_event_within_timeout().await, None);
}
