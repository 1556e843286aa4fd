//! Deletes documents, and resumes deletions that an earlier process did not finish.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use weir_core::document_removal::BeginRemovalOutcome;
use weir_core::{DocumentId, StorageError, TenantId};
use weir_engine::DeleteError;

use crate::state::Control;

/// Maximum time that an operation waits for a removal of its document to end.
pub(crate) const DOCUMENT_REMOVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval between two checks whether the removal in progress has ended.
pub(crate) const REMOVAL_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Why a document cannot be deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteDocumentError {
    /// A job uses the document, or the document's data cannot be removed.
    #[error(transparent)]
    Delete(#[from] DeleteError),
    /// Another removal of the document is in progress.
    #[error("cannot delete document {0}: another request is deleting it; try again later")]
    AlreadyInProgress(DocumentId),
}

impl From<StorageError> for DeleteDocumentError {
    fn from(error: StorageError) -> Self {
        Self::Delete(error.into())
    }
}

/// Deletes a document with all its data. Returns false if neither a document nor an uploaded file existed.
///
/// The removal is recorded until it ends, so [`resume_removals`] finishes one that was interrupted.
pub async fn delete_document(
    control: &Control,
    tenant: &TenantId,
    id: DocumentId,
) -> Result<bool, DeleteDocumentError> {
    begin_document_removal_or_wait(control, tenant, id).await?;
    let removed = remove_document_data(control, tenant, id).await;
    // End the removal also after an error, so that the deletion can be repeated and the document submitted.
    let ended = control.document_removals.end_document_removal(tenant, &id).await;
    let known = removed?;
    ended?;
    Ok(known)
}

/// Begins a removal. Waits up to [`DOCUMENT_REMOVAL_TIMEOUT`] if another removal of the document is in progress.
async fn begin_document_removal_or_wait(
    control: &Control,
    tenant: &TenantId,
    id: DocumentId,
) -> Result<(), DeleteDocumentError> {
    let deadline = Instant::now() + DOCUMENT_REMOVAL_TIMEOUT;
    loop {
        match control
            .document_removals
            .begin_document_removal(tenant, &id)
            .await?
        {
            BeginRemovalOutcome::Started => return Ok(()),
            BeginRemovalOutcome::UsedByActiveJob => return Err(DeleteError::DocumentActive(id).into()),
            BeginRemovalOutcome::AlreadyInProgress if Instant::now() < deadline => {
                sleep(REMOVAL_POLL_INTERVAL).await
            }
            BeginRemovalOutcome::AlreadyInProgress => {
                return Err(DeleteDocumentError::AlreadyInProgress(id));
            }
        }
    }
}

/// Removes all data of a document whose removal has begun. Returns false if neither a document nor an uploaded file existed.
async fn remove_document_data(
    control: &Control,
    tenant: &TenantId,
    id: DocumentId,
) -> Result<bool, DeleteError> {
    let jobs = control
        .document_removals
        .list_jobs_with_document(tenant, &id)
        .await?;
    control
        .tenant_pipelines
        .job_replayer
        .remove_job_recordings(tenant, &jobs)
        .await?;
    let known = control.engine.delete_document(tenant, id).await?;
    // An uploaded file has no document record if its job failed before reading the file.
    let removed = control.upload_store.remove_upload(tenant, &id).await?;
    Ok(known || removed)
}

/// Finishes the removals that an earlier process began and did not end.
pub async fn resume_removals(control: &Control) -> Result<(), StorageError> {
    for (tenant, id) in control.document_removals.list_unfinished_removals().await? {
        match remove_document_data(control, &tenant, id).await {
            Ok(_) => {
                control
                    .document_removals
                    .end_document_removal(&tenant, &id)
                    .await?
            }
            Err(DeleteError::Storage(error)) => return Err(error),
            // Cannot happen, since no job runs yet. The removal stays recorded.
            Err(error @ DeleteError::DocumentActive(_)) => {
                tracing::error!(%tenant, %error, "cannot finish the removal of a document")
            }
        }
    }
    Ok(())
}
