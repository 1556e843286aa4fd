//! Passages in the index, and search queries and hits.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::decision::Label;
use crate::id::{DocumentId, PageNumber};
use crate::page::Rect;

/// Passage numbers from this one on are summaries of the section that starts on the point's page.
pub const FIRST_SUMMARY_NUMBER: u32 = 1 << 31;

/// A passage or a summary with its vector, as stored in the index.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexPoint {
    /// Id from [`crate::id::derive_passage_id`].
    pub id: Uuid,
    /// The document.
    pub document: DocumentId,
    /// The document's name.
    pub document_name: String,
    /// The page.
    pub page: PageNumber,
    /// Number of the passage on the page, from 0. From [`FIRST_SUMMARY_NUMBER`] on it is the number of a section's
    /// summary.
    pub passage: u32,
    /// Text of the passage.
    pub text: String,
    /// Position on the page.
    pub rect: Rect,
    /// Embedding of the text, with unit length.
    pub dense_vector: Vec<f32>,
    /// Labels of the document and the page.
    pub labels: Vec<Label>,
    /// Blob key of the page image, derived from ids; `None` if the image is not stored.
    pub image: Option<String>,
    /// Blob key of the page's lines.
    pub lines: Option<String>,
}

impl IndexPoint {
    /// Returns whether the point is the summary of a section.
    pub const fn is_summary(&self) -> bool {
        self.passage >= FIRST_SUMMARY_NUMBER
    }
}

/// A search query.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchQuery {
    /// Text of the query, for sparse matching.
    pub query_text: String,
    /// Embedding of the text.
    pub dense_vector: Vec<f32>,
    /// Maximum number of hits, at least 1.
    pub top_k: usize,
    /// Only hits in these documents, unless empty.
    pub documents: Vec<DocumentId>,
    /// Only hits in this collection.
    pub collection: Option<String>,
    /// Only hits with all of these labels.
    pub labels: Vec<Label>,
}

/// Hits below this similarity are weak if they contain no word of the query. With the embedding model
/// all-MiniLM-L6-v2, passages that are unrelated to a query have a similarity of at most 0.23. Passages that answer
/// it in other words have 0.27 or more.
pub const WEAK_SIMILARITY: f32 = 0.25;

/// A search result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchHit {
    /// The document.
    pub document: DocumentId,
    /// The document's name.
    pub name: String,
    /// The page.
    pub page: PageNumber,
    /// Reciprocal-rank score of dense and sparse search together; higher is better.
    pub score: f32,
    /// Cosine similarity of the embeddings of query and text, from -1 to 1.
    #[serde(default)]
    pub similarity: f32,
    /// Whether the passage is a poor match: it contains no word of the query, and its similarity is below
    /// [`WEAK_SIMILARITY`].
    #[serde(default)]
    pub weak: bool,
    /// Text of the passage.
    pub text: String,
    /// Byte ranges of the text that match a word of the query in any inflected form. Stop words do not match.
    #[serde(default)]
    pub matches: Vec<Range<u32>>,
    /// Whether the hit is the summary of a section that starts on the page.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub summary: bool,
    /// Position on the page.
    #[serde(rename = "box")]
    pub rect: Rect,
    /// Labels of the document and the page. A label of the page overrides one of the document.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Blob key of the page image, if it is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Returns the blob key of a page's image.
pub fn page_image_blob_key(document: &DocumentId, page: PageNumber, dpi: u32, extension: &str) -> String {
    format!("{document}/{page}/image/{dpi}.{extension}")
}

/// Returns the blob key of a page's lines.
pub fn page_lines_blob_key(document: &DocumentId, page: PageNumber) -> String {
    format!("{document}/{page}/ocr.json")
}
