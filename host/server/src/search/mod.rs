//! Passage search: one query, a batch of queries, or one query as a stream. All queries pass through the search buffer, which
//! groups queries that arrive together into batches for the embedding model.

mod search_buffer;
#[cfg(test)]
mod search_buffer_tests;
mod stream_query;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use async_trait::async_trait;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_control::Control;
use weir_core::collection_and_labels::MAX_LABEL_VALUE_BYTES;
use weir_core::search::{SearchHit, page_lines_blob_key};
use weir_core::tenancy::KeyScope;
use weir_core::usage::{Usage, UsageMeter as _};
use weir_core::{DocumentId, Rect, TenantId};
use weir_engine::{SearchError, SearchRequest};

use crate::auth::Caller;
use crate::documents::ByteRange;
use crate::http_input::{JsonBody, deserialize_object};
use crate::problem::Problem;
use crate::signed_links::LinkSigner;
use crate::state::AppState;

use search_buffer::PendingSearchHandle;
pub(crate) use search_buffer::{SearchBatchExecutor, SearchBuffer};
pub(crate) use stream_query::{__path_stream_query, stream_query};

/// Maximum number of queries in a batch.
const MAX_BATCH_QUERIES: usize = 32;
/// Maximum length of a query in characters.
const MAX_QUERY_CHARS: usize = 4096;
/// Maximum number of hits of a query.
const MAX_HITS: usize = 100;
/// Maximum number of documents, and of labels, in a filter.
const MAX_FILTER_ENTRIES: usize = 100;
/// Maximum length of a collection or label name in a filter, in characters.
const MAX_FILTER_NAME_CHARS: usize = 256;

/// A search query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchQuery {
    /// Search text.
    #[schema(
        min_length = 1,
        max_length = 4096,
        pattern = r"\S",
        example = "how long is the warranty"
    )]
    query: String,
    /// Maximum number of hits.
    #[serde(default = "default_top_k")]
    #[schema(minimum = 1, maximum = 100, default = 5)]
    top_k: usize,
    /// Restricts the search.
    #[serde(default, deserialize_with = "deserialize_object")]
    filter: SearchFilter,
}

const fn default_top_k() -> usize {
    5
}

/// Id of a document: the SHA-256 hash of its file.
#[derive(ToSchema)]
#[schema(pattern = "^[0-9a-f]{64}$")]
#[allow(dead_code)] // only for the OpenAPI description
pub(crate) struct DocumentHash(String);

/// Restricts a search. A passage must satisfy all conditions.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SearchFilter {
    /// Search only these documents. Empty: all documents.
    #[schema(value_type = Vec<DocumentHash>, max_items = 100)]
    documents: Vec<DocumentId>,
    /// Search only this collection.
    #[schema(max_length = 256)]
    collection: Option<String>,
    /// Search only passages with these labels and values.
    labels: BTreeMap<String, String>,
}

/// The hits of a query.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SearchResults {
    /// Hits, best first.
    hits: Vec<FoundPassage>,
}

/// A passage that matches a query.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FoundPassage {
    /// Id of the document.
    #[schema(value_type = String)]
    document: DocumentId,
    /// Name of the document.
    name: String,
    /// Page number, from 1.
    page: u32,
    /// Text of the passage.
    text: String,
    /// Whether the passage is the summary of a section that begins on the page.
    summary: bool,
    /// Labels of the document and the page. A label of the page overrides a label of the document with the same name.
    labels: BTreeMap<String, String>,
    /// Ranking score. Higher is better; comparable only within one response.
    score: f32,
    /// Cosine similarity of the embeddings of query and text, from -1 to 1.
    similarity: f32,
    /// Whether the match is weak: the text contains no word of the query, and the similarity is below 0.25.
    weak: bool,
    /// Positions of words of the query in the text, including inflected forms, without stop words.
    matches: Vec<ByteRange>,
    /// Position of the passage on the page.
    #[serde(rename = "box")]
    rect: PageBox,
    /// Signed link to the image of the page, valid without a key until it expires; null if no image is stored.
    image_url: Option<String>,
    /// Signed link to the lines of the page.
    lines_url: String,
}

/// A rectangle on a page, in fractions of the width and height of the page. The origin is the upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub(crate) struct PageBox {
    /// Distance from the left edge.
    x: f32,
    /// Distance from the upper edge.
    y: f32,
    /// Width.
    width: f32,
    /// Height.
    height: f32,
}

impl From<Rect> for PageBox {
    fn from(rect: Rect) -> Self {
        let Rect { x, y, width, height } = rect;
        Self { x, y, width, height }
    }
}

/// A batch of queries.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchBatch {
    /// Queries.
    #[schema(min_items = 1, max_items = 32)]
    queries: Vec<SearchQuery>,
}

/// The results of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SearchBatchResults {
    /// One result for each query, in the order of the queries.
    results: Vec<SearchBatchResult>,
}

/// The result of a query in a batch: hits or a problem.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum SearchBatchResult {
    /// The query succeeded.
    Found(SearchResults),
    /// The query failed.
    Failed {
        /// Reason of the failure.
        problem: Problem,
    },
}

