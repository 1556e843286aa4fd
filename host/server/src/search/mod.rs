//! Finding passages: one query, several, or one as a stream. All of them go through the stream buffer.

mod buffer;
#[cfg(test)]
mod buffer_tests;
mod stream_query;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_core::filing::LABEL_VALUE;
use weir_core::search::{Hit, lines_key};
use weir_core::tenancy::Scope;
use weir_core::usage::{Meter as _, Usage};
use weir_core::{DocumentId, Rect, TenantId};
use weir_engine::{SearchError, SearchRequest};

use crate::app::App;
use crate::auth::Caller;
use crate::documents::Span;
use crate::problem::Problem;
use crate::wire::{Body, object};

use buffer::Ticket;
pub(crate) use buffer::{Answers, SearchBuffer};
pub(crate) use stream_query::{__path_stream_query, stream_query};

/// Queries of one request.
const QUERIES: usize = 32;
/// Characters of a query.
const QUERY_LENGTH: usize = 4096;
/// Most hits of a query.
const MOST_HITS: usize = 100;
/// Documents and labels that a filter may name.
const FILTERED: usize = 100;
/// Characters of a name in a filter.
const NAME_LENGTH: usize = 256;

/// A query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    /// What is looked for, in words.
    #[schema(
        min_length = 1,
        max_length = 4096,
        pattern = r"\S",
        example = "how long is the warranty"
    )]
    query: String,
    /// Hits wanted.
    #[serde(default = "five")]
    #[schema(minimum = 1, maximum = 100, default = 5)]
    top_k: usize,
    /// Where it is looked for.
    #[serde(default, deserialize_with = "object")]
    filter: Filter,
}

const fn five() -> usize {
    5
}

/// A document's id: the SHA-256 of its bytes.
#[derive(ToSchema)]
#[schema(pattern = "^[0-9a-f]{64}$")]
#[allow(dead_code)] // only its description is used
pub(crate) struct DocumentHash(String);

/// Narrows a search; everything named must hold.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Filter {
    /// Only in these documents; in all if none are named.
    #[schema(value_type = Vec<DocumentHash>, max_items = 100)]
    documents: Vec<DocumentId>,
    /// Only in this collection.
    #[schema(max_length = 256)]
    collection: Option<String>,
    /// Only where these labels have these values.
    labels: BTreeMap<String, String>,
}

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Found {
    /// The best first.
    hits: Vec<FoundPassage>,
}

/// A passage that was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FoundPassage {
    /// Its document.
    #[schema(value_type = String)]
    document: DocumentId,
    /// The document's name.
    name: String,
    /// Its page, from 1.
    page: u32,
    /// Its text.
    text: String,
    /// Whether it is the summary of a section, which begins on the page.
    summary: bool,
    /// Labels of its document and page; the page's where both have one by a name.
    labels: BTreeMap<String, String>,
    /// Higher is better; only comparable within one answer.
    score: f32,
    /// How close query and text are in meaning: the cosine similarity of their embeddings, from -1 to 1.
    similarity: f32,
    /// Whether it is only the nearest there is: no word of the query stands in it, and its similarity is below 0.25.
    weak: bool,
    /// Where words of the query stand in the text, in any of their forms. Stop words are left out.
    matches: Vec<Span>,
    /// Where it stands on the page.
    #[serde(rename = "box")]
    rect: PageBox,
    /// A link to the page's image that works without a key for a while, if the image is kept.
    image_url: Option<String>,
    /// The same to the page's lines.
    lines_url: String,
}

/// A part of a page, in shares of its width and height from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub(crate) struct PageBox {
    /// From the left edge.
    x: f32,
    /// From the upper edge.
    y: f32,
    /// Its width.
    width: f32,
    /// Its height.
    height: f32,
}

impl From<Rect> for PageBox {
    fn from(rect: Rect) -> Self {
        let Rect { x, y, width, height } = rect;
        Self { x, y, width, height }
    }
}

/// Several queries.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Searches {
    /// The queries.
    #[schema(min_items = 1, max_items = 32)]
    queries: Vec<Search>,
}

/// Answers in the order of the queries.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Answered {
    /// One for each query.
    results: Vec<Outcome>,
}

/// The answer to one of several queries: hits, or a problem.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Outcome {
    /// It was answered.
    Found(Found),
    /// It was not.
    Failed {
        /// Why.
        problem: Problem,
    },
}

