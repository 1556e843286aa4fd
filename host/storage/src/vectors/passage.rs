//! How a passage lies in the shard: its payload, its id there, and the filters that find it again.
//!
//! Every filter begins with the tenant, and the id in the shard is derived from the tenant's name, so that no caller can
//! read, overwrite or remove a passage of another tenant, whatever ids it passes.

use qdrant_edge::{
    AnyVariants, Condition, FieldCondition, Filter, IntegerIndexParams, JsonPath, KeywordIndexParams, Match,
    MatchAny, MatchValue, Payload, PayloadFieldSchema, PayloadSchemaParams, PointId, PointStructPersisted,
    ScoredPoint, ValueVariants, VectorPersisted, VectorStructPersisted,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;
use weir_core::decision::Label;
use weir_core::id::is_name;
use weir_core::search::{Hit, Point, Query};
use weir_core::{DocumentId, PageNumber, Rect, StorageError, TenantId};

use super::words::Words;

/// Name of the dense vector.
pub(super) const DENSE: &str = "dense";
/// Name of the sparse vector.
pub(super) const SPARSE: &str = "sparse";
/// Payload key of the page.
pub(super) const PAGE: &str = "page";

/// What is kept with a passage's vectors.
#[derive(Debug, Serialize, Deserialize)]
struct Passage {
    tenant: TenantId,
    collection: String,
    document: DocumentId,
    name: String,
    page: PageNumber,
    passage: u32,
    text: String,
    #[serde(rename = "box")]
    rect: Rect,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
}

/// The indexes a shard keeps of its payload.
pub(super) fn indexes() -> [(&'static str, PayloadFieldSchema); 5] {
    let keyword = |is_tenant| {
        PayloadFieldSchema::FieldParams(PayloadSchemaParams::Keyword(KeywordIndexParams {
            is_tenant,
            ..KeywordIndexParams::default()
        }))
    };
    let integer = PayloadFieldSchema::FieldParams(PayloadSchemaParams::Integer(IntegerIndexParams {
        lookup: Some(true),
        range: Some(false),
        ..IntegerIndexParams::default()
    }));
    [
        ("tenant", keyword(Some(true))),
        ("collection", keyword(None)),
        ("document", keyword(None)),
        ("labels", keyword(None)),
        (PAGE, integer),
    ]
}

/// A point as the shard takes it.
pub(super) fn stored(
    tenant: &TenantId,
    collection: &str,
    point: Point,
    dimensions: usize,
    words: &Words,
) -> Result<PointStructPersisted, StorageError> {
    let wrong = |reason: String| StorageError::Failed {
        what: format!("indexing passage {} of page {}", point.passage, point.page),
        reason,
    };
    if !is_name(collection) {
        return Err(wrong(format!(
            "'{collection}' is not a collection: use 1 to 64 of the characters a-z, 0-9, '-' and '_'"
        )));
    }
    check_dense(&point.dense, dimensions).map_err(wrong)?;
    let sparse = words.of_passage(&point.text);
    let passage = Passage {
        tenant: tenant.clone(),
        collection: collection.to_owned(),
        document: point.document,
        name: point.name,
        page: point.page,
        passage: point.passage,
        text: point.text,
        rect: point.rect,
        image: point.image,
        lines: point.lines,
        labels: point.labels.iter().map(label).collect(),
    };
    let payload = match serde_json::to_value(passage) {
        Ok(Value::Object(fields)) => Payload(fields),
        Ok(_) | Err(_) => {
            return Err(StorageError::Failed {
                what: "indexing a passage".into(),
                reason: "its payload cannot be written as JSON".into(),
            });
        }
    };
    let mut vectors = vec![(DENSE.to_owned(), VectorPersisted::Dense(point.dense))];
    // A text of stop words alone has no sparse vector.
    if !sparse.indices.is_empty() {
        vectors.push((SPARSE.to_owned(), VectorPersisted::Sparse(sparse)));
    }
    Ok(PointStructPersisted {
        id: id_in_shard(tenant, &point.id),
        vector: VectorStructPersisted::Named(vectors.into_iter().collect()),
        payload: Some(payload),
    })
}

/// Whether `dense` may be compared with the vectors of the shard.
pub(super) fn check_dense(dense: &[f32], dimensions: usize) -> Result<(), String> {
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

/// A point of the shard as a hit.
pub(super) fn hit(point: ScoredPoint) -> Result<(Hit, u32), StorageError> {
    let damaged = |reason: String| StorageError::Damaged {
        what: format!("point {} of the index", point.id),
        reason,
    };
    let fields = point.payload.ok_or_else(|| damaged("no payload".into()))?.0;
    let passage: Passage =
        serde_json::from_value(Value::Object(fields)).map_err(|e| damaged(e.to_string()))?;
    let hit = Hit {
        document: passage.document,
        name: passage.name,
        page: passage.page,
        score: point.score,
        text: passage.text,
        rect: passage.rect,
        image: passage.image,
    };
    Ok((hit, passage.passage))
}

/// What a search looks through.
pub(super) fn searched(tenant: &TenantId, query: &Query) -> Filter {
    let mut must = vec![keyword("tenant", tenant.as_str())];
    if let Some(collection) = &query.collection {
        must.push(keyword("collection", collection));
    }
    if !query.documents.is_empty() {
        let documents = query.documents.iter().map(DocumentId::to_string).collect();
        must.push(any("document", AnyVariants::Strings(documents)));
    }
    must.extend(
        query
            .labels
            .iter()
            .map(|wanted| keyword("labels", &label(wanted))),
    );
    all(must)
}

/// The passages of a document, or of some of its pages.
pub(super) fn of_document(tenant: &TenantId, document: &DocumentId, pages: Option<&[PageNumber]>) -> Filter {
    let mut must = vec![
        keyword("tenant", tenant.as_str()),
        keyword("document", &document.to_string()),
    ];
    if let Some(pages) = pages {
        let pages = pages.iter().map(|&page| i64::from(page)).collect();
        must.push(any(PAGE, AnyVariants::Integers(pages)));
    }
    all(must)
}

fn id_in_shard(tenant: &TenantId, id: &Uuid) -> PointId {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_OID, tenant.as_str().as_bytes());
    PointId::Uuid(Uuid::new_v5(&namespace, id.as_bytes()))
}

/// A label as one keyword. JSON keeps `("a=b", "c")` and `("a", "b=c")` apart.
fn label((name, value): &Label) -> String {
    Value::from(vec![name.as_str(), value.as_str()]).to_string()
}

fn all(must: Vec<Condition>) -> Filter {
    Filter {
        must: Some(must),
        should: None,
        min_should: None,
        must_not: None,
    }
}

fn keyword(key: &str, value: &str) -> Condition {
    let value = ValueVariants::String(value.to_owned());
    field(key, Match::Value(MatchValue { value }))
}

fn any(key: &str, any: AnyVariants) -> Condition {
    field(key, Match::Any(MatchAny { any }))
}

fn field(key: &str, matching: Match) -> Condition {
    Condition::Field(FieldCondition::new_match(path(key), matching))
}

/// The path of a top-level payload key.
pub(super) fn path(key: &str) -> JsonPath {
    JsonPath {
        first_key: key.to_owned(),
        rest: Vec::new(),
    }
}
