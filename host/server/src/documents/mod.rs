//! What a tenant's documents have become: facts, pages, images, lines, Markdown, summaries.

mod markdown;
mod page;
mod removal;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_core::ledger::DocumentRecord;
use weir_core::page::OutlineEntry;
use weir_core::ports::Ledger as _;
use weir_core::tenancy::Scope;
use weir_core::{DocumentId, PageNumber, TenantId};

use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::wire::{Params, Route};

pub(crate) use markdown::{__path_document_markdown, Renderers, document_markdown};
pub(crate) use page::{
    __path_page, __path_page_image, __path_page_lines, PageFound, page, page_image, page_lines,
};
pub(crate) use removal::{__path_delete_document, delete_document, resume as resume_removals};
pub(crate) use summary::{__path_document_summary, Span, document_summary};

/// Documents or pages of one answer.
const MOST: usize = 1000;
/// Unless another number is asked for.
const USUAL: usize = 100;

/// A document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Facts {
    /// Its id: the hash of its bytes.
    #[schema(value_type = String)]
    document: DocumentId,
    /// The file's name when it was last given.
    name: String,
    /// The title in its metadata.
    title: Option<String>,
    /// Its size.
    bytes: u64,
    /// Pages in the file.
    pages: u32,
    /// The collection its passages are filed under.
    collection: String,
    /// Labels of all its passages and summaries.
    labels: BTreeMap<String, String>,
    /// When it was first taken in, in milliseconds since 1970.
    created_millis: u64,
}

impl From<DocumentRecord> for Facts {
    fn from(record: DocumentRecord) -> Self {
        Self {
            document: record.id,
            name: record.name,
            title: record.title,
            bytes: record.bytes,
            pages: record.pages,
            collection: record.collection,
            labels: record.labels.into_iter().collect(),
            created_millis: record.created_millis,
        }
    }
}

/// A part of the list of documents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Documents {
    /// The newest first.
    documents: Vec<Facts>,
    /// `cursor` of the part that follows, if there is one.
    next: Option<String>,
}

/// Which part of the list of documents.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Part {
    /// `next` of the part before.
    #[param(pattern = "^[0-9]{1,15}-[0-9a-f]{64}$")]
    cursor: Option<String>,
    /// Documents wanted.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// Lists documents, the newest first.
#[utoipa::path(get, path = "/v1/documents", tag = "documents", params(Part), responses(
    (status = 200, description = "documents", body = Documents),
    (status = 400, description = "no such part", body = Problem, content_type = "application/problem+json"),
    (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn list_documents(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(part): Params<Part>,
) -> Result<Json<Documents>, Problem> {
    caller.may(Scope::Read)?;
    let limit = within(part.limit)?;
    let after = part.cursor.as_deref().map(cursor).transpose()?;
    let mut records = app.ledger.documents_after(caller.id(), after, limit + 1).await?;
    let more = records.len() > limit;
    records.truncate(limit);
    let next = records.last().filter(|_| more);
    let next = next.map(|last| format!("{}-{}", last.created_millis, last.id));
    Ok(Json(Documents {
        documents: records.into_iter().map(Facts::from).collect(),
        next,
    }))
}

fn within(limit: Option<usize>) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(USUAL);
    if (1..=MOST).contains(&limit) {
        Ok(limit)
    } else {
        Err(Problem::invalid(format!("limit is from 1 to {MOST}")))
    }
}

fn cursor(text: &str) -> Result<(u64, DocumentId), Problem> {
    let parts = text.split_once('-');
    parts
        .and_then(|(millis, id)| Some((millis.parse().ok()?, id.parse().ok()?)))
        .ok_or_else(|| Problem::invalid("cursor is what `next` of another answer said"))
}

/// A document and a part of its pages.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Document {
    #[serde(flatten)]
    facts: Facts,
    /// Its outline.
    outline: Vec<Chapter>,
    /// Whether it has summaries.
    summarized: bool,
    /// Its pages that have ended, in order.
    page_states: Vec<PageFound>,
    /// `after` of the part that follows, if there is one.
    #[schema(value_type = Option<u32>)]
    next: Option<PageNumber>,
}

/// A chapter of an outline.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Chapter {
    /// Its title.
    title: String,
    /// Its depth; chapters of the first level have 1.
    level: u8,
    /// Where it begins, if that is known.
    #[schema(value_type = Option<u32>)]
    page: Option<PageNumber>,
}

impl From<OutlineEntry> for Chapter {
    fn from(entry: OutlineEntry) -> Self {
        let OutlineEntry { title, level, page } = entry;
        Self { title, level, page }
    }
}

/// Which part of a document's pages.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PagesPart {
    /// Only pages behind this one.
    #[param(value_type = Option<u32>)]
    after: Option<PageNumber>,
    /// Pages wanted.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// A document: what is known of it, and how its pages ended.
#[utoipa::path(get, path = "/v1/documents/{id}", tag = "documents",
    params(("id" = String, Path, description = "the document"), PagesPart),
    responses(
        (status = 200, description = "the document", body = Document),
        (status = 400, description = "no such part", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such document", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn document(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(id): Route<DocumentId>,
    Params(part): Params<PagesPart>,
) -> Result<Json<Document>, Problem> {
    caller.may(Scope::Read)?;
    let limit = within(part.limit)?;
    let mut record = known(&app, caller.id(), &id).await?;
    let after = part.after.unwrap_or(0);
    let mut pages = app.ledger.pages_after(caller.id(), &id, after, limit + 1).await?;
    let more = pages.len() > limit;
    pages.truncate(limit);
    Ok(Json(Document {
        summarized: summary::is_summarized(&app, caller.id(), &id).await?,
        outline: std::mem::take(&mut record.outline)
            .into_iter()
            .map(Chapter::from)
            .collect(),
        facts: record.into(),
        next: pages.last().filter(|_| more).map(|last| last.page),
        page_states: pages
            .into_iter()
            .map(|page| PageFound::new(&app, caller.id(), page))
            .collect(),
    }))
}

/// A document of the tenant.
async fn known(app: &App, tenant: &TenantId, id: &DocumentId) -> Result<DocumentRecord, Problem> {
    let record = app.ledger.document(tenant, id).await?;
    record.ok_or_else(|| Problem::not_found("there is no such document"))
}
