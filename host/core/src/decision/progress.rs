//! The progress role: events of a job and updates for the user.

use serde::{Deserialize, Serialize};

use super::stage_state::{QueueState, StageTiming};
use super::{PolicyFunctionInput, default_document, default_one};
use crate::id::{DocumentId, PageNumber};
use crate::manifest::Role;
use crate::page::Stage;

const fn default_true() -> bool {
    true
}

/// An event that the progress component receives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub enum ObservedEvent {
    /// Processing of a document started.
    DocumentStarted {
        /// The document.
        #[serde(default = "default_document")]
        document: DocumentId,
        /// Its file's name.
        name: String,
        /// Pages that the job requests.
        pages: u32,
        /// Requested pages that were done before.
        #[serde(default)]
        already_done: u32,
    },
    /// The rasterizer finished a batch.
    BatchRasterized {
        /// The document.
        #[serde(default = "default_document")]
        document: DocumentId,
        /// Pages in the batch.
        pages: u32,
        /// State of the stage queues.
        #[serde(default)]
        queues: Vec<QueueState>,
        /// Timings of the stages.
        #[serde(rename = "times", default)]
        stage_timings: Vec<StageTiming>,
    },
    /// A page is done.
    PageDone {
        /// The document.
        #[serde(default = "default_document")]
        document: DocumentId,
        /// The page.
        page: PageNumber,
        /// Whether its passages are searchable.
        #[serde(default = "default_true")]
        searchable: bool,
        /// Number of indexed passages.
        #[serde(default = "default_one")]
        passages: u32,
    },
    /// A page failed and is not retried.
    PageFailed {
        /// The document.
        #[serde(default = "default_document")]
        document: DocumentId,
        /// The page.
        page: PageNumber,
        /// Stage that it failed in.
        stage: Stage,
        /// Error message.
        #[serde(default)]
        message: String,
    },
    /// A document is done.
    DocumentDone {
        /// The document.
        #[serde(default = "default_document")]
        document: DocumentId,
        /// Pages done.
        done: u32,
        /// Pages failed.
        #[serde(default)]
        failed: u32,
    },
    /// A document failed.
    DocumentFailed {
        /// The document.
        #[serde(default = "default_document")]
        document: DocumentId,
        /// Pages done.
        done: u32,
        /// Pages failed.
        #[serde(default)]
        failed: u32,
    },
}

/// Input of the progress component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TimedEvent {
    /// Milliseconds since the job's start.
    pub at_millis: u64,
    /// The event.
    pub event: ObservedEvent,
}

impl PolicyFunctionInput for TimedEvent {
    const ROLE: Role = Role::Progress;
    const NAME: &'static str = "progress.observe";
    type Decision = Vec<ProgressUpdate>;

    fn describe_call_subject(&self) -> String {
        match &self.event {
            ObservedEvent::DocumentStarted { name, .. } => format!("document-started {name}"),
            ObservedEvent::BatchRasterized { pages, .. } => format!("batch-rasterized {pages}"),
            ObservedEvent::PageDone { page, .. } => format!("page-done {page}"),
            ObservedEvent::PageFailed { page, .. } => format!("page-failed {page}"),
            ObservedEvent::DocumentDone { done, .. } => format!("document-done {done}"),
            ObservedEvent::DocumentFailed { done, .. } => format!("document-failed {done}"),
        }
    }
}

/// Progress that is shown to the user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
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
