//! The representation of a passage in an index: its payload, its point id, and the filters that select it in the shard.
//!
//! Every filter begins with the tenant, and the point id is derived from the tenant's name. So no caller can read, overwrite or remove a
//! passage of another tenant, whatever ids it passes.

use std::fmt;

use qdrant_edge::{
    AnyVariants, Condition, CreateIndex, FieldCondition, Filter, JsonPath, KeywordIndexParams, Match,
    MatchAny, MatchValue, Payload, PayloadFieldSchema, PayloadSchemaParams, PointId, PointStructPersisted,
    ScoredPoint, ScrollRequest, SparseVector, ValueVariants, VectorInternal, VectorPersisted,
    VectorStructInternal, VectorStructPersisted, WithPayloadInterface,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;
use weir_core::decision::Label;
use weir_core::id::is_valid_name;
use weir_core::search::{IndexPoint, SearchHit, SearchQuery, WEAK_SIMILARITY};
use weir_core::{DocumentId, PageNumber, Rect, StorageError, TenantId};

use super::bm25::Bm25Encoder;
use super::query_word_matcher::QueryWordMatcher;

/// The name of the dense vector.
pub(super) const DENSE_VECTOR: &str = "dense";
/// The name of the sparse vector.
pub(super) const SPARSE_VECTOR: &str = "sparse";
/// The indexed field of the payload; see [`keys_index_request`].
pub(super) const KEYS_FIELD: &str = "keys";
/// The payload's field for the page number.
pub(super) const PAGE_FIELD: &str = "page";
/// The page number of summaries, which belong to no page.
pub(super) const SUMMARY_PAGE: PageNumber = 0;
/// Maximum number of passages of a document that are counted.
const MAX_COUNTED_PASSAGES: usize = 10_000_000;

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

/// Returns the shard's only payload index, which has the keys of all filters.
///
/// An index for each field is usual, but a flush syncs ten files for each index, one after the other, and changes wait meanwhile.
pub(super) fn keys_index_request() -> CreateIndex {
    CreateIndex {
        field_name: field_path(KEYS_FIELD),
        field_schema: Some(PayloadFieldSchema::FieldParams(PayloadSchemaParams::Keyword(
            KeywordIndexParams::default(),
        ))),
    }
}

/// A key of a passage in [`KEYS_FIELD`], by which filters select it.
pub(super) enum FilterKey<'a> {
    Tenant(&'a TenantId),
    Collection(&'a str),
    Document(&'a DocumentId),
    Label(&'a Label),
}

impl fmt::Display for FilterKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Self::Collection(collection) => write!(f, "collection {collection}"),
            Self::Document(document) => write!(f, "document {document}"),
            // JSON distinguishes ("a=b", "c") from ("a", "b=c").
            Self::Label((name, value)) => {
                write!(f, "label {}", Value::from(vec![name.as_str(), value.as_str()]))
            }
        }
    }
}

/// Parses a key of [`KEYS_FIELD`] as a label; `None` if it is not a label's key.
fn parse_label_key(key: &str) -> Option<Label> {
    serde_json::from_str(key.strip_prefix("label ")?).ok()
}

/// The id, the vectors and the payload of a passage.
pub(super) struct PassagePoint {
    pub(super) id: Uuid,
    pub(super) dense_vector: Vec<f32>,
    /// Empty for a text with stop words only.
    pub(super) sparse_vector: SparseVector,
    pub(super) payload: Map<String, Value>,
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

/// Converts a point to a point of the shard.
pub(super) fn to_shard_point(point: PassagePoint) -> PointStructPersisted {
    let mut vectors = vec![(
        DENSE_VECTOR.to_owned(),
        VectorPersisted::Dense(point.dense_vector),
    )];
    if !point.sparse_vector.indices.is_empty() {
        vectors.push((
            SPARSE_VECTOR.to_owned(),
            VectorPersisted::Sparse(point.sparse_vector),
        ));
    }
    PointStructPersisted {
        id: PointId::Uuid(point.id),
        vector: VectorStructPersisted::Named(vectors.into_iter().collect()),
        payload: Some(Payload(point.payload)),
    }
}

/// Checks that `dense` can be compared with the vectors of the shard.
pub(super) fn check_dense_vector(dense: &[f32], dimensions: usize) -> Result<(), String> {
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

/// A point that a search found.
pub(super) struct FoundPoint {
    /// The point's id as text, for errors.
    pub(super) id: String,
    pub(super) score: f32,
    pub(super) payload: Map<String, Value>,
    /// The dense vector, which has unit length.
    pub(super) dense_vector: Option<Vec<f32>>,
}

impl From<ScoredPoint> for FoundPoint {
    fn from(point: ScoredPoint) -> Self {
        let dense_vector = match point.vector {
            Some(VectorStructInternal::Named(mut named)) => match named.remove(DENSE_VECTOR) {
                Some(VectorInternal::Dense(dense)) => Some(dense),
                _ => None,
            },
            _ => None,
        };
        Self {
            id: point.id.to_string(),
            score: point.score,
            payload: point.payload.unwrap_or_default().0,
            dense_vector,
        }
    }
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

/// Returns the filter of a search.
pub(super) fn search_filter(tenant: &TenantId, query: &SearchQuery) -> Filter {
    let mut must = vec![key_condition(&FilterKey::Tenant(tenant))];
    if let Some(collection) = &query.collection {
        must.push(key_condition(&FilterKey::Collection(collection)));
    }
    if !query.documents.is_empty() {
        let documents = query.documents.iter();
        let documents = documents
            .map(|document| FilterKey::Document(document).to_string())
            .collect();
        must.push(any_value_condition(KEYS_FIELD, AnyVariants::Strings(documents)));
    }
    must.extend(
        query
            .labels
            .iter()
            .map(|label| key_condition(&FilterKey::Label(label))),
    );
    all_conditions_filter(must)
}

/// Selects all passages of a tenant.
pub(super) fn tenant_filter(tenant: &TenantId) -> Filter {
    all_conditions_filter(vec![key_condition(&FilterKey::Tenant(tenant))])
}

/// Selects the passages of a document, or of some of its pages.
pub(super) fn document_filter(
    tenant: &TenantId,
    document: &DocumentId,
    pages: Option<&[PageNumber]>,
) -> Filter {
    let mut must = vec![
        key_condition(&FilterKey::Tenant(tenant)),
        key_condition(&FilterKey::Document(document)),
    ];
    if let Some(pages) = pages {
        let pages = pages.iter().map(|&page| i64::from(page)).collect();
        must.push(any_value_condition(PAGE_FIELD, AnyVariants::Integers(pages)));
    }
    all_conditions_filter(must)
}

/// Requests all passages of a document, each with its page number only.
pub(super) fn passage_page_numbers_request(tenant: &TenantId, document: &DocumentId) -> ScrollRequest {
    ScrollRequest {
        limit: Some(MAX_COUNTED_PASSAGES),
        filter: Some(document_filter(tenant, document, None)),
        with_payload: Some(WithPayloadInterface::Fields(vec![field_path(PAGE_FIELD)])),
        ..ScrollRequest::default()
    }
}

/// Returns the page number in a payload of [`passage_page_numbers_request`]; `None` for a summary.
pub(super) fn page_number_of_payload(payload: Option<&Payload>) -> Option<PageNumber> {
    let page = u32::try_from(payload?.0.get(PAGE_FIELD)?.as_u64()?).ok();
    page.filter(|page| *page != SUMMARY_PAGE)
}

fn derive_point_id(tenant: &TenantId, id: &Uuid) -> Uuid {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_OID, tenant.as_str().as_bytes());
    Uuid::new_v5(&namespace, id.as_bytes())
}

fn all_conditions_filter(must: Vec<Condition>) -> Filter {
    Filter {
        must: Some(must),
        should: None,
        min_should: None,
        must_not: None,
    }
}

/// Selects the passages with a key.
pub(super) fn key_filter(key: String) -> Filter {
    let value = ValueVariants::String(key);
    all_conditions_filter(vec![field_condition(
        KEYS_FIELD,
        Match::Value(MatchValue { value }),
    )])
}

fn key_condition(key: &FilterKey<'_>) -> Condition {
    let value = ValueVariants::String(key.to_string());
    field_condition(KEYS_FIELD, Match::Value(MatchValue { value }))
}

fn any_value_condition(key: &str, any: AnyVariants) -> Condition {
    field_condition(key, Match::Any(MatchAny { any }))
}

fn field_condition(key: &str, matching: Match) -> Condition {
    Condition::Field(FieldCondition::new_match(field_path(key), matching))
}

/// Returns the JSON path of a payload field.
fn field_path(key: &str) -> JsonPath {
    JsonPath {
        first_key: key.to_owned(),
        rest: Vec::new(),
    }
}
