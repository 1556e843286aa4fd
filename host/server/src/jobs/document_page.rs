//! The API for a page of a job's document.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_core::job_request::RequestedFile;
use weir_core::ledger::FinalPageState;
use weir_core::page_text::TextSource;
use weir_core::ports::Ledger as _;
use weir_core::tenancy::KeyScope;
use weir_core::{DocumentId, JobId, PageNumber};

use super::view::{ErrorView, load_job_and_request};
use crate::auth::Caller;
use crate::http_input::{PathParams, QueryParams};
use crate::problem::Problem;
use crate::state::AppState;

/// The query parameters of a page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobPageQuery {
    /// The document; required if the job has several documents.
    #[param(value_type = Option<String>, pattern = "^[0-9a-f]{64}$")]
    document: Option<DocumentId>,
}

/// The state of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PageStateName {
    /// It has not been finished yet.
    Waiting,
    /// It is stored, read and, if requested, searchable.
    Done,
    /// It failed, and will not be retried.
    Failed,
}

/// A page of a job's document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobPage {
    /// The id of the document.
    #[schema(value_type = String)]
    document: DocumentId,
    /// The page number, from 1.
    page: u32,
    /// The state of the page.
    state: PageStateName,
    /// The source of its text.
    #[schema(value_type = Option<String>)]
    source: Option<TextSource>,
    /// The number of searchable passages.
    passages: Option<u32>,
    /// A signed link to its image that needs no key for a limited time; null if the image is not stored.
    image_url: Option<String>,
    /// A signed link to its text lines that needs no key for a limited time; null if the page was not read.
    lines_url: Option<String>,
    /// The error, if the page failed.
    error: Option<ErrorView>,
}

/// Get a page of a document, as the job's pipeline revision has processed it.
#[utoipa::path(get, path = "/v1/jobs/{job}/pages/{page}", tag = "jobs",
    params(
        ("job" = String, Path, description = "Id of the job", format = Uuid),
        ("page" = u32, Path, description = "Page number, from 1"),
        JobPageQuery,
    ),
    responses(
        (status = 200, description = "The page", body = JobPage),
        (status = 400, description = "The document id is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The job has several documents and the request names none", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The job, document or page does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_job_page(
    State(app): State<AppState>,
    caller: Caller,
    PathParams((job, page)): PathParams<(JobId, PageNumber)>,
    QueryParams(query): QueryParams<JobPageQuery>,
) -> Result<Json<JobPage>, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let tenant = caller.tenant_id();
    let (record, job_request) = load_job_and_request(&app.control, tenant, &job).await?;
    let files = job_request.map(|request| request.files).unwrap_or_default();
    let document = select_requested_or_only_document(&files, query.document)?;
    let page_record = app
        .control
        .ledger
        .find_page(tenant, &document, page, Some(&record.revision))
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
    match page_record.map(|record| record.state) {
        Some(FinalPageState::Done {
            source,
            passages,
            image,
            text,
        }) => {
            view.state = PageStateName::Done;
            (view.source, view.passages) = (Some(source), Some(passages));
            let link = |key: String| app.link_signer.sign_link(tenant, &key);
            (view.image_url, view.lines_url) = (image.map(link), text.map(link));
        }
        Some(FinalPageState::Failed { error }) => {
            view.state = PageStateName::Failed;
            view.error = Some(error.into());
        }
        None => {
            let pages = app
                .control
                .ledger
                .find_document(tenant, &document)
                .await?
                .map(|document| document.pages);
            let will_be_processed =
                !record.state.is_terminal() && pages.is_some_and(|pages| (1..=pages).contains(&page));
            if !will_be_processed {
                return Err(Problem::not_found("the job has no such page"));
            }
        }
    }
    Ok(Json(view))
}

/// Returns the document of a request: the named one, or the only one of the job.
fn select_requested_or_only_document(
    files: &[RequestedFile],
    requested: Option<DocumentId>,
) -> Result<DocumentId, Problem> {
    match (requested, files) {
        (None, [only]) => Ok(only.document),
        (None, [first, rest @ ..]) if rest.iter().all(|file| file.document == first.document) => {
            Ok(first.document)
        }
        (None, []) => Err(Problem::not_found("the job has no known documents")),
        (None, _) => Err(Problem::conflict(
            "the job has several documents: name one with ?document=",
        )),
        (Some(document), files) if files.iter().any(|file| file.document == document) => Ok(document),
        (Some(_), _) => Err(Problem::not_found("the job has no such document")),
    }
}
