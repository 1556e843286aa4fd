//! Summaries of a document, as stored and returned.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::id::{DocumentId, PageNumber, RevisionId};
use crate::page::Rect;

/// Maximum number of characters of a preview.
const MAX_PREVIEW_CHARS: usize = 200;

/// The summaries of a document under one revision of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentSummaries {
    /// The document.
    pub document: DocumentId,
    /// Name of the document.
    pub name: String,
    /// Number of summarized pages.
    pub pages: u32,
    /// Summary of the whole document; `None` if no section has one.
    pub summary: Option<Summary>,
    /// Summaries of its sections, in document order.
    pub sections: Vec<SectionSummary>,
}

/// A section with its summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SectionSummary {
    /// Its heading, or a generated title; `None` if the section is too short for a title.
    pub title: Option<String>,
    /// Level of the heading; 1 is the highest.
    pub level: u8,
    /// First page.
    pub first_page: PageNumber,
    /// Last page.
    pub last_page: PageNumber,
    /// The summary; `None` if the pipeline wants none, for example because the section is as short as a summary.
    pub summary: Option<Summary>,
}

/// A summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Text of the summary.
    pub text: String,
    /// Start of the text, for places with one line of space.
    pub preview: String,
    /// The parts that are copied verbatim from the document, with their positions there; empty if a model wrote the
    /// summary.
    pub quotes: Vec<SummaryQuote>,
    /// Byte ranges of the text with a number or a name that the source does not contain.
    pub ungrounded: Vec<Range<u32>>,
    /// Name of the provider.
    pub provider: String,
    /// Name of the model.
    pub model: String,
}

/// A part of a summary that is copied from the document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SummaryQuote {
    /// Byte range in the summary.
    #[serde(rename = "at")]
    pub summary_range: Range<u32>,
    /// The page.
    pub page: PageNumber,
    /// Position on the page.
    #[serde(rename = "box")]
    pub rect: Rect,
}

/// Returns the blob key of a document's summaries.
pub fn document_summaries_blob_key(document: &DocumentId, revision: &RevisionId) -> String {
    format!("{}{revision}.json", document_summaries_blob_key_prefix(document))
}

/// Returns the prefix of the blob keys of a document's summaries under all revisions.
pub fn document_summaries_blob_key_prefix(document: &DocumentId) -> String {
    format!("{document}/summary/")
}

/// Returns the start of a text: its first sentence, or as many whole words as fit into a preview.
pub fn make_first_sentence_preview(text: &str) -> String {
    let mut end = text.len();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let ends = matches!(c, '.' | '!' | '?') && chars.peek().is_none_or(|(_, next)| next.is_whitespace());
        if ends || matches!(c, '。' | '！' | '？' | '\n') {
            end = at + c.len_utf8();
            break;
        }
    }
    let sentence = text.get(..end).unwrap_or(text).trim();
    match sentence.char_indices().nth(MAX_PREVIEW_CHARS) {
        None => sentence.to_owned(),
        Some((cut, _)) => {
            let start = sentence.get(..cut).unwrap_or_default();
            let whole = start.rfind(char::is_whitespace).and_then(|at| start.get(..at));
            format!("{}…", whole.unwrap_or(start).trim_end())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preview_is_the_first_sentence_or_its_start() {
        assert_eq!(
            make_first_sentence_preview("It rained. It did not stop."),
            "It rained."
        );
        assert_eq!(
            make_first_sentence_preview("It cost 3.5 crowns! So what?"),
            "It cost 3.5 crowns!"
        );
        assert_eq!(
            make_first_sentence_preview("雨が降った。やまない。"),
            "雨が降った。"
        );
        assert_eq!(make_first_sentence_preview(" no end "), "no end");
        assert_eq!(make_first_sentence_preview(""), "");
        let long = make_first_sentence_preview(&"word ".repeat(100));
        assert_eq!(
            (long.chars().count(), long.ends_with("word…")),
            (200, true),
            "{long}"
        );
    }
}
