//! What components are asked and what they answer: the Rust side of `wit/`.
//!
//! An answer is checked by the policy adapter before the engine sees it, so the engine may rely on the ranges given here.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::id::{DocumentId, PageNumber};
use crate::page::{Lane, PageFacts, Stage};

/// A name and its value.
pub type Label = (String, String);

/// A queue in front of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// The stage.
    pub stage: Stage,
    /// Pages waiting.
    pub depth: u32,
    /// Pages that may wait.
    pub capacity: u32,
    /// Pages worked on at once, by workers of the kind that a page took last where a stage has several.
    pub workers: u32,
}

/// How long a stage takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StageTime {
    /// The stage.
    pub stage: Stage,
    /// Milliseconds a page occupies a worker, mean of the last 16; 0 before the first.
    pub millis_per_page: f32,
    /// Pages measured.
    pub pages: u32,
}

/// What a stage has done for a job, all its documents together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageWork {
    /// The stage.
    pub stage: Stage,
    /// Pages it is done with.
    pub pages: u32,
    /// Milliseconds that its workers had pages in hand, also such as failed, summed over workers.
    pub busy_millis: u64,
    /// Pages it can work on at once.
    pub workers: u32,
}

/// Where models run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Whether it is a GPU.
    pub gpu: bool,
    /// Bytes a model may use there.
    pub memory_bytes: u64,
    /// CPU cores of the host.
    pub cores: u32,
}

/// Asked before each batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Situation {
    /// The document.
    pub document: DocumentId,
    /// Pages the job is to process.
    pub total_pages: u32,
    /// Pages not yet taken, at least 1.
    pub remaining_pages: u32,
    /// The next pages; 1 to 64.
    pub next: Vec<PageFacts>,
    /// Queue depths.
    pub queues: Vec<QueueState>,
    /// Stage times.
    pub times: Vec<StageTime>,
    /// Where models run.
    pub device: Device,
    /// Bytes free for page images.
    pub free_image_bytes: u64,
}

/// How to take the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchPlan {
    /// Pages to take, 1 to 64.
    pub pages: u32,
    /// Resolution, 36 to 600.
    pub dpi: u32,
    /// Linger of a partial embedding batch in milliseconds, 0 to 10,000.
    pub linger_millis: u32,
    /// Batches that may wait before each stage, 1 to 64.
    pub queue_capacity: u32,
}

/// Asked once for each document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentFacts {
    /// The document.
    pub document: DocumentId,
    /// The file's name.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Number of pages.
    pub pages: u32,
    /// Title in the metadata.
    pub title: Option<String>,
    /// Entries of the outline.
    pub outline_entries: u32,
    /// Facts of the first pages, at most 8.
    pub first_pages: Vec<PageFacts>,
}

/// Where a document goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRoute {
    /// Collection its passages are filed under; a name by [`crate::id::is_name`].
    pub collection: String,
    /// How urgent it is.
    pub lane: Lane,
    /// OCR model by name, if not the host's choice.
    pub ocr_model: Option<String>,
    /// Text embedding model by name, if not the host's choice.
    pub embedding_model: Option<String>,
    /// Labels of every passage, at most 16.
    pub labels: Vec<Label>,
}

/// How a page is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// The text the PDF carries.
    TextLayer,
    /// Recognized in the image.
    Ocr,
    /// By a vision-language model.
    VisionModel,
    /// Not at all.
    Nothing,
}

/// What is done with a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRoute {
    /// How it is read.
    pub reading: Reading,
    /// Whether its passages become searchable.
    pub embed: bool,
    /// Whether its image is kept.
    pub store: bool,
    /// Labels of its passages, at most 16.
    pub labels: Vec<Label>,
}

impl PageRoute {
    /// Whether the page has to be drawn before it is read. For a vision model it is drawn anew, when one is free for it.
    pub fn is_drawn_first(&self) -> bool {
        self.store || self.reading == Reading::Ocr
    }
}

/// A page that failed in a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The document.
    pub document: DocumentId,
    /// The page.
    pub page: PageNumber,
    /// Where it failed.
    pub stage: Stage,
    /// 1 for the first failure in this stage.
    pub attempt: u32,
    /// A stable word for programs.
    pub kind: String,
    /// A sentence for people.
    pub message: String,
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Try again after so many milliseconds, at most 60,000.
    RetryAfter(u32),
    /// Report the page as failed and go on.
    SkipPage,
    /// Stop the document; other documents of the job go on, and the job ends as failed.
    FailDocument,
}

/// A heading inside a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// Its bytes in the text.
    pub at: Range<u32>,
    /// 1 for the highest level.
    pub level: u8,
}

/// A page's text, to be cut into passages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassageSource {
    /// The document.
    pub document: DocumentId,
    /// The page.
    pub page: PageNumber,
    /// Lines joined by `\n`.
    pub text: String,
    /// Headings in order.
    pub headings: Vec<Heading>,
    /// Tokens the embedding model takes.
    pub max_tokens: u32,
}

/// A section, to be summarized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// The document.
    pub document: DocumentId,
    /// Its heading.
    pub title: String,
    /// 1 for the highest level.
    pub level: u8,
    /// First page.
    pub first_page: PageNumber,
    /// Last page.
    pub last_page: PageNumber,
    /// What stands under the heading.
    pub text: String,
}

/// A question to a language model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The prompt; `{text}` stands for the text it is about.
    pub prompt: String,
    /// Longest answer in tokens, 1 to 4096.
    pub max_tokens: u32,
}

/// How a section is summarized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SummaryPlan {
    /// Not at all.
    None,
    /// In one question.
    Single(Question),
    /// Each range, then the summaries of the ranges.
    MapReduce {
        /// Ranges of bytes of the section's text.
        ranges: Vec<Range<u32>>,
        /// Asked of each range.
        map: Question,
        /// Asked of the answers.
        reduce: Question,
    },
}

/// What the progress component observes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Observation {
    /// A document's work begins.
    DocumentStarted {
        /// The document.
        document: DocumentId,
        /// Its file's name.
        name: String,
        /// Pages asked for.
        pages: u32,
        /// Those of them already done.
        already_done: u32,
    },
    /// A batch left the rasterizer.
    BatchRasterized {
        /// The document.
        document: DocumentId,
        /// Pages in the batch.
        pages: u32,
        /// Queue depths.
        queues: Vec<QueueState>,
        /// Stage times.
        times: Vec<StageTime>,
    },
    /// A page is done.
    PageDone {
        /// The document.
        document: DocumentId,
        /// The page.
        page: PageNumber,
        /// Whether a search can find it.
        searchable: bool,
        /// Passages indexed.
        passages: u32,
    },
    /// A page failed for good.
    PageFailed {
        /// The document.
        document: DocumentId,
        /// The page.
        page: PageNumber,
        /// Where.
        stage: Stage,
        /// Why.
        message: String,
    },
    /// A document's work has ended well.
    DocumentDone {
        /// The document.
        document: DocumentId,
        /// Pages done.
        done: u32,
        /// Pages failed.
        failed: u32,
    },
    /// A document's work has ended badly.
    DocumentFailed {
        /// The document.
        document: DocumentId,
        /// Pages done.
        done: u32,
        /// Pages failed.
        failed: u32,
    },
}

/// What the user should see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgressUpdate {
    /// The document.
    pub document: DocumentId,
    /// 0 to 100.
    pub percent: f32,
    /// At most 500 characters.
    pub message: String,
    /// Seconds left, if that can be told.
    pub seconds_left: Option<u32>,
}
