//! The chunking role: passages to index and plans of summaries.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{PolicyFunctionInput, default_document, default_one};
use crate::id::{DocumentId, PageNumber};
use crate::manifest::Role;

/// Maximum tokens of the default embedding model.
const fn default_embedding_max_tokens() -> u32 {
    256
}

/// Level of a section without a parent.
const fn default_heading_level() -> u8 {
    1
}

/// A heading in a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Heading {
    /// Byte range of the heading in the text.
    #[serde(rename = "at")]
    pub range: Range<u32>,
    /// 1 for the highest level.
    pub level: u8,
}

/// Text of a page that the chunking component splits into passages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PageTextToSplit {
    /// The document.
    #[serde(default = "default_document")]
    pub document: DocumentId,
    /// The page.
    #[serde(default = "default_one")]
    pub page: PageNumber,
    /// Lines joined by `\n`.
    pub text: String,
    /// Headings in ascending order.
    #[serde(default)]
    pub headings: Vec<Heading>,
    /// Maximum number of tokens that the embedding model accepts.
    #[serde(default = "default_embedding_max_tokens")]
    pub max_tokens: u32,
}

impl PolicyFunctionInput for PageTextToSplit {
    const ROLE: Role = Role::Chunking;
    const NAME: &'static str = "chunking.passages";
    type Decision = Vec<Range<u32>>;

    fn describe_call_subject(&self) -> String {
        format!("page {}", self.page)
    }
}

/// Text of a section that the chunking component plans a summary for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SectionToSummarize {
    /// The document.
    #[serde(default = "default_document")]
    pub document: DocumentId,
    /// Its heading.
    pub title: String,
    /// 1 for the highest level.
    #[serde(default = "default_heading_level")]
    pub level: u8,
    /// First page.
    #[serde(default = "default_one")]
    pub first_page: PageNumber,
    /// Last page.
    #[serde(default = "default_one")]
    pub last_page: PageNumber,
    /// Text under the heading.
    pub text: String,
}

impl PolicyFunctionInput for SectionToSummarize {
    const ROLE: Role = Role::Chunking;
    const NAME: &'static str = "chunking.summarize";
    type Decision = SummaryPlan;

    fn describe_call_subject(&self) -> String {
        self.title.clone()
    }
}

/// Prompt for a language model that summarizes a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SummaryPrompt {
    /// The prompt; the host replaces `{text}` with the text.
    pub prompt: String,
    /// Maximum number of tokens of the response, 1 to 4096.
    pub max_tokens: u32,
}

/// How a section is summarized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub enum SummaryPlan {
    /// No summary.
    None,
    /// One request for the whole section.
    Single(SummaryPrompt),
    /// One request for each range, then one request for all the responses.
    MapReduce {
        /// Byte ranges of the section's text.
        ranges: Vec<Range<u32>>,
        /// Prompt for each range.
        map: SummaryPrompt,
        /// Prompt for the joined responses.
        reduce: SummaryPrompt,
    },
}
