//! Points and filters in the messages of Qdrant's protocol.

use std::collections::HashMap;

use qdrant_client::Payload;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::{
    Condition, Filter, NamedVectors, PointId, PointStruct, RetrievedPoint, ScoredPoint, Vector,
    VectorsOutput, vector_output, vectors_output,
};
use serde_json::{Map, Value};
use weir_core::{StorageError, TenantId};

use super::passage_filter::PassageFilter;
use super::passage_payload::{
    FoundPoint, KEYS_FIELD, PAGE_FIELD, PassagePayload, PassagePoint, damaged_point,
};
use super::sparse_vector::SparseVector;
use super::words::WordSplitter;

/// The name of the dense vector.
pub(super) const DENSE_VECTOR: &str = "dense";
/// The name of the sparse vector.
pub(super) const SPARSE_VECTOR: &str = "sparse";
/// The payload's field for the tenant.
pub(super) const TENANT_FIELD: &str = "tenant";

/// Converts a point to a point of the server.
pub(super) fn to_server_point(
    tenant: &TenantId,
    point: PassagePoint,
    splitter: &WordSplitter,
) -> Result<PointStruct, StorageError> {
    let wrong = |reason: String| StorageError::Failed {
        what: "indexing a passage".into(),
        reason,
    };
    let words = SparseVector::of_passage(&splitter.split(&point.payload.text));
    let mut payload = serde_json::to_value(point.payload).map_err(|error| wrong(error.to_string()))?;
    if let Some(fields) = payload.as_object_mut() {
        fields.insert(TENANT_FIELD.into(), tenant.as_str().into());
    }
    let payload = Payload::try_from(payload).map_err(|error| wrong(error.to_string()))?;
    let mut vectors = NamedVectors::default().add_vector(DENSE_VECTOR, Vector::new_dense(point.dense_vector));
    // A text of stop words only has no words.
    if !words.indices.is_empty() {
        vectors = vectors.add_vector(SPARSE_VECTOR, Vector::new_sparse(words.indices, words.values));
    }
    Ok(PointStruct::new(point.id.to_string(), vectors, payload))
}

/// Converts a stored point with its dense vector, as [`to_server_point`] has made it.
pub(super) fn from_server_point(point: RetrievedPoint) -> Result<PassagePoint, StorageError> {
    let id = id_text(point.id.as_ref());
    let dense_vector = take_dense_vector(point.vectors);
    Ok(PassagePoint {
        dense_vector: dense_vector.ok_or_else(|| damaged_point(&id, "it has no dense vector"))?,
        payload: parse_payload(&id, point.payload)?,
        id: id
            .parse()
            .map_err(|_| damaged_point(&id, "its id is not a UUID"))?,
    })
}

/// Converts a point of a response.
pub(super) fn to_found_point(point: ScoredPoint) -> Result<FoundPoint, StorageError> {
    let id = id_text(point.id.as_ref());
    let dense_vector = take_dense_vector(point.vectors);
    Ok(FoundPoint {
        score: point.score,
        payload: parse_payload(&id, point.payload)?,
        dense_vector: dense_vector.ok_or_else(|| damaged_point(&id, "it has no dense vector"))?,
    })
}

fn id_text(id: Option<&PointId>) -> String {
    match id.and_then(|id| id.point_id_options.as_ref()) {
        Some(PointIdOptions::Uuid(id)) => id.clone(),
        Some(PointIdOptions::Num(id)) => id.to_string(),
        None => "without an id".into(),
    }
}

fn take_dense_vector(vectors: Option<VectorsOutput>) -> Option<Vec<f32>> {
    match vectors?.vectors_options? {
        vectors_output::VectorsOptions::Vectors(mut named) => {
            match named.vectors.remove(DENSE_VECTOR)?.into_vector() {
                vector_output::Vector::Dense(dense) => Some(dense.data),
                _ => None,
            }
        }
        vectors_output::VectorsOptions::Vector(_) => None,
    }
}

fn parse_payload(
    id: &str,
    payload: HashMap<String, qdrant_client::qdrant::Value>,
) -> Result<PassagePayload, StorageError> {
    let fields: Map<String, Value> = payload
        .into_iter()
        .map(|(name, value)| (name, value.into_json()))
        .collect();
    serde_json::from_value(Value::Object(fields)).map_err(|error| damaged_point(id, error))
}

/// Selects the points that have exactly this value in a field. The client would convert a text with spaces to a full-text condition, which
/// matches other values.
fn exact_condition(field: &str, value: impl Into<String>) -> Condition {
    Condition::matches(field, MatchValue::Keyword(value.into()))
}

/// Converts a filter. The tenant has a field of its own, whose index is the tenant's.
pub(super) fn to_server_filter(filter: PassageFilter) -> Filter {
    let mut must = vec![exact_condition(TENANT_FIELD, filter.tenant.as_str())];
    must.extend(
        filter
            .keys
            .into_iter()
            .map(|key| exact_condition(KEYS_FIELD, key)),
    );
    if !filter.any_key.is_empty() {
        must.push(Condition::matches(KEYS_FIELD, filter.any_key));
    }
    if let Some(pages) = filter.pages {
        let pages: Vec<i64> = pages.into_iter().map(i64::from).collect();
        must.push(Condition::matches(PAGE_FIELD, pages));
    }
    Filter::must(must)
}
