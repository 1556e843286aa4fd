//! The representation of a passage in an index, the same in the shard and on a server: its payload, its point id and its vectors.
//!
//! The point id is derived from the tenant's name, and every filter has the tenant (`passage_filter.rs`). So no caller can read, overwrite
//! or remove a passage of another tenant, whatever ids it passes.

use qdrant_edge::SparseVector;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;
use weir_core::id::is_valid_name;
use weir_core::search::{IndexPoint, SearchHit, SearchQuery, WEAK_SIMILARITY};
use weir_core::{DocumentId, PageNumber, Rect, StorageError, TenantId};

use super::bm25::Bm25Encoder;
use super::passage_filter::{FilterKey, parse_label_key, parse_tenant_key};
use super::query_word_matcher::QueryWordMatcher;

/// The name of the dense vector.
pub(super) const DENSE_VECTOR: &str = "dense";
/// The name of the sparse vector.
pub(super) const SPARSE_VECTOR: &str = "sparse";
/// The payload's field for the keys by which filters select passages ([`FilterKey`]).
pub(super) const KEYS_FIELD: &str = "keys";
/// The payload's field for the page number.
pub(super) const PAGE_FIELD: &str = "page";
/// The page number of summaries, which belong to no page.
pub(super) const SUMMARY_PAGE: PageNumber = 0;
/// Maximum number of points in one update, which limits the size of a request to a server and of an entry in the shard's log.
const MAX_POINTS_PER_UPDATE: usize = 128;

/// The payload that is stored with a passage's vectors.
#[derive(Debug, Serialize, Deserialize)]
struct PassagePayload {
    keys: Vec<String>,
    document: DocumentId,
    name: String,
    /// [`SUMMARY_PAGE`] for a summary, which is not counted with a page's passages and stays when they are replaced.
    page: PageNumber,
    /// The first page of a summary's section; `None` for other passages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_page: Option<PageNumber>,
    passage: u32,
    text: String,
    #[serde(rename = "box")]
    rect: Rect,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<String>,
}

/// The id, the vectors and the payload of a passage.
pub(super) struct PassagePoint {
    pub(super) id: Uuid,
    pub(super) dense_vector: Vec<f32>,
    /// Empty for a text with stop words only.
    pub(super) sparse_vector: SparseVector,
    pub(super) payload: Map<String, Value>,
}

impl PassagePoint {
    /// Returns the tenant, by the keys in the payload.
    pub(super) fn tenant(&self) -> Option<TenantId> {
        let keys = self.payload.get(KEYS_FIELD)?.as_array()?;
        let mut keys = keys.iter().filter_map(Value::as_str);
        keys.find_map(parse_tenant_key)
    }
}

/// Converts a passage to a point of an index. Fails if its collection or its vector is invalid.
pub(super) fn to_passage_point(
    tenant: &TenantId,
    collection: &str,
    point: IndexPoint,
    dimensions: usize,
    encoder: &Bm25Encoder,
) -> Result<PassagePoint, StorageError> {
    let wrong = |reason: String| StorageError::Failed {
        what: format!("indexing passage {} of page {}", point.passage, point.page),
        reason,
    };
    if !is_valid_name(collection) {
        return Err(wrong(format!(
            "'{collection}' is not a valid collection: use 1 to 64 of the characters a-z, 0-9, '-' and '_'"
        )));
    }
    check_dense_vector(&point.dense_vector, dimensions).map_err(wrong)?;
    let keys = [
        FilterKey::Tenant(tenant),
        FilterKey::Collection(collection),
        FilterKey::Document(&point.document),
    ];
    let keys = keys.into_iter().chain(point.labels.iter().map(FilterKey::Label));
    let is_summary = point.is_summary();
    let sparse_vector = encoder.encode_passage(&point.text);
    let passage = PassagePayload {
        keys: keys.map(|key| key.to_string()).collect(),
        document: point.document,
        name: point.document_name,
        page: if is_summary { SUMMARY_PAGE } else { point.page },
        first_page: is_summary.then_some(point.page),
        passage: point.passage,
        text: point.text,
        rect: point.rect,
        image: point.image,
        lines: point.lines,
    };
    let Ok(Value::Object(payload)) = serde_json::to_value(passage) else {
        return Err(StorageError::Failed {
            what: "indexing a passage".into(),
            reason: "its payload cannot be written as JSON".into(),
        });
    };
    Ok(PassagePoint {
        id: derive_point_id(tenant, &point.id),
        dense_vector: point.dense_vector,
        sparse_vector,
        payload,
    })
}

