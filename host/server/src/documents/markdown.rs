//! Renders a document as Markdown from its stored lines.
//!
//! Repeated page headers can only be detected over many pages, so all requested pages are rendered together in memory. The
//! number of pages, the size of their lines and the number of concurrent renderings are limited.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use weir_control::Control;
use weir_core::layout;
use weir_core::ledger::{DocumentRecord, FinalPageState, PageRecord};
use weir_core::markdown::{self, PageLinesAndHeadings};
use weir_core::page_text::{StoredPageText, TextSource};
use weir_core::ports::Ledger as _;
use weir_core::summary::DocumentSummaries;
use weir_core::tenancy::KeyScope;
use weir_core::{DocumentId, PageNumber};

use super::document_loader::{load_document, load_summaries};
use crate::auth::Caller;
use crate::http_input::{PathParams, QueryParams};
use crate::problem::Problem;
use crate::state::MarkdownRenderLimiter;
use crate::stored_bytes_response::StoredBytesResponse;

/// Maximum number of pages in one response.
const MAX_PAGES: usize = 2000;
/// Maximum size of the stored lines of these pages.
const MAX_LINES_BYTES: usize = 32 << 20;

/// Selects a range of pages.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MarkdownPageRange {
    /// First page; default 1.
    #[param(value_type = Option<u32>)]
    from: Option<PageNumber>,
    /// Last page; default is the last page of the document.
    #[param(value_type = Option<u32>)]
    to: Option<PageNumber>,
}

/// A page record and the stored lines of the page.
struct PageWithLines {
    record: PageRecord,
    lines: Option<Vec<u8>>,
}

/// Get a document as Markdown.
///
/// Contains the pages that have ended, at most 2,000 per request. If the range includes page 1, the summaries come first.
/// Images are linked as `pages/<n>/image`, relative to this path.
#[utoipa::path(get, path = "/v1/documents/{id}/markdown", tag = "documents",
    params(("id" = String, Path, description = "Id of the document"), MarkdownPageRange),
    responses(
        (status = 200, description = "The document as Markdown", content_type = "text/markdown", body = String),
        (status = 304, description = "The entity tag matches If-None-Match"),
        (status = 400, description = "The page range is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The document does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The page range is too large for one response", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_document_markdown(
    State(control): State<Arc<Control>>,
    State(render_limit): State<Arc<MarkdownRenderLimiter>>,
    caller: Caller,
    PathParams(id): PathParams<DocumentId>,
    QueryParams(range): QueryParams<MarkdownPageRange>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let record = load_document(&control, caller.tenant_id(), &id).await?;
    let (from, to) = (range.from.unwrap_or(1), range.to.unwrap_or(PageNumber::MAX));
    if from == 0 || to < from {
        return Err(Problem::invalid_request(
            "from and to must be page numbers from 1, and to must not be less than from",
        ));
    }
    let permit = render_limit.acquire_render_permit().await;
    let mut pages = control
        .ledger
        .list_pages_after(caller.tenant_id(), &id, from - 1, MAX_PAGES + 1)
        .await?;
    pages.retain(|page| page.page <= to);
    let too_much =
        |what: String| Problem::unprocessable(format!("{what}: request a smaller range with from and to"));
    if pages.len() > MAX_PAGES {
        return Err(too_much(format!("the range has more than {MAX_PAGES} pages")));
    }
    let mut pages_with_lines = Vec::with_capacity(pages.len());
    let mut bytes = 0;
    for record in pages {
        let lines = match &record.state {
            FinalPageState::Done { text: Some(key), .. } => {
                control
                    .engine
                    .port_implementations()
                    .blobs
                    .get_blob(caller.tenant_id(), key)
                    .await?
            }
            _ => None,
        };
        bytes += lines.as_ref().map_or(0, Vec::len);
        if bytes > MAX_LINES_BYTES {
            return Err(too_much(format!(
                "the text of the range has more than {MAX_LINES_BYTES} bytes"
            )));
        }
        pages_with_lines.push(PageWithLines { record, lines });
    }
    let summary = match from {
        1 => load_summaries(&control, caller.tenant_id(), &id).await?,
        _ => None,
    };
    // Parsing and rendering many pages would block the async runtime.
    let rendered =
        tokio::task::spawn_blocking(move || render_markdown(&record, summary.as_ref(), &pages_with_lines))
            .await;
    drop(permit);
    let text = rendered.map_err(|e| Problem::internal_error(e.to_string()))??;
    Ok(StoredBytesResponse {
        bytes: text.into_bytes(),
        media_type: "text/markdown; charset=utf-8",
        file_name: "document.md".into(),
        max_age_seconds: 0,
    }
    .build_response(&headers))
}

fn render_markdown(
    document: &DocumentRecord,
    summary: Option<&DocumentSummaries>,
    pages: &[PageWithLines],
) -> Result<String, Problem> {
    let mut parsed = Vec::with_capacity(pages.len());
    for page in pages {
        let (source, lines) = match &page.lines {
            Some(bytes) => {
                let stored_text = serde_json::from_slice::<StoredPageText>(bytes).map_err(|e| {
                    Problem::internal_error(format!(
                        "the stored lines of page {} are damaged: {e}",
                        page.record.page
                    ))
                })?;
                (stored_text.source, stored_text.lines)
            }
            None => (TextSource::None, Vec::new()),
        };
        let number = page.record.page;
        let image = match &page.record.state {
            FinalPageState::Done { image: Some(_), .. } => Some(format!("pages/{number}/image")),
            _ => None,
        };
        parsed.push((number, source, lines, image, &page.record.state));
    }
    let markdown_pages: Vec<_> = parsed
        .iter()
        .map(|(number, source, lines, image, state)| PageLinesAndHeadings {
            number: *number,
            source: *source,
            lines,
            headings: layout::detect_page_headings(*source, lines, &document.outline, *number),
            image: image.as_deref(),
            failed: match state {
                FinalPageState::Failed { error } => Some(error.message.as_str()),
                FinalPageState::Done { .. } => None,
            },
        })
        .collect();
    let title = document.title.as_deref().unwrap_or(&document.name);
    Ok(markdown::render_document(title, summary, &markdown_pages))
}
