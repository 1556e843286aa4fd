//! Passages in the index, and how they are found.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::decision::Label;
use crate::id::{DocumentId, PageNumber};
use crate::page::Rect;

/// Passages from this number on are summaries: of the section that begins on the point's page.
pub const SUMMARY: u32 = 1 << 31;

/// A passage with its vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// By [`crate::id::passage_id`].
    pub id: Uuid,
    /// Its document.
    pub document: DocumentId,
    /// The document's name.
    pub name: String,
    /// Its page.
    pub page: PageNumber,
    /// Its place on the page, from 0; from [`SUMMARY`] on it is that of a section.
    pub passage: u32,
    /// Its text.
    pub text: String,
    /// Where it stands.
    pub rect: Rect,
    /// Embedding of the text, of unit length.
    pub dense: Vec<f32>,
    /// Labels of document and page.
    pub labels: Vec<Label>,
    /// Key of the page image, made from ids and never looked up; `None` if the image is not kept.
    pub image: Option<String>,
    /// Key of the page's lines.
    pub lines: Option<String>,
}

impl Point {
    /// Whether it is the summary of a section.
    pub const fn is_summary(&self) -> bool {
        self.passage >= SUMMARY
    }
}

/// A search.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The words; matched sparsely.
    pub text: String,
    /// Their embedding.
    pub dense: Vec<f32>,
    /// Hits wanted, at least 1.
    pub top_k: usize,
    /// Only in these documents, if any are named.
    pub documents: Vec<DocumentId>,
    /// Only in this collection.
    pub collection: Option<String>,
    /// Only where all these labels hold.
    pub labels: Vec<Label>,
}

/// Similarity below which a passage without any word of the query is a weak hit. With the embedding model all-MiniLM-L6-v2, passages
/// that have nothing to do with a query come to 0.23 at most, and those that answer it in other words to 0.27 and more.
pub const WEAK_SIMILARITY: f32 = 0.25;

/// A passage found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// Its document.
    pub document: DocumentId,
    /// The document's name.
    pub name: String,
    /// Its page.
    pub page: PageNumber,
    /// Reciprocal-rank score of dense and sparse search together; higher is better.
    pub score: f32,
    /// Cosine similarity of the embeddings of query and text, from -1 to 1.
    #[serde(default)]
    pub similarity: f32,
    /// Whether the passage is only the nearest there is: it has no word of the query, and its similarity is below
    /// [`WEAK_SIMILARITY`].
    #[serde(default)]
    pub weak: bool,
    /// Its text.
    pub text: String,
    /// Bytes of the text where a word of the query stands, in any of its forms. Stop words are left out.
    #[serde(default)]
    pub matches: Vec<Range<u32>>,
    /// Whether it is the summary of a section, which begins on the page.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub summary: bool,
    /// Where it stands on the page.
    #[serde(rename = "box")]
    pub rect: Rect,
    /// Labels of its document and page; the page's where both have one by a name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Key of the page image, if it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Blob key of a page's image.
pub fn image_key(document: &DocumentId, page: PageNumber, dpi: u32, extension: &str) -> String {
    format!("{document}/{page}/image/{dpi}.{extension}")
}

/// Blob key of a page's lines.
pub fn lines_key(document: &DocumentId, page: PageNumber) -> String {
    format!("{document}/{page}/ocr.json")
}
