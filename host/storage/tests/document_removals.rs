//! Removals of documents, and job requests that need the documents.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use std::fs;

use fixture::{document_id, open_storage, put_job_request, tenant_id};
use weir_conformance::records::make_job;
use weir_core::document_removal::{BeginRemovalOutcome, DocumentRemovalStore};
use weir_core::job_request::PutRequestOutcome;
use weir_core::ledger::JobState;
use weir_core::uploads::StagedUpload;
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
    let (uploads, a) = (&*storage.uploads, tenant_id("a"));
    let document = document_id("a");
    let [first, second] = [JobId::new(), JobId::new()].map(|job| StagedUpload {
        tenant: a.clone(),
        job,
        document,
    });
    let stage = async |staged| uploads.stage_stored_upload(staged).await.unwrap();
    assert_eq!(stage(&first).await, None);
    weir_conformance::store_upload(uploads, &a, b"a").await;
    assert_eq!((stage(&first).await, stage(&second).await), (Some(1), Some(1)));
    assert!(uploads.remove_upload(&a, &document).await.unwrap());
    for staged in [&first, &second] {
        uploads.commit_staged_upload(staged).await.unwrap();
        let stored = uploads.open_upload(&a, &document).await.unwrap().unwrap();
        assert_eq!(fs::read(stored.path()).unwrap(), b"a");
    }
    assert_eq!(uploads.list_staged_uploads().await.unwrap(), []);
    // Staged uploads are removed with their tenant only.
    assert_eq!(stage(&first).await, Some(1));
    uploads
        .remove_all_uploads_of_tenant(&tenant_id("b"))
        .await
        .unwrap();
    assert_eq!(
        uploads.list_staged_uploads().await.unwrap(),
        std::slice::from_ref(&first)
    );
    uploads.remove_all_uploads_of_tenant(&a).await.unwrap();
    assert_eq!(uploads.list_staged_uploads().await.unwrap(), []);
    let missing = uploads.commit_staged_upload(&first).await;
    assert!(
        matches!(missing, Err(StorageError::NotFound { .. })),
        "{missing:?}"
    );
    storage.close().await.unwrap();
}
