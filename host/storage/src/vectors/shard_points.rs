//! Points and filters in the types of the in-process shard.

use qdrant_edge::{
    AnyVariants, Condition, CreateIndex, FieldCondition, Filter, JsonPath, KeywordIndexParams, Match,
    MatchAny, MatchValue, Payload, PayloadFieldSchema, PayloadSchemaParams, PointId, PointStructPersisted,
    Record, ScoredPoint, ScrollRequest, SparseVector, ValueVariants, VectorInternal, VectorPersisted,
    VectorStructInternal, VectorStructPersisted, WithPayloadInterface,
};
use weir_core::{DocumentId, PageNumber, StorageError, TenantId};

use super::passage_filter::{FilterKey, PassageFilter};
use super::passage_payload::{
    DENSE_VECTOR, FoundPoint, KEYS_FIELD, PAGE_FIELD, PassagePoint, SPARSE_VECTOR, SUMMARY_PAGE,
};

/// Maximum number of passages of a document that are counted.
const MAX_COUNTED_PASSAGES: usize = 10_000_000;

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

/// Converts a stored point with all its vectors, as [`to_shard_point`] has made it.
pub(super) fn from_shard_point(point: Record) -> Result<PassagePoint, StorageError> {
    let damaged = |reason: &str| StorageError::Damaged {
        what: format!("point {} of the index", point.id),
        reason: reason.to_owned(),
    };
    let PointId::Uuid(id) = point.id else {
        return Err(damaged("its id is not a UUID"));
    };
    let Some(VectorStructInternal::Named(mut named)) = point.vector else {
        return Err(damaged("it has no named vectors"));
    };
    let Some(VectorInternal::Dense(dense_vector)) = named.remove(DENSE_VECTOR) else {
        return Err(damaged("it has no dense vector"));
    };
    let sparse_vector = match named.remove(SPARSE_VECTOR) {
        Some(VectorInternal::Sparse(sparse)) => sparse,
        _ => SparseVector::default(),
    };
    Ok(PassagePoint {
        id,
        dense_vector,
        sparse_vector,
        payload: point.payload.unwrap_or_default().0,
    })
}

/// Converts a point that the shard found.
pub(super) fn to_found_point(point: ScoredPoint) -> FoundPoint {
    let dense_vector = match point.vector {
        Some(VectorStructInternal::Named(mut named)) => match named.remove(DENSE_VECTOR) {
            Some(VectorInternal::Dense(dense)) => Some(dense),
            _ => None,
        },
        _ => None,
    };
    FoundPoint {
        id: point.id.to_string(),
        score: point.score,
        payload: point.payload.unwrap_or_default().0,
        dense_vector,
    }
}

/// Requests all passages of a document, each with its page number only.
pub(super) fn passage_page_numbers_request(tenant: &TenantId, document: &DocumentId) -> ScrollRequest {
    ScrollRequest {
        limit: Some(MAX_COUNTED_PASSAGES),
        filter: Some(to_shard_filter(PassageFilter::of_document(
            tenant, document, None,
        ))),
        with_payload: Some(WithPayloadInterface::Fields(vec![field_path(PAGE_FIELD)])),
        ..ScrollRequest::default()
    }
}

/// Returns the page number in a payload of [`passage_page_numbers_request`]; `None` for a summary.
pub(super) fn page_number_of_payload(payload: Option<&Payload>) -> Option<PageNumber> {
    let page = u32::try_from(payload?.0.get(PAGE_FIELD)?.as_u64()?).ok();
    page.filter(|page| *page != SUMMARY_PAGE)
}

/// Converts a filter.
pub(super) fn to_shard_filter(filter: PassageFilter) -> Filter {
    let mut must = vec![key_condition(FilterKey::Tenant(&filter.tenant).to_string())];
    must.extend(filter.keys.into_iter().map(key_condition));
    if !filter.any_key.is_empty() {
        let any = AnyVariants::Strings(filter.any_key.into_iter().collect());
        must.push(field_condition(KEYS_FIELD, Match::Any(MatchAny { any })));
    }
    if let Some(pages) = filter.pages {
        let any = AnyVariants::Integers(pages.into_iter().map(i64::from).collect());
        must.push(field_condition(PAGE_FIELD, Match::Any(MatchAny { any })));
    }
    all_conditions_filter(must)
}

/// Selects the points with a key, whatever their tenant.
pub(super) fn key_filter(key: String) -> Filter {
    all_conditions_filter(vec![key_condition(key)])
}

fn all_conditions_filter(must: Vec<Condition>) -> Filter {
    Filter {
        must: Some(must),
        should: None,
        min_should: None,
        must_not: None,
    }
}

fn key_condition(key: String) -> Condition {
    let value = ValueVariants::String(key);
    field_condition(KEYS_FIELD, Match::Value(MatchValue { value }))
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
