//! Reads a page of a document, its image and its lines.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use weir_control::Control;
use weir_core::ledger::{FinalPageState, PageRecord};
use weir_core::page_text::TextSource;
use weir_core::tenancy::KeyScope;
use weir_core::{DocumentId, JobId, PageNumber, TenantId};

use super::document_loader::{load_blob_or_not_found, load_ended_page};
use crate::auth::Caller;
use crate::http_input::PathParams;
use crate::problem::Problem;
use crate::signed_links::LinkSigner;
use crate::stored_bytes_response::{StoredBytesResponse, image_media_type};

/// A page that has ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndedPageView {
    /// Page number, from 1.
    #[schema(value_type = u32)]
    page: PageNumber,
    /// Id of the job that processed it.
    #[schema(value_type = uuid::Uuid)]
    job: JobId,
    #[serde(flatten)]
    outcome: PageOutcome,
}

/// The outcome of a page.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum PageOutcome {
    /// The page is done.
    Done {
        /// Where the text came from.
        source: TextSourceName,
        /// Number of indexed passages.
        passages: u32,
        /// Signed link to the image, valid without a key until it expires; null if no image is stored.
        image_url: Option<String>,
        /// Signed link to the lines; null if the page was not read.
        lines_url: Option<String>,
    },
    /// The page failed and will not be retried.
    Failed {
        /// Error of the page.
        error: PageErrorView,
    },
}

/// Where the text of a page came from.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TextSourceName {
    /// From the text layer of the file.
    TextLayer,
    /// From text recognition in the page image.
    Ocr,
    /// From a vision model, which writes Markdown; the box of each line is the whole page.
    VisionModel,
    /// The page was not read.
    None,
}

/// The error of a page.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageErrorView {
    /// Stable error kind for programs.
    kind: String,
    /// Error message for people, one line.
    message: String,
}

impl EndedPageView {
    pub(super) fn new(link_signer: &LinkSigner, tenant: &TenantId, record: PageRecord) -> Self {
        let link = |key: String| link_signer.sign_link(tenant, &key);
        let end = match record.state {
            FinalPageState::Done {
                source,
                passages,
                image,
                text,
            } => PageOutcome::Done {
                source: match source {
                    TextSource::TextLayer => TextSourceName::TextLayer,
                    TextSource::Ocr => TextSourceName::Ocr,
                    TextSource::VisionModel => TextSourceName::VisionModel,
                    TextSource::None => TextSourceName::None,
                },
                passages,
                image_url: image.map(link),
                lines_url: text.map(link),
            },
            FinalPageState::Failed { error } => PageOutcome::Failed {
                error: PageErrorView {
                    kind: error.kind,
                    message: error.message,
                },
            },
        };
        Self {
            page: record.page,
            job: record.job,
            outcome: end,
        }
    }
}

/// Get the outcome of a page.
#[utoipa::path(get, path = "/v1/documents/{id}/pages/{page}", tag = "documents",
    params(
        ("id" = String, Path, description = "Id of the document"),
        ("page" = u32, Path, description = "Page number, from 1"),
    ),
    responses(
        (status = 200, description = "The page", body = EndedPageView),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The page does not exist or has not ended", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_page(
    State(control): State<Arc<Control>>,
    State(link_signer): State<Arc<LinkSigner>>,
    caller: Caller,
    PathParams((id, number)): PathParams<(DocumentId, PageNumber)>,
) -> Result<Json<EndedPageView>, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let record = load_ended_page(&control, caller.tenant_id(), &id, number).await?;
    Ok(Json(EndedPageView::new(&link_signer, caller.tenant_id(), record)))
}

/// Get the image of a page.
#[utoipa::path(get, path = "/v1/documents/{id}/pages/{page}/image", tag = "documents",
    params(
        ("id" = String, Path, description = "Id of the document"),
        ("page" = u32, Path, description = "Page number, from 1"),
    ),
    responses(
        (status = 200, description = "The image", content_type = "image/jpeg", body = [u8]),
        (status = 304, description = "The entity tag matches If-None-Match"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The page does not exist, or no image of it is stored", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_page_image(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams((id, number)): PathParams<(DocumentId, PageNumber)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let key = match load_ended_page(&control, caller.tenant_id(), &id, number)
        .await?
        .state
    {
        FinalPageState::Done { image, .. } => image,
        FinalPageState::Failed { .. } => None,
    };
    let media_type = key.as_deref().map_or("image/jpeg", image_media_type);
    let bytes = load_blob_or_not_found(
        &control,
        caller.tenant_id(),
        key,
        "no image of this page is stored",
    )
    .await?;
    let extension = if media_type == "image/webp" { "webp" } else { "jpg" };
    let name = format!("page-{number}.{extension}");
    Ok(StoredBytesResponse {
        bytes,
        media_type,
        file_name: name,
        max_age_seconds: 0,
    }
    .build_response(&headers))
}

/// Get the text lines of a page.
///
/// Each line has its text, box, font size and confidence.
#[utoipa::path(get, path = "/v1/documents/{id}/pages/{page}/text", tag = "documents",
    params(
        ("id" = String, Path, description = "Id of the document"),
        ("page" = u32, Path, description = "Page number, from 1"),
    ),
    responses(
        (status = 200, description = "The lines", content_type = "application/json", body = serde_json::Value),
        (status = 304, description = "The entity tag matches If-None-Match"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The page does not exist, or no text of it is stored", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_page_lines(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams((id, number)): PathParams<(DocumentId, PageNumber)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let key = match load_ended_page(&control, caller.tenant_id(), &id, number)
        .await?
        .state
    {
        FinalPageState::Done { text, .. } => text,
        FinalPageState::Failed { .. } => None,
    };
    let bytes = load_blob_or_not_found(&control, caller.tenant_id(), key, "this page was not read").await?;
    let name = format!("page-{number}.json");
    Ok(StoredBytesResponse {
        bytes,
        media_type: "application/json",
        file_name: name,
        max_age_seconds: 0,
    }
    .build_response(&headers))
}
