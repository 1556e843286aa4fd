//! A page of a job's document.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_core::ledger::PageState;
use weir_core::order::OrderedFile;
use weir_core::ports::Ledger as _;
use weir_core::tenancy::Scope;
use weir_core::text::TextSource;
use weir_core::{DocumentId, JobId, PageNumber};

use super::view::{ErrorView, find};
use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::wire::{Params, Route};

/// Which document.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// The document; needed if the job has several.
    #[param(value_type = Option<String>, pattern = "^[0-9a-f]{64}$")]
    document: Option<DocumentId>,
}

/// Where a page stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PageStateName {
    /// It has not ended yet.
    Waiting,
    /// Stored, read and, where asked for, searchable.
    Done,
    /// Failed for good.
    Failed,
}

/// A page of a job's document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobPage {
    /// The document.
    #[schema(value_type = String)]
    document: DocumentId,
    /// The page, from 1.
    page: u32,
    /// Where it stands.
    state: PageStateName,
    /// Where its text came from.
    #[schema(value_type = Option<String>)]
    source: Option<TextSource>,
    /// Passages that can be found.
    passages: Option<u32>,
    /// A link to its image that works without a key for a while, if the image is kept.
    image_url: Option<String>,
    /// The same to its lines, if it was read.
    lines_url: Option<String>,
    /// Why it failed, if it did.
    error: Option<ErrorView>,
}

/// A page of a document, as this job's revision of the pipeline has made it.
#[utoipa::path(get, path = "/v1/jobs/{job}/pages/{page}", tag = "jobs",
    params(
        ("job" = String, Path, description = "the job's id", format = Uuid),
        ("page" = u32, Path, description = "the page, from 1"),
        PageQuery,
    ),
    responses(
        (status = 200, description = "the page", body = JobPage),
        (status = 400, description = "not a document's id", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "which document?", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such job, document or page", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn job_page(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route((job, page)): Route<(JobId, PageNumber)>,
    Params(query): Params<PageQuery>,
) -> Result<Json<JobPage>, Problem> {
    caller.may(Scope::Read)?;
    let tenant = caller.id();
    let (record, order) = find(&app, tenant, &job).await?;
    let files = order.map(|order| order.files).unwrap_or_default();
    let document = which(&files, query.document)?;
    let known = app
        .ledger
        .pages(tenant, &document, Some(&record.revision))
        .await?;
    let mut view = JobPage {
        document,
        page,
        state: PageStateName::Waiting,
        source: None,
        passages: None,
        image_url: None,
        lines_url: None,
        error: None,
    };
    match known
        .into_iter()
        .find(|known| known.page == page)
        .map(|known| known.state)
    {
        Some(PageState::Done {
            source,
            passages,
            image,
            text,
        }) => {
            view.state = PageStateName::Done;
            (view.source, view.passages) = (Some(source), Some(passages));
            let link = |key: String| app.links.to(tenant, &key);
            (view.image_url, view.lines_url) = (image.map(link), text.map(link));
        }
        Some(PageState::Failed { error }) => {
            view.state = PageStateName::Failed;
            view.error = Some(error.into());
        }
        None => {
            let pages = app
                .ledger
                .document(tenant, &document)
                .await?
                .map(|document| document.pages);
            let to_come = !record.state.is_ended() && pages.is_some_and(|pages| (1..=pages).contains(&page));
            if !to_come {
                return Err(Problem::not_found("the job has made no such page"));
            }
        }
    }
    Ok(Json(view))
}

/// The document that is asked about.
fn which(files: &[OrderedFile], asked: Option<DocumentId>) -> Result<DocumentId, Problem> {
    match (asked, files) {
        (None, [only]) => Ok(only.document),
        (None, [first, rest @ ..]) if rest.iter().all(|file| file.document == first.document) => {
            Ok(first.document)
        }
        (None, []) => Err(Problem::not_found("the job has no documents that are known")),
        (None, _) => Err(Problem::conflict(
            "the job has several documents: say which one with ?document=",
        )),
        (Some(document), files) if files.iter().any(|file| file.document == document) => Ok(document),
        (Some(_), _) => Err(Problem::not_found("the job has no such document")),
    }
}
