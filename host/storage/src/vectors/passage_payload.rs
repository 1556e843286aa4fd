//! The representation of a passage in an index, the same in the embedded index and on a server: its payload, its point id and its vector.
//!
//! The point id is derived from the tenant's name, and every filter has the tenant (`passage_filter.rs`). So no caller can read, overwrite
//! or remove a passage of another tenant, whatever ids it passes.

use std::fmt::Display;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use weir_core::id::is_valid_name;
use weir_core::search::{IndexPoint, SearchHit, SearchQuery, WEAK_SIMILARITY};
use weir_core::{DocumentId, PageNumber, Rect, StorageError, TenantId};

use super::passage_filter::{FilterKey, parse_label_key, parse_tenant_key};
use super::query_word_matcher::QueryWordMatcher;

/// The payload's field for the keys by which filters select passages ([`FilterKey`]).
pub(super) const KEYS_FIELD: &str = "keys";
/// The payload's field for the page number.
pub(super) const PAGE_FIELD: &str = "page";
/// The page number of summaries, which belong to no page.
pub(super) const SUMMARY_PAGE: PageNumber = 0;

/// The payload that is stored with a passage's vectors.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PassagePayload {
    pub(super) keys: Vec<String>,
    pub(super) document: DocumentId,
    name: String,
    /// [`SUMMARY_PAGE`] for a summary, which is not counted with a page's passages and stays when they are replaced.
    pub(super) page: PageNumber,
    /// The first page of a summary's section; `None` for other passages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_page: Option<PageNumber>,
    pub(super) passage: u32,
    pub(super) text: String,
    #[serde(rename = "box")]
    rect: Rect,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<String>,
}

/// The id, the vector and the payload of a passage.
pub(super) struct PassagePoint {
    pub(super) id: Uuid,
    pub(super) dense_vector: Vec<f32>,
    pub(super) payload: PassagePayload,
}

/// Where a point is: each point of an index has another place.
pub(super) struct PointPlace {
    pub(super) tenant: TenantId,
    pub(super) document: DocumentId,
    pub(super) page: PageNumber,
    pub(super) passage: u32,
    pub(super) id: Uuid,
}

impl PassagePoint {
    /// Returns the tenant, by the keys of the payload.
    pub(super) fn tenant(&self) -> Result<TenantId, StorageError> {
        let tenant = self.payload.keys.iter().find_map(|key| parse_tenant_key(key));
        tenant.ok_or_else(|| damaged_point(self.id, "its payload names no tenant"))
    }

    pub(super) fn place(&self) -> Result<PointPlace, StorageError> {
        Ok(PointPlace {
            tenant: self.tenant()?,
            document: self.payload.document,
            page: self.payload.page,
            passage: self.payload.passage,
            id: self.id,
        })
    }
}

pub(super) fn damaged_point(id: impl Display, reason: impl Display) -> StorageError {
    StorageError::Damaged {
        what: format!("point {id} of the index"),
        reason: reason.to_string(),
    }
}

/// Converts a passage to a point of an index. Fails if its collection or its vector is invalid.
pub(super) fn to_passage_point(
    tenant: &TenantId,
    collection: &str,
    point: IndexPoint,
    dimensions: usize,
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
    let payload = PassagePayload {
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
    Ok(PassagePoint {
        id: derive_point_id(tenant, &point.id),
        dense_vector: point.dense_vector,
        payload,
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
    pub(super) score: f32,
    pub(super) payload: PassagePayload,
    /// The vector, which has unit length.
    pub(super) dense_vector: Vec<f32>,
}

/// Converts a found point to a hit for a query, with the passage's number on its page.
pub(super) fn to_search_hit(
    point: FoundPoint,
    query: &[f32],
    matcher: &mut QueryWordMatcher<'_>,
) -> (SearchHit, u32) {
    let similarity = cosine_similarity(&point.dense_vector, query);
    let passage = point.payload;
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
    (hit, passage.passage)
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
