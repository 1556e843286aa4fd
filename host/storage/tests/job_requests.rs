//! Job requests: written with their jobs, once for each idempotency key.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use std::path::Path;
use std::sync::Arc;

use fixture::{
    document_id, make_idempotency, make_job, make_job_request, make_tenant, open_storage, tenant_id,
};
use weir_conformance::list_files_containing;
use weir_core::TenantId;
use weir_core::job_request::{
    JobFilter, JobRequest, JobRequestStore, PutRequestOutcome, RequestedFile, WebhookTarget,
};
use weir_core::ledger::{JobRecord, JobState, LedgerEntry};
use weir_core::ports::{BlobStore, Ledger};
use weir_core::tenancy::TenantStore;
use weir_core::usage::{Usage, UsageStore};
use weir_storage::SqliteLedger;

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;

async fn put_job_request(ledger: &SqliteLedger, record: &JobRecord) -> PutRequestOutcome {
    ledger
        .create_job_with_request(record, &make_job_request(record), None)
        .await
        .unwrap()
}

fn filter_all_jobs(limit: usize) -> JobFilter {
    JobFilter {
        limit,
        ..JobFilter::default()
    }
}

#[tokio::test]
async fn job_request_and_job_are_found_by_their_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let record = make_job(&a, JobState::Queued, 5);
    assert_eq!(
        put_job_request(&storage.ledger, &record).await,
        PutRequestOutcome::Created
    );
    storage.close().await.unwrap();

    let storage = open_storage(dir.path()).await;
    let ledger = &storage.ledger;
    assert_eq!(
        ledger.find_job_request(&a, &record.id).await.unwrap(),
        Some(make_job_request(&record))
    );
    assert_eq!(ledger.find_job_request(&b, &record.id).await.unwrap(), None);
    assert_eq!(
        ledger.find_job(&a, &record.id).await.unwrap(),
        Some(record.clone())
    );
    assert_eq!(
        ledger.list_unfinished_jobs().await.unwrap(),
        std::slice::from_ref(&record)
    );
    // An accepted job request cannot be written again, and its job keeps its state.
    let running = JobRecord {
        state: JobState::Running,
        ..record.clone()
    };
    ledger
        .commit_entries(vec![LedgerEntry::Job(running.clone())])
        .await
        .unwrap();
    let again = ledger
        .create_job_with_request(
            &record,
            &make_job_request(&record),
            Some(&make_idempotency("w", 1)),
        )
        .await;
    assert_eq!(again.unwrap_err().kind(), "storage-failed");
    assert_eq!(ledger.find_job(&a, &record.id).await.unwrap(), Some(running));
    // The failed call wrote nothing, not even the idempotency key.
    let other = make_job(&a, JobState::Queued, 6);
    let put = ledger
        .create_job_with_request(&other, &make_job_request(&other), Some(&make_idempotency("w", 2)))
        .await;
    assert_eq!(put.unwrap(), PutRequestOutcome::Created);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn idempotency_key_makes_one_job_per_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let put = async |t: &TenantId, digest_byte| {
        let record = make_job(t, JobState::Queued, 1);
        let put = storage
            .ledger
            .create_job_with_request(
                &record,
                &make_job_request(&record),
                Some(&make_idempotency("w", digest_byte)),
            )
            .await;
        (record.id, put.unwrap())
    };
    let (first, new) = put(&a, 1).await;
    assert_eq!(new, PutRequestOutcome::Created);
    let (second, before) = put(&a, 1).await;
    assert_eq!(before, PutRequestOutcome::AlreadyCreated(first));
    assert_eq!(put(&a, 2).await.1, PutRequestOutcome::KeyConflict);
    let earlier = storage
        .ledger
        .find_request_by_idempotency_key(&a, "w")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (earlier.job, earlier.request_digest),
        (first, make_idempotency("w", 1).request_digest)
    );
    assert_eq!(
        storage
            .ledger
            .find_request_by_idempotency_key(&a, "other")
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        storage
            .ledger
            .find_request_by_idempotency_key(&b, "w")
            .await
            .unwrap(),
        None
    );
    assert_eq!(put(&b, 2).await.1, PutRequestOutcome::Created);
    assert_eq!(storage.ledger.find_job(&a, &second).await.unwrap(), None);
    assert_eq!(storage.ledger.find_job_request(&a, &second).await.unwrap(), None);
    assert_eq!(
        storage
            .ledger
            .list_jobs(&a, &filter_all_jobs(10))
            .await
            .unwrap()
            .len(),
        1
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn of_fifty_concurrent_requests_with_one_key_one_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    for round in 0..5 {
        let puts = (0..50).map(|_| {
            let (ledger, record) = (Arc::clone(&storage.ledger), make_job(&t, JobState::Queued, 1));
            tokio::spawn(async move {
                let idempotency = make_idempotency(&format!("w{round}"), 1);
                let put = ledger
                    .create_job_with_request(&record, &make_job_request(&record), Some(&idempotency))
                    .await
                    .unwrap();
                (record.id, put)
            })
        });
        let mut outcomes = Vec::new();
        for put in puts.collect::<Vec<_>>() {
            outcomes.push(put.await.unwrap());
        }
        let new: Vec<_> = outcomes
            .iter()
            .filter(|(_, put)| *put == PutRequestOutcome::Created)
            .collect();
        assert_eq!(new.len(), 1);
        let others = outcomes
            .iter()
            .filter(|(_, put)| *put == PutRequestOutcome::AlreadyCreated(new[0].0))
            .count();
        assert_eq!(others, 49);
    }
    assert_eq!(
        storage
            .ledger
            .list_jobs(&t, &filter_all_jobs(1000))
            .await
            .unwrap()
            .len(),
        5
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn idempotency_key_is_known_for_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let put = async |key: &str, at| {
        let record = make_job(&t, JobState::Queued, at);
        let idempotency = make_idempotency(key, 1);
        storage
            .ledger
            .create_job_with_request(&record, &make_job_request(&record), Some(&idempotency))
            .await
            .unwrap()
    };
    let begin = 50 * DAY_MILLIS;
    for n in 0..20 {
        assert_eq!(put(&format!("w{n}"), begin).await, PutRequestOutcome::Created);
    }
    assert_ne!(put("w0", begin + DAY_MILLIS).await, PutRequestOutcome::Created);
    assert_eq!(put("other", begin + DAY_MILLIS).await, PutRequestOutcome::Created);
    assert_ne!(put("w1", begin + DAY_MILLIS).await, PutRequestOutcome::Created);
    // Later requests delete expired keys.
    for n in 0..10 {
        assert_eq!(
            put(&format!("x{n}"), begin + DAY_MILLIS + 1).await,
            PutRequestOutcome::Created
        );
    }
    for n in 0..20 {
        assert_eq!(
            put(&format!("w{n}"), begin + DAY_MILLIS + 1).await,
            PutRequestOutcome::Created
        );
    }
    storage.close().await.unwrap();
}

#[tokio::test]
async fn jobs_are_listed_newest_first_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let mut made = Vec::new();
    for n in 0..25_u64 {
        let state = if n % 5 == 0 {
            JobState::Failed
        } else {
            JobState::Done
        };
        let record = make_job(&a, state, n);
        put_job_request(&storage.ledger, &record).await;
        put_job_request(&storage.ledger, &make_job(&b, state, n)).await;
        made.push(record);
    }
    made.reverse();
    let (mut seen, mut filter) = (Vec::new(), filter_all_jobs(10));
    loop {
        let piece = storage.ledger.list_jobs(&a, &filter).await.unwrap();
        assert!(piece.len() <= 10);
        let Some(last) = piece.last() else { break };
        filter.before = Some(last.id);
        seen.extend(piece);
    }
    assert_eq!(seen, made);
    let failed = JobFilter {
        state: Some(JobState::Failed),
        before: Some(made[4].id),
        limit: 3,
    };
    let failed = storage.ledger.list_jobs(&a, &failed).await.unwrap();
    let expected = made.iter().skip(5).filter(|j| j.state == JobState::Failed);
    assert_eq!(failed, expected.take(3).cloned().collect::<Vec<_>>());
    storage.close().await.unwrap();
}

