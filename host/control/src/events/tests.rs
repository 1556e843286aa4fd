//! Tests that readers get every event once and in order, from the ledger and from the recent events.

use std::sync::Arc;

use tokio::task::JoinSet;
use weir_core::TenantId;
use weir_core::ports::Ledger as _;

use super::{EventReader, TenantEventFeeds};
use crate::commit_notifier::CommitNotifier;
use crate::testing::{TestControl, TestRng, commit_events};

#[tokio::test]
async fn no_event_is_lost_between_ledger_and_recent_events() {
    // The writer and the readers interleave differently for each seed.
    for seed in 1..=300 {
        let host = TestControl::new();
        let tenant: TenantId = "a".parse().unwrap();
        let job = host.create_running_job(&tenant).await;
        let other = host.create_running_job(&tenant).await;
        let ledger = Arc::clone(&host.control.ledger);
        let mut dice = TestRng::new(seed);
        let total = 150 + dice.next_below(100);
        host.commit_events(&tenant, job, 1, 1 + dice.next_below(100), false)
            .await;
        let before = ledger
            .list_job_events(&tenant, &job, 0, 1000)
            .await
            .unwrap()
            .len() as u64;
        let feeds = Arc::new(TenantEventFeeds::new(Arc::clone(&ledger)));
        let mut tasks = JoinSet::new();
        for reader in 0..4 {
            let (feeds, tenant) = (Arc::clone(&feeds), tenant.clone());
            let (mut pauses, after) = (TestRng::new(seed * 31 + reader), dice.next_below(before + 1));
            tasks.spawn(async move {
                let mut next = after + 1;
                let mut events = EventReader::for_job(&feeds, &tenant, job, after).await.unwrap();
                loop {
                    for event in events.next_events().await.unwrap() {
                        assert_eq!((event.seq, event.job), (next, job));
                        next += 1;
                        if event.ends_job {
                            assert_eq!(event.seq, total);
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
        assert_eq!(
            feeds.count_running_feeds(),
            0,
            "the feed ends with its last reader"
        );
    }
}

#[tokio::test]
async fn readers_share_recent_events_and_a_slow_one_uses_the_ledger() {
    let host = TestControl::new();
    let tenant: TenantId = "a".parse().unwrap();
    let job = host.create_running_job(&tenant).await;
    let feeds = TenantEventFeeds::new(Arc::clone(&host.control.ledger));
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
        for event in behind.next_events().await.unwrap() {
            assert_eq!(event.seq, next);
            next += 1;
        }
    }
    assert!(
        host.store.event_reads() - before >= 30,
        "the events must come from the ledger"
    );
}

#[tokio::test]
async fn commit_notifier_forwards_the_event_position() {
    // The commit notifier must not fall back to the default methods of the port.
    let host = TestControl::new();
    let tenant: TenantId = "a".parse().unwrap();
    let job = host.create_running_job(&tenant).await;
    host.commit_events(&tenant, job, 1, 5, false).await;
    let before = host.store.event_reads();
    let announced: &CommitNotifier = &host.control.ledger;
    assert_eq!(announced.last_tenant_event_position(&tenant).await.unwrap(), 5);
    assert_eq!(host.store.event_reads(), before, "no event was read for it");
}
