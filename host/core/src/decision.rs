//! The input and output types of component calls: the Rust side of `wit/`.
//!
//! The policy adapter validates each decision before the engine sees it, so the engine can rely on the ranges given
//! here.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::id::{DocumentId, PageNumber};
use crate::page::{Lane, PageFacts, Stage};

/// Name and value.
pub type Label = (String, String);

/// State of the queue in front of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// The stage.
    pub stage: Stage,
    /// Pages in the queue.
    pub depth: u32,
    /// Maximum number of pages in the queue.
    pub capacity: u32,
    /// Pages that the stage processes at once. If a stage has several kinds of workers, this counts the kind that the
    /// latest page used.
    pub workers: u32,
}

/// How long a stage takes for a page.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StageTiming {
    /// The stage.
    pub stage: Stage,
    /// Mean time in milliseconds that a page occupies a worker, over the last 16 pages; 0 before the first.
    pub millis_per_page: f32,
    /// Pages measured.
    pub pages: u32,
}

/// Work that a stage has done for a job, over all its documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTotals {
    /// The stage.
    pub stage: Stage,
    /// Pages that it has finished.
    pub pages: u32,
    /// Milliseconds that its workers were busy with pages, failed pages included, summed over the workers.
    pub busy_millis: u64,
    /// Pages that it can process at once.
    pub workers: u32,
}

/// The device that models run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComputeDevice {
    /// Whether it is a GPU.
    pub gpu: bool,
    /// Bytes of memory that a model may use on it.
    pub memory_bytes: u64,
    /// CPU cores of the host.
    pub cores: u32,
}

/// Input of the batching component before each batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchContext {
    /// The document.
    pub document: DocumentId,
    /// Pages that the job processes.
    pub total_pages: u32,
    /// Pages that no batch has taken yet, at least 1.
    pub remaining_pages: u32,
    /// The next pages, 1 to 64.
    #[serde(rename = "next")]
    pub next_pages: Vec<PageFacts>,
    /// State of the stage queues.
    pub queues: Vec<QueueState>,
    /// Timings of the stages.
    #[serde(rename = "times")]
    pub stage_timings: Vec<StageTiming>,
    /// The device that models run on.
    pub device: ComputeDevice,
    /// Bytes that are free for page images.
    pub free_image_bytes: u64,
}

/// Decision of the batching component: how to take the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchPlan {
    /// Pages to take, 1 to 64.
    pub pages: u32,
    /// Resolution in dpi, 36 to 600.
    pub dpi: u32,
    /// Time in milliseconds that a partial embedding batch waits for more texts, 0 to 10,000.
    pub linger_millis: u32,
    /// Batches that can queue in front of each stage, 1 to 64.
    pub queue_capacity: u32,
}

/// Input of the routing component, once for each document.
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
    /// Title from the PDF metadata.
    pub title: Option<String>,
    /// Number of outline entries.
    pub outline_entries: u32,
    /// Facts of the first pages, at most 8.
    pub first_pages: Vec<PageFacts>,
}

/// Decision of the routing component for a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRoute {
    /// Collection that its passages are indexed in. The name is valid by [`crate::id::is_valid_name`].
    pub collection: String,
    /// Lane of the document.
    pub lane: Lane,
    /// Name of the OCR model; `None` for the host's default.
    pub ocr_model: Option<String>,
    /// Name of the text embedding model; `None` for the host's default.
    pub embedding_model: Option<String>,
    /// Labels of every passage, at most 16.
    pub labels: Vec<Label>,
}

/// How the text of a page is obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadingMethod {
    /// Read from the text layer of the PDF.
    TextLayer,
    /// Recognized in the page image by OCR.
    Ocr,
    /// Transcribed from the page image by a vision-language model.
    VisionModel,
    /// The page is not read.
    Nothing,
}