#[tokio::test]
async fn passwords_of_ended_jobs_leave_the_ledger_files() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let secret = "swordfish-of-the-test";
    let mut records = Vec::new();
    for n in 0..20 {
        let record = make_job(&t, JobState::Queued, n);
        let mut request = make_job_request(&record);
        request.files.push(RequestedFile {
            name: "locked.pdf".into(),
            document: document_id("locked"),
            bytes: 9,
            password: Some(secret.into()),
        });
        storage
            .ledger
            .create_job_with_request(&record, &request, None)
            .await
            .unwrap();
        records.push(record);
    }
    assert!(!list_files_containing(dir.path(), secret).is_empty());
    for record in &records {
        end_job(&storage.ledger, record).await;
        let request = storage
            .ledger
            .find_job_request(&t, &record.id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(request.files.len(), 2);
        assert!(request.files.iter().all(|file| file.password.is_none()));
    }
    wait_until_not_in_files(dir.path(), secret).await;
    storage.close().await.unwrap();
    assert_eq!(list_files_containing(dir.path(), secret), Vec::<String>::new());
}

/// Commits the end of a job.
async fn end_job(ledger: &SqliteLedger, record: &JobRecord) {
    let ended = JobRecord {
        state: JobState::Failed,
        ..record.clone()
    };
    ledger
        .commit_entries(vec![LedgerEntry::Job(ended)])
        .await
        .unwrap();
}

