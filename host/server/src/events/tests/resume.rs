//! Tests that no event is lost or repeated, however often a client reconnects.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use tokio::task::JoinSet;
use weir_core::TenantId;
use weir_core::ledger::{JobState, LedgerEntry};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::KeyScope;

use super::super::event_feed::EventFeeds;
use super::super::event_reader::EventReader;
use super::{SseClient, TestRng};
use crate::commit_notifier::CommitNotifier;
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
    let mut dice = TestRng(7);
    let (mut last, mut written) = (0, 0);
    for round in 0..=50 {
        if round == 25 {
            // The host restarts with the same ledger.
            host = host.restart();
        }
        let (app, tenant) = (Arc::clone(&host.app), tenant.clone());
        let (mut writes, from) = (TestRng(round + 1), written + 1);
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
                commit_events(app.ledger.as_ref(), &tenant, job, next, to, ends).await;
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
    let answer = host.send(resume_request(&path, &key, last)).await;
    assert_eq!(answer.status(), 204, "an EventSource must not reconnect");
}

#[tokio::test]
async fn no_event_is_lost_between_ledger_and_recent_events() {
    // The writer and the readers interleave differently for each seed.
    for seed in 1..=300 {
        let host = TestHost::new();
        let tenant: TenantId = "a".parse().unwrap();
        let job = host.create_running_job(&tenant).await;
        let other = host.create_running_job(&tenant).await;
        let ledger = Arc::clone(&host.app.ledger);
        let mut dice = TestRng(seed);
        let total = 150 + dice.next_below(100);
        host.commit_events(&tenant, job, 1, 1 + dice.next_below(100), false)
            .await;
        let before = ledger
            .list_job_events(&tenant, &job, 0, 1000)
            .await
            .unwrap()
            .len() as u64;
        let feeds = Arc::new(EventFeeds::new(Arc::clone(&ledger)));
        let mut tasks = JoinSet::new();
        for reader in 0..4 {
            let (feeds, tenant) = (Arc::clone(&feeds), tenant.clone());
            let (mut pauses, after) = (TestRng(seed * 31 + reader), dice.next_below(before + 1));
            tasks.spawn(async move {
                let mut next = after + 1;
                let mut events = EventReader::for_job(&feeds, &tenant, job, after).await.unwrap();
                loop {
                    for told in events.next_events().await.unwrap() {
                        assert_eq!((told.seq, told.job), (next, job));
                        next += 1;
                        if told.ends_job {
                            assert_eq!(told.seq, total);
                            return;
                        }
                    }
                    for _ in 0..pauses.next_below(6) {
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
        let (mut next, mut noise) = (before + 1, 1);
        while next <= total {
            let to = (next + dice.next_below(20)).min(total);
            commit_events(ledger.as_ref(), &tenant, job, next, to, to == total).await;
            commit_events(ledger.as_ref(), &tenant, other, noise, noise, false).await;
            (next, noise) = (to + 1, noise + 1);
            for _ in 0..dice.next_below(10) {
                tokio::task::yield_now().await;
            }
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        assert_eq!(feeds.running_feeds(), 0, "the feed ends with its last reader");
    }
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
    let (mut written, mut dice) = (HashMap::from([(jobs[0], 3)]), TestRng(3));
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
    let first = host.app.ledger.list_tenant_events(&a, 3, 1).await.unwrap();
    assert_eq!(client.next_event_within_timeout().await.unwrap().id, first[0].0);
    // A stream can resume at any position.
    let mut resumed = SseClient::new(host.send(resume_request("/v1/events", &key, last - 1)).await);
    assert_eq!(resumed.next_event_within_timeout().await.unwrap().id, last);
    let answer = host.send(resume_request("/v1/events", &key, 1_000_000)).await;
    assert_eq!(answer.status(), 409);
}

#[tokio::test]
async fn readers_share_recent_events_and_a_slow_one_uses_the_ledger() {
    let host = TestHost::new();
    let tenant: TenantId = "a".parse().unwrap();
    let job = host.create_running_job(&tenant).await;
    let feeds = EventFeeds::new(Arc::clone(&host.app.ledger));
    let mut readers = Vec::new();
    for _ in 0..100 {
        readers.push(EventReader::for_job(&feeds, &tenant, job, 0).await.unwrap());
    }
    host.commit_events(&tenant, job, 1, 1, false).await;
    for reader in &mut readers {
        assert_eq!(reader.next_events().await.unwrap().len(), 1);
    }
    let mut behind = readers.pop().unwrap();
    let before = host.store.event_reads();
    for group in 0..100 {
        host.commit_events(&tenant, job, 2 + group * 30, 31 + group * 30, false)
            .await;
        for reader in &mut readers {
            let mut taken = 0;
            while taken < 30 {
                taken += reader.next_events().await.unwrap().len();
            }
        }
    }
    // The feed reads once or twice for each commit, and the 99 readers do not read from the ledger.
    let reads = host.store.event_reads() - before;
    assert!(reads <= 300, "{reads} reads");
    // Meanwhile 3,000 events were published; the last thousand of them are in memory.
    let before = host.store.event_reads();
    let mut next = 2;
    while next <= 3001 {
        for told in behind.next_events().await.unwrap() {
            assert_eq!(told.seq, next);
            next += 1;
        }
    }
    assert!(
        host.store.event_reads() - before >= 30,
        "the events must come from the ledger"
    );
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
    host.app.ledger.commit_entries(vec![again]).await.unwrap();
    let mut client = SseClient::new(host.send(resume_request(&path, &key, 3)).await);
    host.commit_events(&tenant, job, 4, 5, true).await;
    assert_eq!(client.next_event_within_timeout().await.unwrap().id, 4);
    assert_eq!(
        client.next_event_within_timeout().await.unwrap().kind,
        "job-ended"
    );
    assert_eq!(client.next_event_within_timeout().await, None);
}

#[tokio::test]
async fn commit_notifier_forwards_the_event_position() {
    // The commit notifier must not fall back to the default methods of the port.
    let host = TestHost::new();
    let tenant: TenantId = "a".parse().unwrap();
    let job = host.create_running_job(&tenant).await;
    host.commit_events(&tenant, job, 1, 5, false).await;
    let before = host.store.event_reads();
    let announced: &CommitNotifier = &host.app.ledger;
    assert_eq!(announced.last_tenant_event_position(&tenant).await.unwrap(), 5);
    assert_eq!(host.store.event_reads(), before, "no event was read for it");
}
