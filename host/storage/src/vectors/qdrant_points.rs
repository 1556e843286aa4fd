//! Points and filters in the messages of Qdrant's protocol.

use qdrant_client::Payload;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::{
    Condition, Filter, NamedVectors, PointStruct, RetrievedPoint, ScoredPoint, Vector, vector_output,
    vectors_output,
};
use qdrant_edge::SparseVector;
use serde_json::{Map, Value};
use weir_core::{StorageError, TenantId};

use super::passage_filter::PassageFilter;
use super::passage_payload::{DENSE_VECTOR, FoundPoint, KEYS_FIELD, PAGE_FIELD, PassagePoint, SPARSE_VECTOR};

/// The payload's field for the tenant.
pub(super) const TENANT_FIELD: &str = "tenant";

/// Converts a point to a point of the server.
pub(super) fn to_server_point(tenant: &TenantId, point: PassagePoint) -> Result<PointStruct, StorageError> {
    let mut payload = point.payload;
    payload.insert(TENANT_FIELD.into(), tenant.as_str().into());
    let payload = Payload::try_from(Value::Object(payload)).map_err(|error| StorageError::Failed {
        what: "indexing a passage".into(),
        reason: error.to_string(),
    })?;
    let mut vectors = NamedVectors::default().add_vector(DENSE_VECTOR, Vector::new_dense(point.dense_vector));
    if !point.sparse_vector.indices.is_empty() {
        let sparse = Vector::new_sparse(point.sparse_vector.indices, point.sparse_vector.values);
        vectors = vectors.add_vector(SPARSE_VECTOR, sparse);
    }
    Ok(PointStruct::new(point.id.to_string(), vectors, payload))
}

/// Converts a stored point with all its vectors, as [`to_server_point`] has made it.
pub(super) fn from_server_point(point: RetrievedPoint) -> Result<PassagePoint, StorageError> {
    let id = match point.id.and_then(|id| id.point_id_options) {
        Some(PointIdOptions::Uuid(id)) => id,
        _ => String::new(),
    };
    let damaged = |reason: &str| StorageError::Damaged {
        what: format!("point {id} of the index"),
        reason: reason.to_owned(),
    };
    let (mut dense_vector, mut sparse_vector) = (None, SparseVector::default());
    if let Some(vectors_output::VectorsOptions::Vectors(named)) =
        point.vectors.and_then(|vectors| vectors.vectors_options)
    {
        for (name, vector) in named.vectors {
            match (name.as_str(), vector.into_vector()) {
                (DENSE_VECTOR, vector_output::Vector::Dense(dense)) => dense_vector = Some(dense.data),
                (SPARSE_VECTOR, vector_output::Vector::Sparse(sparse)) => {
                    sparse_vector = SparseVector {
                        indices: sparse.indices,
                        values: sparse.values,
                    };
                }
                _ => return Err(damaged("it has a vector that weir does not store")),
            }
        }
    }
    let mut payload: Map<String, Value> = point
        .payload
        .into_iter()
        .map(|(name, value)| (name, value.into_json()))
        .collect();
    payload.remove(TENANT_FIELD);
    Ok(PassagePoint {
        id: id.parse().map_err(|_| damaged("its id is not a UUID"))?,
        dense_vector: dense_vector.ok_or_else(|| damaged("it has no dense vector"))?,
        sparse_vector,
        payload,
    })
}

/// Converts a point of a response.
pub(super) fn to_found_point(point: ScoredPoint) -> FoundPoint {
    let id = match point.id.and_then(|id| id.point_id_options) {
        Some(PointIdOptions::Uuid(id)) => id,
        Some(PointIdOptions::Num(id)) => id.to_string(),
        None => "without an id".into(),
    };
    let dense_vector = match point.vectors.and_then(|vectors| vectors.vectors_options) {
        Some(vectors_output::VectorsOptions::Vectors(mut named)) => named
            .vectors
            .remove(DENSE_VECTOR)
            .and_then(|vector| match vector.into_vector() {
                vector_output::Vector::Dense(dense) => Some(dense.data),
                _ => None,
            }),
        _ => None,
    };
    FoundPoint {
        id,
        score: point.score,
        payload: point
            .payload
            .into_iter()
            .map(|(name, value)| (name, value.into_json()))
            .collect(),
        dense_vector,
    }
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
