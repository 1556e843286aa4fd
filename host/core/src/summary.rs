//! Summaries of a document, as they are kept and told.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::id::{DocumentId, PageNumber, RevisionId};
use crate::page::Rect;

/// Characters of a preview, at most.
const PREVIEW: usize = 200;

/// The summaries of a document, under one revision of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentSummary {
    /// The document.
    pub document: DocumentId,
    /// Its name.
    pub name: String,
    /// Pages of which it tells.
    pub pages: u32,
    /// Of the whole; none if no section has one.
    pub summary: Option<Summary>,
    /// Of its sections, in their order.
    pub sections: Vec<SectionSummary>,
}

/// A section with its summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SectionSummary {
    /// Its heading, or one made for it; none if it is too short for one.
    pub title: Option<String>,
    /// 1 for the highest.
    pub level: u8,
    /// First page.
    pub first_page: PageNumber,
    /// Last page.
    pub last_page: PageNumber,
    /// None if the pipeline wants none, as of a section that is no longer than one.
    pub summary: Option<Summary>,
}

/// A summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The summary.
    pub text: String,
    /// What to show where there is room for a line: how it begins.
    pub preview: String,
    /// Which parts of it are taken from the document word for word, and where they stand there; empty if a model wrote it.
    pub quotes: Vec<Quoted>,
    /// Bytes of the text that hold a number or a name which its source does not have.
    pub ungrounded: Vec<Range<u32>>,
    /// Who made it.
    pub provider: String,
    /// The model.
    pub model: String,
}

/// A part of a summary that stands in the document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quoted {
    /// Bytes of the summary.
    pub at: Range<u32>,
    /// The page.
    pub page: PageNumber,
    /// Where on it.
    #[serde(rename = "box")]
    pub rect: Rect,
}

/// Blob key of a document's summaries.
pub fn summary_key(document: &DocumentId, revision: &RevisionId) -> String {
    format!("{}{revision}.json", summaries_prefix(document))
}

/// What the blob keys of a document's summaries begin with, under any revision.
pub fn summaries_prefix(document: &DocumentId) -> String {
    format!("{document}/summary/")
}

/// How a text begins: its first sentence, or as much of it as a preview takes, cut at a word.
pub fn preview(text: &str) -> String {
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
    match sentence.char_indices().nth(PREVIEW) {
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
    fn a_preview_is_the_first_sentence_or_some_of_it() {
        assert_eq!(preview("It rained. It did not stop."), "It rained.");
        assert_eq!(preview("It cost 3.5 crowns! So what?"), "It cost 3.5 crowns!");
        assert_eq!(preview("雨が降った。やまない。"), "雨が降った。");
        assert_eq!(preview(" no end "), "no end");
        assert_eq!(preview(""), "");
        let long = preview(&"word ".repeat(100));
        assert_eq!(
            (long.chars().count(), long.ends_with("word…")),
            (200, true),
            "{long}"
        );
    }
}
