//! Deleting a document.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use weir_core::ledger::JobState;
use weir_core::order::JobFilter;
use weir_core::tenancy::Scope;
use weir_core::{DocumentId, TenantId};
use weir_engine::DeleteError;

use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::wire::Route;

/// Jobs looked at at a time.
const LISTED: usize = 100;

/// Deletes a document with its passages, page images, lines and the file itself. Jobs and their events stay.
#[utoipa::path(delete, path = "/v1/documents/{id}", tag = "documents",
    params(("id" = String, Path, description = "the document")),
    responses(
        (status = 204, description = "it is gone"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such document", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "a job works on it", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn delete_document(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(id): Route<DocumentId>,
) -> Result<StatusCode, Problem> {
    caller.may(Scope::Ingest)?;
    let tenant = caller.id();
    if is_awaited(&app, tenant, &id).await? {
        return Err(in_work(&DeleteError::InWork(id)));
    }
    let known = match app.engine.delete(tenant, id).await {
        Ok(known) => known,
        Err(error @ DeleteError::InWork(_)) => return Err(in_work(&error)),
        Err(DeleteError::Storage(error)) => return Err(error.into()),
    };
    // Last, so that a deletion that was cut short is found by its document and can be repeated. A file may also be there
    // without a document: of a job that failed before it was read.
    let removed = app.originals.remove(tenant, &id).await?;
    if known || removed {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("there is no such document"))
    }
}

fn in_work(error: &DeleteError) -> Problem {
    Problem::conflict(error.to_string())
}

/// Whether a job of the tenant has it yet to do: the engine only knows the jobs that have begun.
async fn is_awaited(app: &App, tenant: &TenantId, id: &DocumentId) -> Result<bool, Problem> {
    for state in [JobState::Queued, JobState::Running] {
        let mut before = None;
        loop {
            let filter = JobFilter {
                state: Some(state),
                before,
                limit: LISTED,
            };
            let jobs = app.orders.jobs(tenant, &filter).await?;
            for job in &jobs {
                let order = app.orders.order(tenant, &job.id).await?;
                if order.is_some_and(|order| order.files.iter().any(|file| file.document == *id)) {
                    return Ok(true);
                }
            }
            before = jobs.last().map(|job| job.id);
            if jobs.len() < LISTED {
                break;
            }
        }
    }
    Ok(false)
}
