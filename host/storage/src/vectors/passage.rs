//! How a passage lies in the shard: its payload, its id there, and the filters that find it again.
//!
//! Every filter begins with the tenant, and the id in the shard is derived from the tenant's name, so that no caller can
//! read, overwrite or remove a passage of another tenant, whatever ids it passes.

use std::fmt;

use qdrant_edge::{
    AnyVariants, Condition, CreateIndex, FieldCondition, Filter, JsonPath, KeywordIndexParams, Match,
    MatchAny, MatchValue, Payload, PayloadFieldSchema, PayloadSchemaParams, PointId, PointStructPersisted,
    ScoredPoint, ScrollRequest, ValueVariants, VectorInternal, VectorPersisted, VectorStructInternal,
    VectorStructPersisted, WithPayloadInterface,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;
use weir_core::decision::Label;
use weir_core::id::is_name;
use weir_core::search::{Hit, Point, Query, WEAK_SIMILARITY};
use weir_core::{DocumentId, PageNumber, Rect, StorageError, TenantId};

use super::matches::QueryWords;
use super::words::Words;

/// Name of the dense vector.
pub(super) const DENSE: &str = "dense";
/// Name of the sparse vector.
pub(super) const SPARSE: &str = "sparse";
/// Field of the payload that is indexed; see [`index`].
const KEYS: &str = "keys";
/// Field of the page.
const PAGE: &str = "page";
/// Page of the summaries, which are passages of none.
pub(super) const NO_PAGE: PageNumber = 0;
/// Passages of a document that are counted.
const MAX_COUNTED: usize = 10_000_000;

/// What is kept with a passage's vectors.
#[derive(Debug, Serialize, Deserialize)]
struct Passage {
    keys: Vec<String>,
    document: DocumentId,
    name: String,
    /// [`NO_PAGE`] for a summary: it is not counted with a page's passages and stays when they are replaced.
    page: PageNumber,
    /// Where the section of a summary begins.
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

/// The index a shard keeps of its payload: one, of everything that filters ask for by name and value.
///
/// An index for each field would be the usual way, but a flush syncs ten files for each, one after the other, and changes wait
/// for it.
pub(super) fn index() -> CreateIndex {
    CreateIndex {
        field_name: path(KEYS),
        field_schema: Some(PayloadFieldSchema::FieldParams(PayloadSchemaParams::Keyword(
            KeywordIndexParams::default(),
        ))),
    }
}

/// What a passage is filed under in [`KEYS`].
enum Key<'a> {
    Tenant(&'a TenantId),
    Collection(&'a str),
    Document(&'a DocumentId),
    Label(&'a Label),
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Self::Collection(collection) => write!(f, "collection {collection}"),
            Self::Document(document) => write!(f, "document {document}"),
            // JSON keeps ("a=b", "c") and ("a", "b=c") apart.
            Self::Label((name, value)) => {
                write!(f, "label {}", Value::from(vec![name.as_str(), value.as_str()]))
            }
        }
    }
}

/// The label that a passage is filed under by a key of [`KEYS`].
fn label(key: &str) -> Option<Label> {
    serde_json::from_str(key.strip_prefix("label ")?).ok()
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
    let keys = [
        Key::Tenant(tenant),
        Key::Collection(collection),
        Key::Document(&point.document),
    ];
    let keys = keys.into_iter().chain(point.labels.iter().map(Key::Label));
    let is_summary = point.is_summary();
    let passage = Passage {
        keys: keys.map(|key| key.to_string()).collect(),
        document: point.document,
        name: point.name,
        page: if is_summary { NO_PAGE } else { point.page },
        first_page: is_summary.then_some(point.page),
        passage: point.passage,
        text: point.text,
        rect: point.rect,
        image: point.image,
        lines: point.lines,
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

/// A point of the shard as a hit for a query.
pub(super) fn hit(
    point: ScoredPoint,
    query: &[f32],
    words: &mut QueryWords<'_>,
) -> Result<(Hit, u32), StorageError> {
    let similarity = similarity(point.vector.as_ref(), query);
    let damaged = |reason: String| StorageError::Damaged {
        what: format!("point {} of the index", point.id),
        reason,
    };
    let fields = point.payload.ok_or_else(|| damaged("no payload".into()))?.0;
    let passage: Passage =
        serde_json::from_value(Value::Object(fields)).map_err(|e| damaged(e.to_string()))?;
    let matches = words.find(&passage.text);
    let hit = Hit {
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
        labels: passage.keys.iter().filter_map(|key| label(key)).collect(),
        image: passage.image,
    };
    Ok((hit, passage.passage))
}

/// Cosine similarity of a point and a query; 0 if the point came without its vector. The vectors of the shard are of unit length.
fn similarity(vector: Option<&VectorStructInternal>, query: &[f32]) -> f32 {
    let Some(VectorStructInternal::Named(named)) = vector else {
        return 0.0;
    };
    let Some(VectorInternal::Dense(dense)) = named.get(DENSE) else {
        return 0.0;
    };
    let product: f32 = dense.iter().zip(query).map(|(a, b)| a * b).sum();
    let length = query.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        (product / length).clamp(-1.0, 1.0)
    } else {
        0.0
    }
}

/// What a search looks through.
pub(super) fn searched(tenant: &TenantId, query: &Query) -> Filter {
    let mut must = vec![filed_under(&Key::Tenant(tenant))];
    if let Some(collection) = &query.collection {
        must.push(filed_under(&Key::Collection(collection)));
    }
    if !query.documents.is_empty() {
        let documents = query.documents.iter();
        let documents = documents
            .map(|document| Key::Document(document).to_string())
            .collect();
        must.push(any(KEYS, AnyVariants::Strings(documents)));
    }
    must.extend(query.labels.iter().map(|label| filed_under(&Key::Label(label))));
    all(must)
}

/// All passages of a tenant.
pub(super) fn of_tenant(tenant: &TenantId) -> Filter {
    all(vec![filed_under(&Key::Tenant(tenant))])
}

/// The passages of a document, or of some of its pages.
pub(super) fn of_document(tenant: &TenantId, document: &DocumentId, pages: Option<&[PageNumber]>) -> Filter {
    let mut must = vec![
        filed_under(&Key::Tenant(tenant)),
        filed_under(&Key::Document(document)),
    ];
    if let Some(pages) = pages {
        let pages = pages.iter().map(|&page| i64::from(page)).collect();
        must.push(any(PAGE, AnyVariants::Integers(pages)));
    }
    all(must)
}

/// The passages of a document, each with its page alone.
pub(super) fn page_of_each(tenant: &TenantId, document: &DocumentId) -> ScrollRequest {
    ScrollRequest {
        limit: Some(MAX_COUNTED),
        filter: Some(of_document(tenant, document, None)),
        with_payload: Some(WithPayloadInterface::Fields(vec![path(PAGE)])),
        ..ScrollRequest::default()
    }
}

/// The page in the payload of an answer to [`page_of_each`]; `None` for a summary.
pub(super) fn page(payload: Option<&Payload>) -> Option<PageNumber> {
    let page = u32::try_from(payload?.0.get(PAGE)?.as_u64()?).ok();
    page.filter(|page| *page != NO_PAGE)
}

fn id_in_shard(tenant: &TenantId, id: &Uuid) -> PointId {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_OID, tenant.as_str().as_bytes());
    PointId::Uuid(Uuid::new_v5(&namespace, id.as_bytes()))
}

fn all(must: Vec<Condition>) -> Filter {
    Filter {
        must: Some(must),
        should: None,
        min_should: None,
        must_not: None,
    }
}

/// What is filed under a key.
pub(super) fn of_key(key: String) -> Filter {
    let value = ValueVariants::String(key);
    all(vec![field(KEYS, Match::Value(MatchValue { value }))])
}

fn filed_under(key: &Key<'_>) -> Condition {
    let value = ValueVariants::String(key.to_string());
    field(KEYS, Match::Value(MatchValue { value }))
}

fn any(key: &str, any: AnyVariants) -> Condition {
    field(key, Match::Any(MatchAny { any }))
}

fn field(key: &str, matching: Match) -> Condition {
    Condition::Field(FieldCondition::new_match(path(key), matching))
}

/// The path of a field of the payload.
fn path(key: &str) -> JsonPath {
    JsonPath {
        first_key: key.to_owned(),
        rest: Vec::new(),
    }
}
