//! A document as Markdown, made from the stored lines when it is asked for.
//!
//! What repeats at the head of pages can only be told when many of them are seen together, so a part is rendered as a whole
//! and held in memory meanwhile. Both are bounded: pages and bytes of a part, and how many are rendered at one time.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use tokio::sync::Semaphore;
use utoipa::IntoParams;
use weir_core::layout;
use weir_core::ledger::{DocumentRecord, PageRecord, PageState};
use weir_core::markdown::{self, MarkdownPage};
use weir_core::ports::Ledger as _;
use weir_core::summary::DocumentSummary;
use weir_core::tenancy::Scope;
use weir_core::text::{PageLines, TextSource};
use weir_core::{DocumentId, PageNumber};

use super::known;
use super::summary::summary_of;
use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::stored::Stored;
use crate::wire::{Params, Route};

/// Pages of one answer.
const PAGES: usize = 2000;
/// Bytes of their stored lines.
const BYTES: usize = 32 << 20;
/// Documents rendered at one time.
const AT_ONCE: usize = 2;

/// How many more may be rendered.
pub(crate) struct Renderers(Semaphore);

impl Default for Renderers {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

/// Which pages.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Range {
    /// The first, 1 if it is not said.
    #[param(value_type = Option<u32>)]
    from: Option<PageNumber>,
    /// The last; the document's last if it is not said.
    #[param(value_type = Option<u32>)]
    to: Option<PageNumber>,
}

/// A page and its stored lines.
struct Read {
    record: PageRecord,
    lines: Option<Vec<u8>>,
}

/// A document as Markdown.
///
/// Its summaries, if it has any and page 1 is asked for, then pages that have ended, at most 2,000 at a time. Images are linked as `pages/<n>/image`, relative to this path.
#[utoipa::path(get, path = "/v1/documents/{id}/markdown", tag = "documents",
    params(("id" = String, Path, description = "the document"), Range),
    responses(
        (status = 200, description = "the Markdown", content_type = "text/markdown", body = String),
        (status = 304, description = "it is what If-None-Match says"),
        (status = 400, description = "no such pages", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such document", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "too much at a time", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn document_markdown(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(id): Route<DocumentId>,
    Params(range): Params<Range>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may(Scope::Read)?;
    let record = known(&app, caller.id(), &id).await?;
    let (from, to) = (range.from.unwrap_or(1), range.to.unwrap_or(PageNumber::MAX));
    if from == 0 || to < from {
        return Err(Problem::invalid(
            "from and to are pages, from 1, and to is not before from",
        ));
    }
    let place = app.renderers.0.acquire().await;
    let mut pages = app
        .ledger
        .pages_after(caller.id(), &id, from - 1, PAGES + 1)
        .await?;
    pages.retain(|page| page.page <= to);
    let too_much = |what: String| Problem::unprocessable(format!("{what}: ask for parts with from and to"));
    if pages.len() > PAGES {
        return Err(too_much(format!("these are more than {PAGES} pages")));
    }
    let mut read = Vec::with_capacity(pages.len());
    let mut bytes = 0;
    for record in pages {
        let lines = match &record.state {
            PageState::Done { text: Some(key), .. } => app.engine.ports().blobs.get(caller.id(), key).await?,
            _ => None,
        };
        bytes += lines.as_ref().map_or(0, Vec::len);
        if bytes > BYTES {
            return Err(too_much(format!(
                "these pages have more than {BYTES} bytes of lines"
            )));
        }
        read.push(Read { record, lines });
    }
    // Parsing and rendering many pages takes too long for the thread that serves others.
    let summary = match from {
        1 => summary_of(&app, caller.id(), &id).await?,
        _ => None,
    };
    let rendered = tokio::task::spawn_blocking(move || render(&record, summary.as_ref(), &read)).await;
    drop(place);
    let text = rendered.map_err(|e| Problem::internal(e.to_string()))??;
    Ok(Stored {
        bytes: text.into_bytes(),
        media_type: "text/markdown; charset=utf-8",
        name: "document.md".into(),
        fresh: 0,
    }
    .answer(&headers))
}

fn render(
    document: &DocumentRecord,
    summary: Option<&DocumentSummary>,
    pages: &[Read],
) -> Result<String, Problem> {
    let mut parsed = Vec::with_capacity(pages.len());
    for page in pages {
        let (source, lines) = match &page.lines {
            Some(bytes) => {
                let read = serde_json::from_slice::<PageLines>(bytes).map_err(|e| {
                    Problem::internal(format!("the lines of page {} are damaged: {e}", page.record.page))
                })?;
                (read.source, read.lines)
            }
            None => (TextSource::None, Vec::new()),
        };
        let number = page.record.page;
        let image = match &page.record.state {
            PageState::Done { image: Some(_), .. } => Some(format!("pages/{number}/image")),
            _ => None,
        };
        parsed.push((number, source, lines, image, &page.record.state));
    }
    let shown: Vec<_> = parsed
        .iter()
        .map(|(number, source, lines, image, state)| MarkdownPage {
            number: *number,
            source: *source,
            lines,
            headings: layout::headings(*source, lines, &document.outline, *number),
            image: image.as_deref(),
            failed: match state {
                PageState::Failed { error } => Some(error.message.as_str()),
                PageState::Done { .. } => None,
            },
        })
        .collect();
    let title = document.title.as_deref().unwrap_or(&document.name);
    Ok(markdown::render(title, summary, &shown))
}