/// Decision of the routing component for a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRoute {
    /// How its text is obtained.
    #[serde(rename = "reading")]
    pub reading_method: ReadingMethod,
    /// Whether its passages become searchable.
    pub embed: bool,
    /// Whether its image is stored.
    pub store: bool,
    /// Labels of its passages, at most 16.
    pub labels: Vec<Label>,
}

impl PageRoute {
    /// Whether the page must be rasterized before it is read. A page for a vision model is rasterized again when a
    /// provider is free.
    pub fn needs_raster_before_reading(&self) -> bool {
        self.store || self.reading_method == ReadingMethod::Ocr
    }
}

/// Input of the routing component after a page has failed in a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageFailure {
    /// The document.
    pub document: DocumentId,
    /// The page.
    pub page: PageNumber,
    /// Stage that it failed in.
    pub stage: Stage,
    /// 1 for the first failure in this stage.
    pub attempt: u32,
    /// Stable error kind for programs.
    pub kind: String,
    /// Error message for people.
    pub message: String,
}

/// Decision of the routing component after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureAction {
    /// Retry the page after this many milliseconds, at most 60,000.
    RetryAfter(u32),
    /// Report the page as failed and continue.
    SkipPage,
    /// Stop the document. Other documents of the job continue, and the job ends as failed.
    FailDocument,
}

/// A heading in a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// Byte range of the heading in the text.
    #[serde(rename = "at")]
    pub range: Range<u32>,
    /// 1 for the highest level.
    pub level: u8,
}

/// Text of a page that the chunking component splits into passages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassageSource {
    /// The document.
    pub document: DocumentId,
    /// The page.
    pub page: PageNumber,
    /// Lines joined by `\n`.
    pub text: String,
    /// Headings in ascending order.
    pub headings: Vec<Heading>,
    /// Maximum number of tokens that the embedding model accepts.
    pub max_tokens: u32,
}

/// Text of a section that the chunking component plans a summary for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummarySource {
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
    /// Text under the heading.
    pub text: String,
}

/// Prompt for a language model that summarizes a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryPrompt {
    /// The prompt; the host replaces `{text}` with the text.
    pub prompt: String,
    /// Maximum number of tokens of the response, 1 to 4096.
    pub max_tokens: u32,
}

/// How a section is summarized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// An event that the progress component receives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ObservedEvent {
    /// Processing of a document started.
    DocumentStarted {
        /// The document.
        document: DocumentId,
        /// Its file's name.
        name: String,
        /// Pages that the job requests.
        pages: u32,
        /// Requested pages that were done before.
        already_done: u32,
    },
    /// The rasterizer finished a batch.
    BatchRasterized {
        /// The document.
        document: DocumentId,
        /// Pages in the batch.
        pages: u32,
        /// State of the stage queues.
        queues: Vec<QueueState>,
        /// Timings of the stages.
        #[serde(rename = "times")]
        stage_timings: Vec<StageTiming>,
    },
    /// A page is done.
    PageDone {
        /// The document.
        document: DocumentId,
        /// The page.
        page: PageNumber,
        /// Whether its passages are searchable.
        searchable: bool,
        /// Number of indexed passages.
        passages: u32,
    },
    /// A page failed and is not retried.
    PageFailed {
        /// The document.
        document: DocumentId,
        /// The page.
        page: PageNumber,
        /// Stage that it failed in.
        stage: Stage,
        /// Error message.
        message: String,
    },
    /// A document is done.
    DocumentDone {
        /// The document.
        document: DocumentId,
        /// Pages done.
        done: u32,
        /// Pages failed.
        failed: u32,
    },
    /// A document failed.
    DocumentFailed {
        /// The document.
        document: DocumentId,
        /// Pages done.
        done: u32,
        /// Pages failed.
        failed: u32,
    },
}

/// Progress that is shown to the user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgressUpdate {
    /// The document.
    pub document: DocumentId,
    /// Percent done, 0 to 100.
    pub percent: f32,
    /// Message of at most 500 characters.
    pub message: String,
    /// Estimated seconds left, if known.
    pub seconds_left: Option<u32>,
}
