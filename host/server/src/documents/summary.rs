//! Reads the summaries of a document.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use weir_control::Control;
use weir_core::summary::{DocumentSummaries, SectionSummary, Summary, SummaryQuote};
use weir_core::tenancy::KeyScope;
use weir_core::{DocumentId, Rect};

use super::document_loader::{load_document, load_summaries};
use crate::auth::Caller;
use crate::http_input::PathParams;
use crate::problem::Problem;

/// The summaries of a document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DocumentSummariesView {
    /// Id of the document.
    #[schema(value_type = String)]
    document: DocumentId,
    /// Name of the document.
    name: String,
    /// Number of summarized pages.
    pages: u32,
    /// Summary of the document; null if no section has a summary.
    summary: Option<SummaryView>,
    /// Sections in document order.
    sections: Vec<SectionSummaryView>,
}

/// A section with its summary.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SectionSummaryView {
    /// Heading, or a generated title; null if the section is too short for a title.
    title: Option<String>,
    /// Level of the heading; 1 is the highest.
    level: u8,
    /// First page.
    first_page: u32,
    /// Last page.
    last_page: u32,
    /// Summary; null if the pipeline requested none, for example because the section is short.
    summary: Option<SummaryView>,
}

/// A summary.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SummaryView {
    /// Text of the summary.
    text: String,
    /// Beginning of the text, for a one-line preview.
    preview: String,
    /// Parts of the text that quote the document verbatim; empty if a model wrote the text.
    quotes: Vec<QuoteView>,
    /// Parts of the text with a number or name that the summarized pages do not contain.
    ungrounded: Vec<ByteRange>,
    /// Provider that wrote the summary.
    provider: String,
    /// Model that wrote the summary.
    model: String,
}

/// A verbatim quote in a summary.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuoteView {
    /// Position of the quote in the summary.
    at: ByteRange,
    /// Page that contains the quote.
    page: u32,
    /// Box on that page, in fractions of its width and height.
    #[serde(rename = "box")]
    #[schema(value_type = Object)]
    rect: Rect,
}

/// A range of a text, in bytes of its UTF-8 encoding.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ByteRange {
    /// First byte.
    start: u32,
    /// Byte after the last one.
    end: u32,
}

impl From<std::ops::Range<u32>> for ByteRange {
    fn from(range: std::ops::Range<u32>) -> Self {
        Self {
            start: range.start,
            end: range.end,
        }
    }
}

impl From<SummaryQuote> for QuoteView {
    fn from(quote: SummaryQuote) -> Self {
        Self {
            at: quote.summary_range.into(),
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
            ungrounded: summary.ungrounded.into_iter().map(ByteRange::from).collect(),
            provider: summary.provider,
            model: summary.model,
        }
    }
}

impl From<SectionSummary> for SectionSummaryView {
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

impl From<DocumentSummaries> for DocumentSummariesView {
    fn from(of: DocumentSummaries) -> Self {
        Self {
            document: of.document,
            name: of.name,
            pages: of.pages,
            summary: of.summary.map(SummaryView::from),
            sections: of.sections.into_iter().map(SectionSummaryView::from).collect(),
        }
    }
}

/// Get the summaries of a document.
///
/// Contains a summary of the document and of each section. Quotes have their position on the page.
#[utoipa::path(get, path = "/v1/documents/{id}/summary", tag = "documents",
    params(("id" = String, Path, description = "Id of the document")),
    responses(
        (status = 200, description = "The summaries", body = DocumentSummariesView),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The document does not exist or has no summaries", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_document_summaries(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(id): PathParams<DocumentId>,
) -> Result<Json<DocumentSummariesView>, Problem> {
    caller.require_scope(KeyScope::Read)?;
    load_document(&control, caller.tenant_id(), &id).await?;
    let summary = load_summaries(&control, caller.tenant_id(), &id).await?;
    let none = || Problem::not_found("the document has no summaries: submit it with \"summarize\": true");
    Ok(Json(summary.ok_or_else(none)?.into()))
}
