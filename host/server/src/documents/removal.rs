//! Deletes documents.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use weir_control::{Control, document_removal};
use weir_core::DocumentId;
use weir_core::tenancy::KeyScope;

use crate::auth::Caller;
use crate::http_input::PathParams;
use crate::problem::Problem;

/// Delete a document.
///
/// Deletes the uploaded file, passages, page images, lines, summaries and cached responses of language models. Also deletes the
/// component logs and the recorded component calls of its jobs. One minute later, the data folder contains no text of the document.
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
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(id): PathParams<DocumentId>,
) -> Result<StatusCode, Problem> {
    caller.require_scope(KeyScope::Ingest)?;
    let (task_control, tenant) = (Arc::clone(&control), caller.tenant_id().clone());
    let deleting =
        async move { Ok::<_, Problem>(document_removal::delete_document(&task_control, &tenant, id).await?) };
    if control.run_to_completion(deleting).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("the document does not exist"))
    }
}

#[cfg(test)]
mod tests {
    use weir_control::document_removal::resume_removals;
    use weir_core::document_removal::{BeginRemovalOutcome, DocumentRemovalStore as _};

    use super::*;
    use crate::fakes::TestHost;

    #[tokio::test]
    async fn unfinished_removal_is_finished_at_the_next_start() {
        let host = TestHost::new();
        let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
        let id = host.store_upload(&a, "1 pages");
        assert_eq!(
            host.store.begin_document_removal(&a, &id).await.unwrap(),
            BeginRemovalOutcome::Started
        );
        let host = host.restart();
        resume_removals(&host.control).await.unwrap();
        assert!(!host.uploads.upload_path(&a, &id).exists());
        assert_eq!(host.store.list_unfinished_removals().await.unwrap(), []);
        assert_eq!(
            host.submit_file(&key, "1 pages").await.status(),
            StatusCode::ACCEPTED
        );
    }
}
