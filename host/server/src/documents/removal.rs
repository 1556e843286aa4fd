//! Deleting a document.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::time::{Instant, sleep};
use weir_core::removal::Begin;
use weir_core::tenancy::Scope;
use weir_core::{DocumentId, StorageError, TenantId};
use weir_engine::DeleteError;

use crate::app::App;
use crate::auth::Caller;
use crate::intake::{REMOVAL_POLL, REMOVAL_WAIT};
use crate::problem::Problem;
use crate::wire::Route;

/// Deletes a document with its passages, page images, lines, cached answers and the file itself.
///
/// Its jobs and their events stay, with the names of their files and without any text of the document; the logs of the jobs'
/// components and the recordings of their calls go. What components keep in their state stays. No text of the document is left
/// in the data folder a minute later.
///
/// A submission of the same document waits until the deletion has ended, and then ingests the document anew.
#[utoipa::path(delete, path = "/v1/documents/{id}", tag = "documents",
    params(("id" = String, Path, description = "the document")),
    responses(
        (status = 204, description = "it is gone"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such document", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "a job works on it", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "no space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn delete_document(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(id): Route<DocumentId>,
) -> Result<StatusCode, Problem> {
    caller.may(Scope::Ingest)?;
    let (ours, tenant) = (Arc::clone(&app), caller.id().clone());
    let deleting = async move {
        begin(&ours, &tenant, id).await?;
        let removed = remove(&ours, &tenant, id).await;
        // After an error the deletion can be repeated, and the document submitted.
        let ended = ours.removals.end(&tenant, &id).await;
        let known = removed.map_err(|error| match error {
            DeleteError::InWork(_) => Problem::conflict(error.to_string()),
            DeleteError::Storage(error) => error.into(),
        })?;
        ended?;
        Ok(known)
    };
    if app.to_the_end(deleting).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("there is no such document"))
    }
}

/// Begins a deletion, once one that is under way has ended.
async fn begin(app: &App, tenant: &TenantId, id: DocumentId) -> Result<(), Problem> {
    let deadline = Instant::now() + REMOVAL_WAIT;
    loop {
        match app.removals.begin(tenant, &id).await? {
            Begin::Begun => return Ok(()),
            Begin::InWork => return Err(Problem::conflict(DeleteError::InWork(id).to_string())),
            Begin::Removing if Instant::now() < deadline => sleep(REMOVAL_POLL).await,
            Begin::Removing => {
                return Err(Problem::conflict("the document is being deleted already"));
            }
        }
    }
}

/// Removes a document whose removal has begun; whether there was one.
async fn remove(app: &App, tenant: &TenantId, id: DocumentId) -> Result<bool, DeleteError> {
    let jobs = app.removals.jobs_with(tenant, &id).await?;
    app.shelf.replays.remove_recordings(tenant, &jobs).await?;
    let known = app.engine.delete(tenant, id).await?;
    // A file may also be there without a document: of a job that failed before it was read.
    let removed = app.originals.remove(tenant, &id).await?;
    Ok(known || removed)
}

/// Finishes the removals that the last process did not.
pub(crate) async fn resume(app: &App) -> Result<(), StorageError> {
    for (tenant, id) in app.removals.unended().await? {
        match remove(app, &tenant, id).await {
            Ok(_) => app.removals.end(&tenant, &id).await?,
            Err(DeleteError::Storage(error)) => return Err(error),
            // No job has begun yet, so this cannot be; the removal stays listed.
            Err(error @ DeleteError::InWork(_)) => {
                tracing::error!(%tenant, %error, "a document is not removed")
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir_core::original::Originals as _;
    use weir_core::removal::Removals as _;

    use super::*;
    use crate::fakes::Host;

    #[tokio::test]
    async fn unended_removal_is_finished_at_the_next_start() {
        let host = Host::new();
        let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
        let id = host.original(&a, "1 pages");
        assert_eq!(host.memory.begin(&a, &id).await.unwrap(), Begin::Begun);
        let host = host.again();
        resume(&host.app).await.unwrap();
        assert!(!host.files.path(&a, &id).exists());
        assert_eq!(host.memory.unended().await.unwrap(), []);
        assert_eq!(host.submit(&key, "1 pages").await.status(), StatusCode::ACCEPTED);
    }
}
