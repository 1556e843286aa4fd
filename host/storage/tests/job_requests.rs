//! Job requests: written with their jobs, once for each idempotency key.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use std::path::Path;
use std::sync::Arc;

use fixture::{document_id, make_idempotency, make_job_request, open_storage, put_job_request, tenant_id};
use weir_conformance::list_files_containing;
use weir_conformance::records::{make_job, make_tenant};
use weir_core::TenantId;
use weir_core::job_request::{JobRequest, JobRequestStore, PutRequestOutcome, RequestedFile, WebhookTarget};
use weir_core::ledger::{JobRecord, JobState, LedgerEntry};
use weir_core::ports::Ledger;
use weir_core::tenancy::TenantStore;
use weir_core::usage::{Usage, UsageStore};
use weir_storage::SqlLedger;

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;

#[tokio::test]
async fn sqlite_ledger_passes_the_retention_suite() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    weir_conformance::check_retention_store(&*storage.ledger).await;
    storage.close().await.unwrap();
}

#[tokio::test]
async fn sqlite_ledger_passes_the_job_request_and_usage_suites() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    weir_conformance::check_job_request_store(&*storage.ledger).await;
    weir_conformance::check_usage_store(&*storage.ledger).await;
    storage.close().await.unwrap();
}

#[tokio::test]
async fn job_request_and_its_job_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let a = tenant_id("a");
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
    assert_eq!(
        ledger.list_unfinished_jobs().await.unwrap(),
        std::slice::from_ref(&record)
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
async fn end_job(ledger: &SqlLedger, record: &JobRecord) {
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
async fn usage_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let a = tenant_id("a");
    storage.ledger.create_tenant(&make_tenant(&a)).await.unwrap();
    let used = Usage {
        pages: 3,
        ..Usage::default()
    };
    storage
        .ledger
        .add_daily_usage_of_tenants(10, vec![(a.clone(), used)])
        .await
        .unwrap();
    storage.close().await.unwrap();

    let storage = open_storage(dir.path()).await;
    assert_eq!(
        storage.ledger.list_daily_usage(&a, 9, 12).await.unwrap(),
        [(10, used)]
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn storage_usage_is_known_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let t = TenantId::default_tenant();
    let storage = open_storage(dir.path()).await;
    storage.blobs.put_blob(&t, "d/1", &[0; 100_000]).await.unwrap();
    let blobs = Arc::clone(&storage.blobs);
    storage.close().await.unwrap();
    // The saved number is exact from here on, so no file may change.
    assert!(blobs.put_blob(&t, "d/2", &[0; 1]).await.is_err());
    assert!(blobs.delete_blobs_with_prefix(&t, "d/1").await.is_err());
    // A file that was not put proves that the number is the saved one and not counted.
    std::fs::write(dir.path().join("blobs/default/d/stray"), "stray").unwrap();
    let storage = open_storage(dir.path()).await;
    assert_eq!(storage.ledger.count_stored_bytes(&t).await.unwrap(), 100_000);
    storage.blobs.put_blob(&t, "e/1", &[0; 200_000]).await.unwrap();
    assert_eq!(storage.ledger.count_stored_bytes(&t).await.unwrap(), 300_000);
    drop(storage);
    std::fs::write(dir.path().join("blobs/default/e/stray"), "other").unwrap();

    // After a drop without a close, only the blobs that were changing are measured.
    let storage = open_storage(dir.path()).await;
    assert_eq!(storage.ledger.count_stored_bytes(&t).await.unwrap(), 300_005);
    storage.close().await.unwrap();
}