impl Search {
    /// What the engine is asked, once it is within bounds.
    fn request(self, tenant: &TenantId) -> Result<SearchRequest, Problem> {
        let Filter {
            documents,
            collection,
            labels,
        } = self.filter;
        let text = self.query.trim();
        let wrong = if text.is_empty() {
            Some("query is empty: say what is looked for".to_owned())
        } else if self.query.chars().count() > QUERY_LENGTH {
            Some(format!("query is longer than {QUERY_LENGTH} characters"))
        } else if !(1..=MOST_HITS).contains(&self.top_k) {
            Some(format!("top_k is from 1 to {MOST_HITS}"))
        } else if documents.len() > FILTERED || labels.len() > FILTERED {
            Some(format!(
                "a filter names at most {FILTERED} documents and {FILTERED} labels"
            ))
        } else if labels
            .keys()
            .chain(&collection)
            .any(|n| n.chars().count() > NAME_LENGTH)
        {
            Some(format!(
                "a name in the filter is longer than {NAME_LENGTH} characters"
            ))
        } else if labels.values().any(|value| value.len() > LABEL_VALUE) {
            Some(format!(
                "the value of a label in the filter is longer than {LABEL_VALUE} bytes"
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
    fn new(app: &App, tenant: &TenantId, hit: Hit) -> Self {
        Self {
            image_url: hit.image.as_deref().map(|key| app.links.to(tenant, key)),
            lines_url: app.links.to(tenant, &lines_key(&hit.document, hit.page)),
            document: hit.document,
            name: hit.name,
            page: hit.page,
            text: hit.text,
            summary: hit.summary,
            labels: hit.labels,
            score: hit.score,
            similarity: hit.similarity,
            weak: hit.weak,
            matches: hit.matches.into_iter().map(Span::from).collect(),
            rect: hit.rect.into(),
        }
    }
}

#[async_trait]
impl Answers for App {
    async fn answer(&self, queries: Vec<SearchRequest>) -> Vec<Result<Vec<Hit>, SearchError>> {
        self.engine.search_many(queries).await
    }
}

/// Puts queries of a tenant into the buffer.
fn put(app: &App, tenant: &TenantId, requests: Vec<SearchRequest>) -> Vec<Result<Ticket, Problem>> {
    let tickets = app.searches.put(tenant, requests);
    let usage = Usage {
        searches: tickets.iter().filter(|ticket| ticket.is_ok()).count() as u64,
        ..Usage::default()
    };
    app.metering.used(tenant, &usage);
    tickets
}

/// Puts one query in.
fn ask(app: &App, tenant: &TenantId, request: SearchRequest) -> Result<Ticket, Problem> {
    put(app, tenant, vec![request])
        .pop()
        .unwrap_or_else(|| Err(Problem::internal("the query was lost")))
}

fn found(app: &App, tenant: &TenantId, hits: Vec<Hit>) -> Found {
    let hits = hits.into_iter().map(|hit| FoundPassage::new(app, tenant, hit));
    Found { hits: hits.collect() }
}

/// Finds passages.
///
/// Documents still in work are searched as far as they have come.
#[utoipa::path(post, path = "/v1/search", tag = "search", request_body = Search, responses(
    (status = 200, description = "the hits", body = Found),
    (status = 400, description = "no JSON", body = Problem, content_type = "application/problem+json"),
    (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "too large", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "no JSON by its type", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "out of bounds", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "too many queries wait", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn search(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(search): Body<Search>,
) -> Result<Json<Found>, Problem> {
    caller.may(Scope::Read)?;
    let request = search.request(caller.id())?;
    let hits = ask(&app, caller.id(), request)?.answer().await?;
    Ok(Json(found(&app, caller.id(), hits)))
}

/// Answers several queries.
///
/// They are embedded together. A query that fails does not fail the others.
#[utoipa::path(post, path = "/v1/search/batch", tag = "search", request_body = Searches, responses(
    (status = 200, description = "an answer to each query", body = Answered),
    (status = 400, description = "no JSON", body = Problem, content_type = "application/problem+json"),
    (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "too large", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "no JSON by its type", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "out of bounds", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "the host is stopping", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn search_batch(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(searches): Body<Searches>,
) -> Result<Json<Answered>, Problem> {
    caller.may(Scope::Read)?;
    let count = searches.queries.len();
    if !(1..=QUERIES).contains(&count) {
        return Err(Problem::unprocessable(format!(
            "queries are from 1 to {QUERIES}, not {count}"
        )));
    }
    let requests = searches
        .queries
        .into_iter()
        .map(|search| search.request(caller.id()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut results = Vec::with_capacity(count);
    for ticket in put(&app, caller.id(), requests) {
        let answer = match ticket {
            Ok(ticket) => ticket.answer().await,
            Err(refused) => Err(refused),
        };
        results.push(match answer {
            Ok(hits) => Outcome::Found(found(&app, caller.id(), hits)),
            Err(problem) => Outcome::Failed { problem },
        });
    }
    Ok(Json(Answered { results }))
}