/// Splits points into groups of at most [`MAX_POINTS_PER_UPDATE`], without copying them.
pub(super) fn split_into_updates<P>(mut points: Vec<P>) -> impl Iterator<Item = Vec<P>> {
    std::iter::from_fn(move || {
        let rest = points.split_off(points.len().min(MAX_POINTS_PER_UPDATE));
        let update = std::mem::replace(&mut points, rest);
        (!update.is_empty()).then_some(update)
    })
}

/// Checks that `dense` can be compared with the vectors of the index.
fn check_dense_vector(dense: &[f32], dimensions: usize) -> Result<(), String> {
    if dense.len() != dimensions {
        Err(format!(
            "its vector has {} dimensions, the index {dimensions}",
            dense.len()
        ))
    } else if dense.iter().any(|x| !x.is_finite()) {
        Err("its vector has a component that is not a number".into())
    } else {
        Ok(())
    }
}

/// Checks that a query can be compared with the vectors of the index.
pub(super) fn check_query(query: &SearchQuery, dimensions: usize) -> Result<(), StorageError> {
    check_dense_vector(&query.dense_vector, dimensions).map_err(|reason| StorageError::Failed {
        what: "searching".into(),
        reason,
    })
}

/// A point that a search found.
pub(super) struct FoundPoint {
    /// The point's id as text, for errors.
    pub(super) id: String,
    pub(super) score: f32,
    pub(super) payload: Map<String, Value>,
    /// The dense vector, which has unit length.
    pub(super) dense_vector: Option<Vec<f32>>,
}

/// Converts a found point to a hit for a query, with the passage's number on its page.
pub(super) fn to_search_hit(
    point: FoundPoint,
    query: &[f32],
    matcher: &mut QueryWordMatcher<'_>,
) -> Result<(SearchHit, u32), StorageError> {
    let dense_vector = point.dense_vector.as_deref();
    let similarity = dense_vector.map_or(0.0, |dense| cosine_similarity(dense, query));
    let passage: PassagePayload =
        serde_json::from_value(Value::Object(point.payload)).map_err(|e| StorageError::Damaged {
            what: format!("point {} of the index", point.id),
            reason: e.to_string(),
        })?;
    let matches = matcher.find_matches(&passage.text);
    let hit = SearchHit {
        document: passage.document,
        name: passage.name,
        page: passage.first_page.unwrap_or(passage.page),
        summary: passage.first_page.is_some(),
        score: point.score,
        similarity,
        weak: matches.is_empty() && similarity < WEAK_SIMILARITY,
        matches,
        text: passage.text,
        rect: passage.rect,
        labels: passage
            .keys
            .iter()
            .filter_map(|key| parse_label_key(key))
            .collect(),
        image: passage.image,
    };
    Ok((hit, passage.passage))
}

/// Returns the cosine similarity of a vector of unit length and a query.
fn cosine_similarity(dense: &[f32], query: &[f32]) -> f32 {
    let product: f32 = dense.iter().zip(query).map(|(a, b)| a * b).sum();
    let length = query.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        (product / length).clamp(-1.0, 1.0)
    } else {
        0.0
    }
}

fn derive_point_id(tenant: &TenantId, id: &Uuid) -> Uuid {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_OID, tenant.as_str().as_bytes());
    Uuid::new_v5(&namespace, id.as_bytes())
}
