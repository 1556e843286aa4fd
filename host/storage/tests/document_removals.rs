//! Removals of documents, and job requests that need the documents.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use std::fs;
use std::sync::Arc;

use fixture::{
    document_id, make_event, make_idempotency, make_job, make_job_request, make_tenant, open_storage,
    tenant_id,
};
use weir_core::document_removal::{BeginRemovalOutcome, DocumentRemovalStore};
use weir_core::event::EventKind;
use weir_core::job_request::{JobRequestStore, PutRequestOutcome};
use weir_core::ledger::{JobRecord, JobState, LedgerEntry};
use weir_core::ports::Ledger;
use weir_core::tenancy::TenantStore;
use weir_core::uploads::UploadStore;
use weir_core::{JobId, StorageError, TenantId};
use weir_storage::SqliteLedger;

async fn put_job_request(ledger: &SqliteLedger, record: &JobRecord) -> PutRequestOutcome {
    ledger
        .create_job_with_request(record, &make_job_request(record), None)
        .await
        .unwrap()
}

async fn commit_job_state(ledger: &SqliteLedger, record: &JobRecord, state: JobState) {
    let record = JobRecord {
        state,
        ..record.clone()
    };
    ledger
        .commit_entries(vec![LedgerEntry::Job(record)])
        .await
        .unwrap();
}