/// Waits until no file contains this text.
async fn wait_until_not_in_files(data: &Path, text: &str) {
    for _ in 0..600 {
        if list_files_containing(data, text).is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{text} is still in the files");
}

#[tokio::test]
async fn webhook_is_pending_from_the_end_of_its_job_until_settled() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let record = make_job(&t, JobState::Queued, 1);
    let with_webhook = JobRequest {
        webhook: Some(WebhookTarget {
            url: "https://example.org/hook".into(),
            secret: "the-secret".into(),
        }),
        ..make_job_request(&record)
    };
    storage
        .ledger
        .create_job_with_request(&record, &with_webhook, None)
        .await
        .unwrap();
    let without = make_job(&t, JobState::Done, 2);
    put_job_request(&storage.ledger, &without).await;
    assert!(
        storage
            .ledger
            .list_undelivered_webhooks()
            .await
            .unwrap()
            .is_empty()
    );
    let ended = JobRecord {
        state: JobState::Failed,
        ..record.clone()
    };
    storage
        .ledger
        .commit_entries(vec![LedgerEntry::Job(ended)])
        .await
        .unwrap();
    let undelivered = |tries| [(t.clone(), record.id, tries)];
    assert_eq!(
        storage.ledger.list_undelivered_webhooks().await.unwrap(),
        undelivered(0)
    );
    storage
        .ledger
        .record_webhook_attempts_or_end(&t, &record.id, Some(3))
        .await
        .unwrap();
    storage.close().await.unwrap();

    let storage = open_storage(dir.path()).await;
    assert_eq!(
        storage.ledger.list_undelivered_webhooks().await.unwrap(),
        undelivered(3)
    );
    let request = storage.ledger.find_job_request(&t, &record.id).await.unwrap();
    assert_eq!(request, Some(with_webhook));
    assert!(!list_files_containing(dir.path(), "the-secret").is_empty());
    storage
        .ledger
        .record_webhook_attempts_or_end(&t, &record.id, None)
        .await
        .unwrap();
    assert!(
        storage
            .ledger
            .list_undelivered_webhooks()
            .await
            .unwrap()
            .is_empty()
    );
    let request = storage
        .ledger
        .find_job_request(&t, &record.id)
        .await
        .unwrap()
        .unwrap();
    assert!(request.webhook.is_none());
    wait_until_not_in_files(dir.path(), "the-secret").await;
    storage.close().await.unwrap();
}

