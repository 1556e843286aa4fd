//! Deletes documents, and resumes deletions that an earlier process did not finish.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::time::{Instant, sleep};
use weir_core::document_removal::BeginRemovalOutcome;
use weir_core::tenancy::KeyScope;
use weir_core::{DocumentId, StorageError, TenantId};
use weir_engine::DeleteError;

use crate::app::AppState;
use crate::auth::Caller;
use crate::http_input::PathParams;
use crate::intake::{REMOVAL_POLL_INTERVAL, REMOVAL_TIMEOUT};
use crate::problem::Problem;

/// Delete a document.
///
/// Deletes the uploaded file, passages, page images, lines, summaries and cached responses of language models. Also deletes the
/// component logs and the recorded policy calls of its jobs. One minute later, the data folder contains no text of the document.
///
/// The jobs and their events stay. They contain file names and no text of the document. The key-value state of components
/// also stays.
///
/// A submission of the same document waits until the deletion has ended and then ingests the document again.
#[utoipa::path(delete, path = "/v1/documents/{id}", tag = "documents",
    params(("id" = String, Path, description = "Id of the document")),
    responses(
        (status = 204, description = "The document is deleted"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The document does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A queued or running job uses the document", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The host has no disk space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn delete_document(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    PathParams(id): PathParams<DocumentId>,
) -> Result<StatusCode, Problem> {
    caller.require_scope(KeyScope::Ingest)?;
    let (ours, tenant) = (Arc::clone(&app), caller.tenant_id().clone());
    let deleting = async move {
        begin_removal(&ours, &tenant, id).await?;
        let removed = remove_document(&ours, &tenant, id).await;
        // End the removal also after an error, so that the deletion can be repeated and the document submitted.
        let ended = ours.document_removals.end_removal(&tenant, &id).await;
        let known = removed.map_err(|error| match error {
            DeleteError::DocumentActive(_) => Problem::conflict(error.to_string()),
            DeleteError::Storage(error) => error.into(),
        })?;
        ended?;
        Ok(known)
    };
    if app.run_to_completion(deleting).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("the document does not exist"))
    }
}

/// Begins a removal. Waits up to [`REMOVAL_TIMEOUT`] if another removal of the document is in progress.
async fn begin_removal(app: &AppState, tenant: &TenantId, id: DocumentId) -> Result<(), Problem> {
    let deadline = Instant::now() + REMOVAL_TIMEOUT;
    loop {
        match app.document_removals.begin_removal(tenant, &id).await? {
            BeginRemovalOutcome::Started => return Ok(()),
            BeginRemovalOutcome::UsedByActiveJob => {
                return Err(Problem::conflict(DeleteError::DocumentActive(id).to_string()));
            }
            BeginRemovalOutcome::AlreadyInProgress if Instant::now() < deadline => {
                sleep(REMOVAL_POLL_INTERVAL).await
            }
            BeginRemovalOutcome::AlreadyInProgress => {
                return Err(Problem::conflict("another request is deleting the document"));
            }
        }
    }
}

/// Removes all data of a document whose removal has begun. Returns whether there was any.
async fn remove_document(app: &AppState, tenant: &TenantId, id: DocumentId) -> Result<bool, DeleteError> {
    let jobs = app.document_removals.list_jobs_with_document(tenant, &id).await?;
    app.tenant_pipelines
        .job_replayer
        .remove_recordings(tenant, &jobs)
        .await?;
    let known = app.engine.delete_document(tenant, id).await?;
    // A file exists without a document if its job failed before reading it.
    let removed = app.upload_store.remove_upload(tenant, &id).await?;
    Ok(known || removed)
}

/// Finishes the removals that an earlier process began and did not end.
pub(crate) async fn resume_removals(app: &AppState) -> Result<(), StorageError> {
    for (tenant, id) in app.document_removals.list_unfinished_removals().await? {
        match remove_document(app, &tenant, id).await {
            Ok(_) => app.document_removals.end_removal(&tenant, &id).await?,
            Err(DeleteError::Storage(error)) => return Err(error),
            // Cannot happen, since no job runs yet. The removal stays recorded.
            Err(error @ DeleteError::DocumentActive(_)) => {
                tracing::error!(%tenant, %error, "cannot finish the removal of a document")
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir_core::document_removal::DocumentRemovalStore as _;
    use weir_core::uploads::UploadStore as _;

    use super::*;
    use crate::fakes::TestHost;

    #[tokio::test]
    async fn unfinished_removal_is_finished_at_the_next_start() {
        let host = TestHost::new();
        let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
        let id = host.store_upload(&a, "1 pages");
        assert_eq!(
            host.store.begin_removal(&a, &id).await.unwrap(),
            BeginRemovalOutcome::Started
        );
        let host = host.restart();
        resume_removals(&host.app).await.unwrap();
        assert!(!host.uploads.upload_path(&a, &id).exists());
        assert_eq!(host.store.list_unfinished_removals().await.unwrap(), []);
        assert_eq!(
            host.submit_file(&key, "1 pages").await.status(),
            StatusCode::ACCEPTED
        );
    }
}