impl SearchQuery {
    /// Validates the query and converts it into a request to the engine.
    fn into_engine_request(self, tenant: &TenantId) -> Result<SearchRequest, Problem> {
        let SearchFilter {
            documents,
            collection,
            labels,
        } = self.filter;
        let text = self.query.trim();
        let wrong = if text.is_empty() {
            Some("query must not be empty".to_owned())
        } else if self.query.chars().count() > MAX_QUERY_CHARS {
            Some(format!("query is longer than {MAX_QUERY_CHARS} characters"))
        } else if !(1..=MAX_HITS).contains(&self.top_k) {
            Some(format!("top_k must be from 1 to {MAX_HITS}"))
        } else if documents.len() > MAX_FILTER_ENTRIES || labels.len() > MAX_FILTER_ENTRIES {
            Some(format!(
                "a filter may contain at most {MAX_FILTER_ENTRIES} documents and {MAX_FILTER_ENTRIES} labels"
            ))
        } else if labels
            .keys()
            .chain(&collection)
            .any(|n| n.chars().count() > MAX_FILTER_NAME_CHARS)
        {
            Some(format!(
                "a name in the filter is longer than {MAX_FILTER_NAME_CHARS} characters"
            ))
        } else if labels.values().any(|value| value.len() > MAX_LABEL_VALUE_BYTES) {
            Some(format!(
                "a label value in the filter is longer than {MAX_LABEL_VALUE_BYTES} bytes"
            ))
        } else {
            None
        };
        match wrong {
            Some(wrong) => Err(Problem::unprocessable(wrong)),
            None => Ok(SearchRequest {
                top_k: self.top_k,
                documents,
                collection,
                labels: labels.into_iter().collect(),
                ..SearchRequest::new(tenant.clone(), text)
            }),
        }
    }
}

impl FoundPassage {
    fn new(link_signer: &LinkSigner, tenant: &TenantId, hit: SearchHit) -> Self {
        Self {
            image_url: hit.image.as_deref().map(|key| link_signer.sign_link(tenant, key)),
            lines_url: link_signer.sign_link(tenant, &page_lines_blob_key(&hit.document, hit.page)),
            document: hit.document,
            name: hit.name,
            page: hit.page,
            text: hit.text,
            summary: hit.summary,
            labels: hit.labels,
            score: hit.score,
            similarity: hit.similarity,
            weak: hit.weak,
            matches: hit.matches.into_iter().map(ByteRange::from).collect(),
            rect: hit.rect.into(),
        }
    }
}

#[async_trait]
impl SearchBatchExecutor for Control {
    async fn execute_batch(&self, queries: Vec<SearchRequest>) -> Vec<Result<Vec<SearchHit>, SearchError>> {
        self.engine.search_many(queries).await
    }
}

/// Puts queries of a tenant into the search buffer and counts the accepted ones as usage.
fn enqueue_queries(
    app: &AppState,
    tenant: &TenantId,
    requests: Vec<SearchRequest>,
) -> Vec<Result<PendingSearchHandle, Problem>> {
    let pending_searches = app.search_buffer.enqueue_queries(tenant, requests);
    let usage = Usage {
        searches: pending_searches
            .iter()
            .filter(|pending_search| pending_search.is_ok())
            .count() as u64,
        ..Usage::default()
    };
    app.control.usage_recorder.record_usage(tenant, &usage);
    pending_searches
}

/// Puts one query into the search buffer.
fn enqueue_query(
    app: &AppState,
    tenant: &TenantId,
    request: SearchRequest,
) -> Result<PendingSearchHandle, Problem> {
    enqueue_queries(app, tenant, vec![request])
        .pop()
        .unwrap_or_else(|| Err(Problem::internal_error("the query was lost")))
}

fn build_results(app: &AppState, tenant: &TenantId, hits: Vec<SearchHit>) -> SearchResults {
    let hits = hits
        .into_iter()
        .map(|hit| FoundPassage::new(&app.link_signer, tenant, hit));
    SearchResults { hits: hits.collect() }
}

/// Search passages.
///
/// Pages of a running job become searchable as soon as they are done.
#[utoipa::path(post, path = "/v1/search", tag = "search", request_body = SearchQuery, responses(
    (status = 200, description = "The hits", body = SearchResults),
    (status = 400, description = "The body is not valid JSON", body = Problem, content_type = "application/problem+json"),
    (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "The content type is not application/json", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A value is out of range", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The search buffer is full, or the query timed out", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn search_passages(
    State(app): State<AppState>,
    caller: Caller,
    JsonBody(search): JsonBody<SearchQuery>,
) -> Result<Json<SearchResults>, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let request = search.into_engine_request(caller.tenant_id())?;
    let hits = enqueue_query(&app, caller.tenant_id(), request)?
        .wait_for_hits()
        .await?;
    Ok(Json(build_results(&app, caller.tenant_id(), hits)))
}

/// Search passages with a batch of queries.
///
/// The queries are embedded together. A failed query does not affect the others.
#[utoipa::path(post, path = "/v1/search/batch", tag = "search", request_body = SearchBatch, responses(
    (status = 200, description = "A result for each query", body = SearchBatchResults),
    (status = 400, description = "The body is not valid JSON", body = Problem, content_type = "application/problem+json"),
    (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "The content type is not application/json", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A value is out of range", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The host is stopping", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn search_batch(
    State(app): State<AppState>,
    caller: Caller,
    JsonBody(searches): JsonBody<SearchBatch>,
) -> Result<Json<SearchBatchResults>, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let count = searches.queries.len();
    if !(1..=MAX_BATCH_QUERIES).contains(&count) {
        return Err(Problem::unprocessable(format!(
            "a batch must contain 1 to {MAX_BATCH_QUERIES} queries, not {count}"
        )));
    }
    let requests = searches
        .queries
        .into_iter()
        .map(|search| search.into_engine_request(caller.tenant_id()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut results = Vec::with_capacity(count);
    for pending_search in enqueue_queries(&app, caller.tenant_id(), requests) {
        let result = match pending_search {
            Ok(pending_search) => pending_search.wait_for_hits().await,
            Err(refused) => Err(refused),
        };
        results.push(match result {
            Ok(hits) => SearchBatchResult::Found(build_results(&app, caller.tenant_id(), hits)),
            Err(problem) => SearchBatchResult::Failed { problem },
        });
    }
    Ok(Json(SearchBatchResults { results }))
}