#[tokio::test]
async fn usage_is_added_up_by_day() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let ledger = &storage.ledger;
    for t in [&a, &b] {
        ledger.create_tenant(&make_tenant(t)).await.unwrap();
    }
    let used = |n| Usage {
        requests: n,
        jobs: n + 1,
        upload_bytes: n + 2,
        pages: n + 3,
        inference_micros: n + 4,
        guest_micros: n + 5,
        searches: n + 6,
        refusals: n + 7,
        llm_calls: n + 8,
        llm_prompt_tokens: n + 9,
        llm_answer_tokens: n + 10,
        llm_cost_micros: n + 11,
    };
    let gone = (tenant_id("gone"), used(1));
    ledger
        .add_daily_usage_of_tenants(10, vec![(a.clone(), used(1)), (b.clone(), used(7)), gone])
        .await
        .unwrap();
    ledger
        .add_daily_usage_of_tenants(10, vec![(a.clone(), used(20))])
        .await
        .unwrap();
    ledger
        .add_daily_usage_of_tenants(12, vec![(a.clone(), used(5))])
        .await
        .unwrap();
    ledger
        .add_daily_usage_of_tenants(14, vec![(a.clone(), used(u64::MAX / 2 - 13))])
        .await
        .unwrap();
    ledger
        .add_daily_usage_of_tenants(14, vec![(a.clone(), used(1000))])
        .await
        .unwrap();
    storage.close().await.unwrap();

    let storage = open_storage(dir.path()).await;
    let ledger = &storage.ledger;
    let mut sum = used(1);
    sum.add_amounts(&used(20));
    let days = ledger.list_daily_usage(&a, 9, 12).await.unwrap();
    assert_eq!(days, [(10, sum), (12, used(5))]);
    assert_eq!(ledger.list_daily_usage(&a, 11, 11).await.unwrap(), []);
    assert_eq!(
        ledger.list_daily_usage(&b, 0, u32::MAX).await.unwrap(),
        [(10, used(7))]
    );
    // A sum over the maximum is stored as the maximum.
    let most = u64::try_from(i64::MAX).unwrap();
    assert_eq!(
        ledger.list_daily_usage(&a, 14, 14).await.unwrap()[0].1.pages,
        most
    );
    assert_eq!(
        ledger.list_daily_usage(&tenant_id("gone"), 0, 99).await.unwrap(),
        []
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn storage_usage_is_known_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let t = TenantId::default_tenant();
    let storage = open_storage(dir.path()).await;
    storage.blobs.put_blob(&t, "d/1", &[0; 1000]).await.unwrap();
    let blobs = Arc::clone(&storage.blobs);
    storage.close().await.unwrap();
    // The saved number is exact from here on, so no file may change.
    assert!(blobs.put_blob(&t, "d/2", &[0; 1]).await.is_err());
    assert!(blobs.delete_blobs_with_prefix(&t, "d/1").await.is_err());
    // A file that was not put proves that the number is the saved one and not counted.
    std::fs::write(dir.path().join("blobs/default/d/stray"), "stray").unwrap();
    let storage = open_storage(dir.path()).await;
    assert_eq!(storage.ledger.count_stored_bytes(&t).await.unwrap(), 1000);
    storage.blobs.put_blob(&t, "e/1", &[0; 10]).await.unwrap();
    assert_eq!(storage.ledger.count_stored_bytes(&t).await.unwrap(), 1010);
    drop(storage);
    std::fs::write(dir.path().join("blobs/default/e/stray"), "other").unwrap();

    // After a drop without a close, only the blobs that were changing are measured.
    let storage = open_storage(dir.path()).await;
    assert_eq!(storage.ledger.count_stored_bytes(&t).await.unwrap(), 1015);
    storage.close().await.unwrap();
}
