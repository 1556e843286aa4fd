//! Removals of documents, and job requests that need the documents.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use std::fs;

use fixture::{document_id, open_storage, put_job_request, tenant_id};
use weir_conformance::records::make_job;
use weir_core::document_removal::{BeginRemovalOutcome, DocumentRemovalStore};
use weir_core::job_request::PutRequestOutcome;
use weir_core::ledger::JobState;
use weir_core::uploads::UploadStore;
use weir_core::{JobId, StorageError};

#[tokio::test]
async fn sqlite_ledger_passes_the_conformance_suite() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    weir_conformance::check_document_removal_store(&*storage.ledger).await;
    storage.close().await.unwrap();
}

#[tokio::test]
async fn removal_in_progress_refuses_requests_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (a, document) = (tenant_id("a"), document_id("a"));
    assert_eq!(
        storage
            .ledger
            .begin_document_removal(&a, &document)
            .await
            .unwrap(),
        BeginRemovalOutcome::Started
    );
    drop(storage);
    let storage = open_storage(dir.path()).await;
    let ledger = &storage.ledger;
    assert_eq!(
        ledger.list_unfinished_removals().await.unwrap(),
        [(a.clone(), document)]
    );
    let record = make_job(&a, JobState::Queued, 1);
    assert_eq!(
        put_job_request(ledger, &record).await,
        PutRequestOutcome::DocumentBeingRemoved(document)
    );
    ledger.end_document_removal(&a, &document).await.unwrap();
    assert_eq!(put_job_request(ledger, &record).await, PutRequestOutcome::Created);
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
