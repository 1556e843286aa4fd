//! Lists documents, and reads the facts of a document.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_control::Control;
use weir_core::ledger::DocumentRecord;
use weir_core::page::OutlineEntry;
use weir_core::ports::Ledger as _;
use weir_core::tenancy::KeyScope;
use weir_core::{DocumentId, PageNumber};

use super::document_loader::{has_summaries, load_document};
use super::page::EndedPageView;
use crate::auth::Caller;
use crate::http_input::{PathParams, QueryParams};
use crate::problem::Problem;
use crate::signed_links::LinkSigner;

/// Maximum number of documents or pages in one response.
const MAX_LIMIT: usize = 1000;
const DEFAULT_LIMIT: usize = 100;

/// Facts of a document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DocumentOverview {
    /// Id: the SHA-256 hash of the file.
    #[schema(value_type = String)]
    document: DocumentId,
    /// Name of the file in the latest submission.
    name: String,
    /// Title from the metadata of the file.
    title: Option<String>,
    /// Size of the file in bytes.
    bytes: u64,
    /// Number of pages in the file.
    pages: u32,
    /// Collection of its passages.
    collection: String,
    /// Labels of all its passages and summaries.
    labels: BTreeMap<String, String>,
    /// Time of the first ingestion, in milliseconds since 1970.
    created_millis: u64,
}

impl From<DocumentRecord> for DocumentOverview {
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
pub(crate) struct DocumentList {
    /// Documents, newest first.
    documents: Vec<DocumentOverview>,
    /// `cursor` of the next part; null at the end of the list.
    next: Option<String>,
}

/// Selects a part of the list of documents.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DocumentListQuery {
    /// `next` of the previous part.
    #[param(pattern = "^[0-9]{1,15}-[0-9a-f]{64}$")]
    cursor: Option<String>,
    /// Maximum number of documents.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// List documents, newest first.
#[utoipa::path(get, path = "/v1/documents", tag = "documents", params(DocumentListQuery), responses(
    (status = 200, description = "The documents", body = DocumentList),
    (status = 400, description = "The cursor or limit is invalid", body = Problem, content_type = "application/problem+json"),
    (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn list_documents(
    State(control): State<Arc<Control>>,
    caller: Caller,
    QueryParams(part): QueryParams<DocumentListQuery>,
) -> Result<Json<DocumentList>, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let limit = validate_limit_or_default(part.limit)?;
    let after = part.cursor.as_deref().map(parse_cursor).transpose()?;
    let mut records = control
        .ledger
        .list_tenant_documents_after(caller.tenant_id(), after, limit + 1)
        .await?;
    let more = records.len() > limit;
    records.truncate(limit);
    let next = records.last().filter(|_| more);
    let next = next.map(|last| format!("{}-{}", last.created_millis, last.id));
    Ok(Json(DocumentList {
        documents: records.into_iter().map(DocumentOverview::from).collect(),
        next,
    }))
}

fn validate_limit_or_default(limit: Option<usize>) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if (1..=MAX_LIMIT).contains(&limit) {
        Ok(limit)
    } else {
        Err(Problem::invalid_request(format!(
            "limit must be from 1 to {MAX_LIMIT}"
        )))
    }
}

fn parse_cursor(text: &str) -> Result<(u64, DocumentId), Problem> {
    let parts = text.split_once('-');
    parts
        .and_then(|(millis, id)| Some((millis.parse().ok()?, id.parse().ok()?)))
        .ok_or_else(|| {
            Problem::invalid_request("cursor is invalid: use the value of `next` in the previous response")
        })
}

/// A document and a part of its pages.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DocumentDetails {
    #[serde(flatten)]
    facts: DocumentOverview,
    /// Outline of the document.
    outline: Vec<OutlineEntryView>,
    /// Whether the document has summaries.
    summarized: bool,
    /// Pages that have ended, in order.
    page_states: Vec<EndedPageView>,
    /// `after` of the next part; null at the end of the list.
    #[schema(value_type = Option<u32>)]
    next: Option<PageNumber>,
}

/// An entry of the outline.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutlineEntryView {
    /// Title.
    title: String,
    /// Depth, from 1.
    level: u8,
    /// Page on which it begins, if known.
    #[schema(value_type = Option<u32>)]
    page: Option<PageNumber>,
}

impl From<OutlineEntry> for OutlineEntryView {
    fn from(entry: OutlineEntry) -> Self {
        let OutlineEntry { title, level, page } = entry;
        Self { title, level, page }
    }
}

/// Selects a part of the pages of a document.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DocumentPagesQuery {
    /// Only pages after this one.
    #[param(value_type = Option<u32>)]
    after: Option<PageNumber>,
    /// Maximum number of pages.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// Get a document and the outcome of its pages.
#[utoipa::path(get, path = "/v1/documents/{id}", tag = "documents",
    params(("id" = String, Path, description = "Id of the document"), DocumentPagesQuery),
    responses(
        (status = 200, description = "The document", body = DocumentDetails),
        (status = 400, description = "The cursor or limit is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The document does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_document(
    State(control): State<Arc<Control>>,
    State(link_signer): State<Arc<LinkSigner>>,
    caller: Caller,
    PathParams(id): PathParams<DocumentId>,
    QueryParams(part): QueryParams<DocumentPagesQuery>,
) -> Result<Json<DocumentDetails>, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let limit = validate_limit_or_default(part.limit)?;
    let mut record = load_document(&control, caller.tenant_id(), &id).await?;
    let after = part.after.unwrap_or(0);
    let mut pages = control
        .ledger
        .list_pages_after(caller.tenant_id(), &id, after, limit + 1)
        .await?;
    let more = pages.len() > limit;
    pages.truncate(limit);
    Ok(Json(DocumentDetails {
        summarized: has_summaries(&control, caller.tenant_id(), &id).await?,
        outline: std::mem::take(&mut record.outline)
            .into_iter()
            .map(OutlineEntryView::from)
            .collect(),
        facts: record.into(),
        next: pages.last().filter(|_| more).map(|last| last.page),
        page_states: pages
            .into_iter()
            .map(|page| EndedPageView::new(&link_signer, caller.tenant_id(), page))
            .collect(),
    }))
}
