//! A page of a document.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use weir_core::ledger::{PageRecord, PageState};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::Scope;
use weir_core::text::TextSource;
use weir_core::{DocumentId, JobId, PageNumber, TenantId};

use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::stored::{Stored, image_type};
use crate::wire::Route;

/// A page that has ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageFound {
    /// Its number, from 1.
    #[schema(value_type = u32)]
    page: PageNumber,
    /// The job that did it.
    #[schema(value_type = uuid::Uuid)]
    job: JobId,
    #[serde(flatten)]
    end: PageEnd,
}

/// How a page ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum PageEnd {
    /// It is done.
    Done {
        /// Where its text came from.
        source: Source,
        /// Passages indexed.
        passages: u32,
        /// A link to its image that works without a key for a while, if it is kept.
        image_url: Option<String>,
        /// The same to its lines, if it was read.
        lines_url: Option<String>,
    },
    /// It failed for good.
    Failed {
        /// Why.
        error: Failure,
    },
}

/// Where a page's text came from.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// The file's text layer.
    TextLayer,
    /// It was recognized in the image.
    Ocr,
    /// A vision model wrote it down as Markdown; its lines have the whole page as their box.
    VisionModel,
    /// The page was not read.
    None,
}

/// Why something failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Failure {
    /// A stable word for programs.
    kind: String,
    /// One line for people.
    message: String,
}

impl PageFound {
    pub(super) fn new(app: &App, tenant: &TenantId, record: PageRecord) -> Self {
        let link = |key: String| app.links.to(tenant, &key);
        let end = match record.state {
            PageState::Done {
                source,
                passages,
                image,
                text,
            } => PageEnd::Done {
                source: match source {
                    TextSource::TextLayer => Source::TextLayer,
                    TextSource::Ocr => Source::Ocr,
                    TextSource::VisionModel => Source::VisionModel,
                    TextSource::None => Source::None,
                },
                passages,
                image_url: image.map(link),
                lines_url: text.map(link),
            },
            PageState::Failed { error } => PageEnd::Failed {
                error: Failure {
                    kind: error.kind,
                    message: error.message,
                },
            },
        };
        Self {
            page: record.page,
            job: record.job,
            end,
        }
    }
}

/// A page of the tenant that has ended.
async fn known(
    app: &App,
    tenant: &TenantId,
    document: &DocumentId,
    number: PageNumber,
) -> Result<PageRecord, Problem> {
    let found = match number.checked_sub(1) {
        Some(before) => app.ledger.pages_after(tenant, document, before, 1).await?.pop(),
        None => None,
    };
    found
        .filter(|page| page.page == number)
        .ok_or_else(|| Problem::not_found("there is no such page, or it has not ended yet"))
}

/// How a page ended.
#[utoipa::path(get, path = "/v1/documents/{id}/pages/{page}", tag = "documents",
    params(
        ("id" = String, Path, description = "the document"),
        ("page" = u32, Path, description = "the page, from 1"),
    ),
    responses(
        (status = 200, description = "the page", body = PageFound),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such page", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn page(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route((id, number)): Route<(DocumentId, PageNumber)>,
) -> Result<Json<PageFound>, Problem> {
    caller.may(Scope::Read)?;
    let record = known(&app, caller.id(), &id, number).await?;
    Ok(Json(PageFound::new(&app, caller.id(), record)))
}

/// A page's image.
#[utoipa::path(get, path = "/v1/documents/{id}/pages/{page}/image", tag = "documents",
    params(
        ("id" = String, Path, description = "the document"),
        ("page" = u32, Path, description = "the page, from 1"),
    ),
    responses(
        (status = 200, description = "the image", content_type = "image/jpeg", body = [u8]),
        (status = 304, description = "it is what If-None-Match says"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such page, or no image", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn page_image(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route((id, number)): Route<(DocumentId, PageNumber)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may(Scope::Read)?;
    let key = match known(&app, caller.id(), &id, number).await?.state {
        PageState::Done { image, .. } => image,
        PageState::Failed { .. } => None,
    };
    let media_type = key.as_deref().map_or("image/jpeg", image_type);
    let bytes = blob(&app, caller.id(), key, "no image is kept of this page").await?;
    let extension = if media_type == "image/webp" { "webp" } else { "jpg" };
    let name = format!("page-{number}.{extension}");
    Ok(Stored {
        bytes,
        media_type,
        name,
        fresh: 0,
    }
    .answer(&headers))
}

/// A page's lines, as they are stored: text, box, size and confidence of each.
#[utoipa::path(get, path = "/v1/documents/{id}/pages/{page}/text", tag = "documents",
    params(
        ("id" = String, Path, description = "the document"),
        ("page" = u32, Path, description = "the page, from 1"),
    ),
    responses(
        (status = 200, description = "the lines", content_type = "application/json", body = serde_json::Value),
        (status = 304, description = "it is what If-None-Match says"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such page, or it was not read", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn page_lines(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route((id, number)): Route<(DocumentId, PageNumber)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may(Scope::Read)?;
    let key = match known(&app, caller.id(), &id, number).await?.state {
        PageState::Done { text, .. } => text,
        PageState::Failed { .. } => None,
    };
    let bytes = blob(&app, caller.id(), key, "this page was not read").await?;
    let name = format!("page-{number}.json");
    Ok(Stored {
        bytes,
        media_type: "application/json",
        name,
        fresh: 0,
    }
    .answer(&headers))
}

async fn blob(app: &App, tenant: &TenantId, key: Option<String>, none: &str) -> Result<Vec<u8>, Problem> {
    let bytes = match key {
        Some(key) => app.engine.ports().blobs.get(tenant, &key).await?,
        None => None,
    };
    bytes.ok_or_else(|| Problem::not_found(none))
}
