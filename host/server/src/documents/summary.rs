//! A document's summaries.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use weir_core::ledger::PageRecord;
use weir_core::ports::Ledger as _;
use weir_core::summary::{DocumentSummary, Quoted, SectionSummary, Summary, summary_key};
use weir_core::tenancy::Scope;
use weir_core::{DocumentId, Rect, TenantId};

use super::known;
use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::wire::Route;

/// A document's summaries.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SummariesView {
    /// The document.
    #[schema(value_type = String)]
    document: DocumentId,
    /// Its name.
    name: String,
    /// Pages of which they tell.
    pages: u32,
    /// Of the whole; null if no section has one.
    summary: Option<SummaryView>,
    /// Of its sections, in their order.
    sections: Vec<SectionView>,
}

/// A section with its summary.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SectionView {
    /// Its heading, or one made for it; null if it is too short for one.
    title: Option<String>,
    /// 1 for the highest.
    level: u8,
    /// First page.
    first_page: u32,
    /// Last page.
    last_page: u32,
    /// Null if the pipeline wants none, as of a section that is no longer than one.
    summary: Option<SummaryView>,
}

/// A summary.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SummaryView {
    /// The summary.
    text: String,
    /// How it begins, for where there is room for a line.
    preview: String,
    /// Parts of it that are taken from the document word for word; empty if a model wrote it.
    quotes: Vec<QuoteView>,
    /// Parts of it that hold a number or a name which the document does not have there.
    ungrounded: Vec<Span>,
    /// Who made it.
    provider: String,
    /// The model.
    model: String,
}

/// A part of a summary that stands in the document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuoteView {
    /// Which part.
    at: Span,
    /// The page.
    page: u32,
    /// Where on it, as shares of its width and height.
    #[serde(rename = "box")]
    #[schema(value_type = Object)]
    rect: Rect,
}

/// A part of a text, in bytes of its UTF-8.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Span {
    /// The first.
    start: u32,
    /// The one behind the last.
    end: u32,
}

impl From<std::ops::Range<u32>> for Span {
    fn from(range: std::ops::Range<u32>) -> Self {
        Self {
            start: range.start,
            end: range.end,
        }
    }
}

impl From<Quoted> for QuoteView {
    fn from(quote: Quoted) -> Self {
        Self {
            at: quote.at.into(),
            page: quote.page,
            rect: quote.rect,
        }
    }
}

impl From<Summary> for SummaryView {
    fn from(summary: Summary) -> Self {
        Self {
            text: summary.text,
            preview: summary.preview,
            quotes: summary.quotes.into_iter().map(QuoteView::from).collect(),
            ungrounded: summary.ungrounded.into_iter().map(Span::from).collect(),
            provider: summary.provider,
            model: summary.model,
        }
    }
}

impl From<SectionSummary> for SectionView {
    fn from(section: SectionSummary) -> Self {
        Self {
            title: section.title,
            level: section.level,
            first_page: section.first_page,
            last_page: section.last_page,
            summary: section.summary.map(SummaryView::from),
        }
    }
}

impl From<DocumentSummary> for SummariesView {
    fn from(of: DocumentSummary) -> Self {
        Self {
            document: of.document,
            name: of.name,
            pages: of.pages,
            summary: of.summary.map(SummaryView::from),
            sections: of.sections.into_iter().map(SectionView::from).collect(),
        }
    }
}

/// The summaries of a document under the revision that its pages were done with last; `None` if there are none.
pub(super) async fn summary_of(
    app: &App,
    tenant: &TenantId,
    document: &DocumentId,
) -> Result<Option<DocumentSummary>, Problem> {
    let Some(key) = key_of(app, tenant, document).await? else {
        return Ok(None);
    };
    let Some(bytes) = app.engine.ports().blobs.get(tenant, &key).await? else {
        return Ok(None);
    };
    let damaged = |e: serde_json::Error| Problem::internal(format!("the summary is damaged: {e}"));
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// Whether there are any.
pub(super) async fn is_summarized(
    app: &App,
    tenant: &TenantId,
    document: &DocumentId,
) -> Result<bool, Problem> {
    match key_of(app, tenant, document).await? {
        Some(key) => Ok(!app.engine.ports().blobs.list(tenant, &key).await?.is_empty()),
        None => Ok(false),
    }
}

/// Where they are, if there are any.
async fn key_of(app: &App, tenant: &TenantId, document: &DocumentId) -> Result<Option<String>, Problem> {
    let last: Option<PageRecord> = app.ledger.pages_after(tenant, document, 0, 1).await?.pop();
    Ok(last.map(|page| summary_key(document, &page.revision)))
}

/// A document's summaries: of the whole and of each section, with where in the document their sentences stand.
#[utoipa::path(get, path = "/v1/documents/{id}/summary", tag = "documents",
    params(("id" = String, Path, description = "the document")),
    responses(
        (status = 200, description = "the summaries", body = SummariesView),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such document, or it is not summarized", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn document_summary(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(id): Route<DocumentId>,
) -> Result<Json<SummariesView>, Problem> {
    caller.may(Scope::Read)?;
    known(&app, caller.id(), &id).await?;
    let summary = summary_of(&app, caller.id(), &id).await?;
    let none = || Problem::not_found("the document is not summarized: hand it in with \"summarize\": true");
    Ok(Json(summary.ok_or_else(none)?.into()))
}
