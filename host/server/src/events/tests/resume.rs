//! Nothing is lost and nothing comes twice, however often a client comes back.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use tokio::task::JoinSet;
use weir_core::TenantId;
use weir_core::ledger::{Entry, JobState};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::Scope;

use super::super::feed::Feeds;
use super::super::reader::Reader;
use super::{Client, Dice};
use crate::fakes::{Host, commit_events, job_record};
use crate::hub::Announced;

fn resuming(path: &str, key: &str, last: u64) -> Request<Body> {
    let mut request = Host::request("GET", path, key, Body::empty());
    if last > 0 {
        request.headers_mut().insert("last-event-id", last.into());
    }
    request
}

#[tokio::test]
async fn fifty_reconnects_at_random_see_every_event_once_and_in_order_also_over_a_restart() {
    const EVENTS: u64 = 5000;
    let mut host = Host::new();
    let (tenant, key) = host.tenant("a", &[Scope::Read]).await;
    let job = host.job(&tenant).await;
    let path = format!("/v1/jobs/{job}/events");
    let mut dice = Dice(7);
    let (mut last, mut written) = (0, 0);
    for round in 0..=50 {
        if round == 25 {
            // The host is started again over the same ledger.
            host = host.again();
        }
        let (app, tenant) = (Arc::clone(&host.app), tenant.clone());
        let (mut writes, from) = (Dice(round + 1), written + 1);
        let until = if round == 50 {
            EVENTS
        } else {
            written + dice.roll(EVENTS / 51) + 1
        };
        let writer = tokio::spawn(async move {
            let mut next = from;
            while next <= until {
                let to = (next + writes.roll(30)).min(until);
                let ends = to == EVENTS;
                commit_events(app.ledger.as_ref(), &tenant, job, next, to, ends).await;
                next = to + 1;
                for _ in 0..writes.roll(8) {
                    tokio::task::yield_now().await;
                }
            }
        });
        written = until;
        let mut client = Client::new(host.send(resuming(&path, &key, last)).await);
        // Breaks off somewhere, perhaps between two events of one chunk.
        let enough = if round == 50 {
            u64::MAX
        } else {
            last + dice.roll(until - last + 1)
        };
        while last < enough {
            let Some(event) = client.soon().await else {
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
    let answer = host.send(resuming(&path, &key, last)).await;
    assert_eq!(answer.status(), 204, "an EventSource stays away");
}

#[tokio::test]
async fn no_event_is_lost_where_replay_meets_what_follows() {
    // Writer and readers interleave differently in each of these.
    for seed in 1..=300 {
        let host = Host::new();
        let tenant: TenantId = "a".parse().unwrap();
        let job = host.job(&tenant).await;
        let other = host.job(&tenant).await;
        let ledger = Arc::clone(&host.app.ledger);
        let mut dice = Dice(seed);
        let total = 150 + dice.roll(100);
        host.events(&tenant, job, 1, 1 + dice.roll(100), false).await;
        let before = ledger.events(&tenant, &job, 0, 1000).await.unwrap().len() as u64;
        let feeds = Arc::new(Feeds::new(Arc::clone(&ledger)));
        let mut tasks = JoinSet::new();
        for reader in 0..4 {
            let (feeds, tenant) = (Arc::clone(&feeds), tenant.clone());
            let (mut pauses, after) = (Dice(seed * 31 + reader), dice.roll(before + 1));
            tasks.spawn(async move {
                let mut next = after + 1;
                let mut events = Reader::of_job(&feeds, &tenant, job, after).await.unwrap();
                loop {
                    for told in events.next().await.unwrap() {
                        assert_eq!((told.seq, told.job), (next, job));
                        next += 1;
                        if told.last {
                            assert_eq!(told.seq, total);
                            return;
                        }
                    }
                    for _ in 0..pauses.roll(6) {
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
        let (mut next, mut noise) = (before + 1, 1);
        while next <= total {
            let to = (next + dice.roll(20)).min(total);
            commit_events(ledger.as_ref(), &tenant, job, next, to, to == total).await;
            commit_events(ledger.as_ref(), &tenant, other, noise, noise, false).await;
            (next, noise) = (to + 1, noise + 1);
            for _ in 0..dice.roll(10) {
                tokio::task::yield_now().await;
            }
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        assert_eq!(feeds.running(), 0, "the feed ends with its last reader");
    }
}

#[tokio::test]
async fn a_tenant_reads_all_its_jobs_by_place_and_nobody_elses() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Read]).await;
    let (b, _) = host.tenant("b", &[Scope::Read]).await;
    let jobs = [host.job(&a).await, host.job(&a).await, host.job(&b).await];
    host.events(&a, jobs[0], 1, 3, false).await;
    // From now on, unless a place is named.
    let mut client = Client::new(host.get("/v1/events", &key).await);
    let mut from_start = Client::new(host.get("/v1/events?after=0", &key).await);
    let (mut written, mut dice) = (HashMap::from([(jobs[0], 3)]), Dice(3));
    for _ in 0..400 {
        let job = jobs[dice.roll(3) as usize];
        let tenant = if job == jobs[2] { &b } else { &a };
        let seq = written.entry(job).or_insert(0);
        host.events(tenant, job, *seq + 1, *seq + 1, false).await;
        *seq += 1;
    }
    let of_a = written[&jobs[0]] + written[&jobs[1]];
    let (mut last, mut seen) = (0, HashMap::new());
    for _ in 0..of_a {
        let event = from_start.soon().await.unwrap();
        assert!(event.id > last);
        last = event.id;
        let job: weir_core::JobId = event.data["job"].as_str().unwrap().parse().unwrap();
        let seq = seen.entry(job).or_insert(0);
        *seq += 1;
        assert_eq!(event.data["seq"], *seq);
    }
    assert!(!seen.contains_key(&jobs[2]));
    let first = host.app.ledger.tenant_events(&a, 3, 1).await.unwrap();
    assert_eq!(client.soon().await.unwrap().id, first[0].0);
    // It resumes anywhere.
    let mut resumed = Client::new(host.send(resuming("/v1/events", &key, last - 1)).await);
    assert_eq!(resumed.soon().await.unwrap().id, last);
    let answer = host.send(resuming("/v1/events", &key, 1_000_000)).await;
    assert_eq!(answer.status(), 409);
}

#[tokio::test]
async fn readers_share_what_is_read_and_one_that_is_far_behind_reads_by_itself() {
    let host = Host::new();
    let tenant: TenantId = "a".parse().unwrap();
    let job = host.job(&tenant).await;
    let feeds = Feeds::new(Arc::clone(&host.app.ledger));
    let mut readers = Vec::new();
    for _ in 0..100 {
        readers.push(Reader::of_job(&feeds, &tenant, job, 0).await.unwrap());
    }
    host.events(&tenant, job, 1, 1, false).await;
    for reader in &mut readers {
        assert_eq!(reader.next().await.unwrap().len(), 1);
    }
    let mut behind = readers.pop().unwrap();
    let before = host.memory.reads();
    for group in 0..100 {
        host.events(&tenant, job, 2 + group * 30, 31 + group * 30, false)
            .await;
        for reader in &mut readers {
            let mut taken = 0;
            while taken < 30 {
                taken += reader.next().await.unwrap().len();
            }
        }
    }
    // The follower reads once or twice for each commit, and the 99 readers nothing.
    let reads = host.memory.reads() - before;
    assert!(reads <= 300, "{reads} reads");
    // 3,000 events were told meanwhile; the last thousand of them are kept.
    let before = host.memory.reads();
    let mut next = 2;
    while next <= 3001 {
        for told in behind.next().await.unwrap() {
            assert_eq!(told.seq, next);
            next += 1;
        }
    }
    assert!(host.memory.reads() - before >= 30, "it came from the ledger");
}

#[tokio::test(start_paused = true)]
async fn readers_wait_out_a_ledger_that_cannot_be_read() {
    let host = Host::new();
    let (tenant, key) = host.tenant("a", &[Scope::Read]).await;
    let job = host.job(&tenant).await;
    let mut client = Client::new(host.get(&format!("/v1/jobs/{job}/events"), &key).await);
    host.events(&tenant, job, 1, 1, false).await;
    assert_eq!(client.soon().await.unwrap().id, 1);
    host.memory.fail(true);
    host.events(&tenant, job, 2, 3, true).await;
    assert!(
        tokio::time::timeout(std::time::Duration::from_secs(5), client.next())
            .await
            .is_err()
    );
    host.memory.fail(false);
    assert_eq!(client.soon().await.unwrap().id, 2);
    assert_eq!(client.soon().await.unwrap().kind, "job-ended");
    assert_eq!(client.soon().await, None);
}

#[tokio::test]
async fn a_job_that_is_tried_again_goes_on_behind_its_end() {
    let host = Host::new();
    let (tenant, key) = host.tenant("a", &[Scope::Read]).await;
    let job = host.job(&tenant).await;
    let path = format!("/v1/jobs/{job}/events");
    host.events(&tenant, job, 1, 3, true).await;
    let mut client = Client::new(host.get(&path, &key).await);
    for id in 1..=3 {
        assert_eq!(client.soon().await.unwrap().id, id);
    }
    assert_eq!(client.soon().await, None);
    let again = Entry::Job(job_record(&tenant, job, JobState::Running));
    host.app.ledger.commit(vec![again]).await.unwrap();
    let mut client = Client::new(host.send(resuming(&path, &key, 3)).await);
    host.events(&tenant, job, 4, 5, true).await;
    assert_eq!(client.soon().await.unwrap().id, 4);
    assert_eq!(client.soon().await.unwrap().kind, "job-ended");
    assert_eq!(client.soon().await, None);
}

#[tokio::test]
async fn the_bell_passes_on_what_a_ledger_knows_better() {
    // Announced must not fall back to the port's own way of finding these.
    let host = Host::new();
    let tenant: TenantId = "a".parse().unwrap();
    let job = host.job(&tenant).await;
    host.events(&tenant, job, 1, 5, false).await;
    let before = host.memory.reads();
    let announced: &Announced = &host.app.ledger;
    assert_eq!(announced.tenant_place(&tenant).await.unwrap(), 5);
    assert_eq!(host.memory.reads(), before, "no event was read for it");
}