#[tokio::test]
async fn job_request_is_refused_during_a_document_removal() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (ledger, a, b) = (&storage.ledger, tenant_id("a"), tenant_id("b"));
    let document = document_id("a");
    assert_eq!(
        ledger.begin_document_removal(&a, &document).await.unwrap(),
        BeginRemovalOutcome::Started
    );
    assert_eq!(
        ledger.begin_document_removal(&a, &document).await.unwrap(),
        BeginRemovalOutcome::AlreadyInProgress
    );
    let record = make_job(&a, JobState::Queued, 1);
    let refused = ledger
        .create_job_with_request(
            &record,
            &make_job_request(&record),
            Some(&make_idempotency("w", 1)),
        )
        .await;
    assert_eq!(
        refused.unwrap(),
        PutRequestOutcome::DocumentBeingRemoved(document)
    );
    assert_eq!(
        ledger.find_request_by_idempotency_key(&a, "w").await.unwrap(),
        None,
        "a refused request must write nothing"
    );
    assert_eq!(ledger.find_job(&a, &record.id).await.unwrap(), None);
    assert_eq!(
        put_job_request(ledger, &make_job(&b, JobState::Queued, 1)).await,
        PutRequestOutcome::Created
    );
    // The request is also refused after a crash, until the removal is finished.
    drop(storage);
    let storage = open_storage(dir.path()).await;
    let ledger = &storage.ledger;
    assert_eq!(
        ledger.list_unfinished_removals().await.unwrap(),
        [(a.clone(), document)]
    );
    assert_eq!(
        put_job_request(ledger, &record).await,
        PutRequestOutcome::DocumentBeingRemoved(document)
    );
    ledger.end_document_removal(&a, &document).await.unwrap();
    assert_eq!(put_job_request(ledger, &record).await, PutRequestOutcome::Created);
    assert_eq!(
        ledger.list_jobs_with_document(&a, &document).await.unwrap(),
        [record.id]
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn removal_is_refused_while_a_job_needs_the_document() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (ledger, a) = (&storage.ledger, tenant_id("a"));
    let document = document_id("a");
    let record = make_job(&a, JobState::Queued, 1);
    assert_eq!(put_job_request(ledger, &record).await, PutRequestOutcome::Created);
    assert_eq!(
        ledger.begin_document_removal(&a, &document).await.unwrap(),
        BeginRemovalOutcome::UsedByActiveJob
    );
    commit_job_state(ledger, &record, JobState::Running).await;
    assert_eq!(
        ledger.begin_document_removal(&a, &document).await.unwrap(),
        BeginRemovalOutcome::UsedByActiveJob
    );
    commit_job_state(ledger, &record, JobState::Done).await;
    assert_eq!(
        ledger.begin_document_removal(&a, &document).await.unwrap(),
        BeginRemovalOutcome::Started
    );
    // A job of the command line has no job request. Its document-started event names the document.
    ledger.end_document_removal(&a, &document).await.unwrap();
    let run = make_job(&a, JobState::Running, 2);
    let mut started = make_event(run.id, 1);
    started.document = Some(document);
    started.kind = EventKind::DocumentStarted {
        name: "a.pdf".into(),
        pages: 1,
        already_done: 0,
    };
    let entries = vec![
        LedgerEntry::Job(run.clone()),
        LedgerEntry::Event(a.clone(), started),
    ];
    ledger.commit_entries(entries).await.unwrap();
    assert_eq!(
        ledger.begin_document_removal(&a, &document).await.unwrap(),
        BeginRemovalOutcome::UsedByActiveJob
    );
    let mut jobs = ledger.list_jobs_with_document(&a, &document).await.unwrap();
    jobs.sort_unstable_by_key(|job: &JobId| job.0);
    let mut both = [record.id, run.id];
    both.sort_unstable_by_key(|job| job.0);
    assert_eq!(jobs, both);
    ledger.create_tenant(&make_tenant(&a)).await.unwrap();
    ledger.remove_tenant(&a).await.unwrap();
    assert!(
        ledger
            .list_jobs_with_document(&a, &document)
            .await
            .unwrap()
            .is_empty()
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn concurrent_job_request_and_removal_exclude_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let document = document_id("a");
    let (mut created_requests, mut removals) = (0, 0);
    for number in 0..200 {
        let a: TenantId = format!("a{number}").parse().unwrap();
        let record = make_job(&a, JobState::Queued, 1);
        let (putting, beginning) = (Arc::clone(&storage.ledger), Arc::clone(&storage.ledger));
        let b = a.clone();
        let put = tokio::spawn(async move { put_job_request(&putting, &record).await });
        let begin =
            tokio::spawn(async move { beginning.begin_document_removal(&b, &document).await.unwrap() });
        match (put.await.unwrap(), begin.await.unwrap()) {
            (PutRequestOutcome::Created, BeginRemovalOutcome::UsedByActiveJob) => created_requests += 1,
            (PutRequestOutcome::DocumentBeingRemoved(_), BeginRemovalOutcome::Started) => removals += 1,
            both => panic!("{both:?}"),
        }
    }
    assert_eq!(created_requests + removals, 200);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn staged_upload_survives_the_removal_of_its_document() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (uploads, a, job) = (&storage.uploads, tenant_id("a"), JobId::new());
    let document = document_id("a");
    let stage = || uploads.stage_stored_upload_for_job(&a, &job, &document);
    assert_eq!(stage().await.unwrap(), None);
    let unfinished = uploads.new_temporary_path();
    fs::write(&unfinished, "a").unwrap();
    uploads.commit_upload(&a, &unfinished, &document).await.unwrap();
    let (first, second) = (stage().await.unwrap().unwrap(), stage().await.unwrap().unwrap());
    assert_ne!(first, second);
    assert!(uploads.remove_upload(&a, &document).await.unwrap());
    assert_eq!(stage().await.unwrap(), None);
    for staged in [first, second] {
        assert_eq!(fs::read(&staged).unwrap(), b"a");
        uploads.commit_upload(&a, &staged, &document).await.unwrap();
        assert!(!staged.exists(), "the staged name must be gone");
        assert_eq!(fs::read(uploads.upload_path(&a, &document)).unwrap(), b"a");
    }
    // Staged uploads are removed with their tenant only.
    let left = stage().await.unwrap().unwrap();
    uploads
        .remove_all_uploads_of_tenant(&tenant_id("b"))
        .await
        .unwrap();
    assert!(left.exists());
    uploads.remove_all_uploads_of_tenant(&a).await.unwrap();
    assert!(!left.exists());
    let missing = uploads.commit_upload(&a, &left, &document).await;
    assert!(
        matches!(missing, Err(StorageError::NotFound { .. })),
        "{missing:?}"
    );
    storage.close().await.unwrap();
}
