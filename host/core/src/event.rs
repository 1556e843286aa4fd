//! The event log of a job: one ordered sequence without gaps, the same for every reader.

use serde::{Deserialize, Serialize};

pub use crate::error::ErrorInfo;

use crate::decision::{QueueState, StageTiming, StageTotals};
use crate::id::{DocumentId, JobId, PageNumber};
use crate::llm::ProviderFailureInfo;
use crate::page::Stage;

/// An entry of a job's event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the log. The first is 1, and no number is skipped.
    pub seq: u64,
    /// The job.
    pub job: JobId,
    /// The document of the event; `None` if the event concerns the whole job.
    pub document: Option<DocumentId>,
    /// Milliseconds since the job was created; never less than in the event before.
    #[serde(rename = "at_millis")]
    pub since_job_created_millis: u64,
    /// The kind of the event, with its data.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// State of a job: `queued → running → done │ failed │ cancelled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Waiting to be started.
    Queued,
    /// Being processed.
    Running,
    /// All documents are done.
    Done,
    /// At least one document failed.
    Failed,
    /// Cancelled on request.
    Cancelled,
}

impl JobState {
    /// Returns whether the job has ended and cannot change its state by itself.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// A page that failed and is not retried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedPage {
    /// The page.
    pub page: PageNumber,
    /// Why.
    pub error: ErrorInfo,
}

/// The kind of the event, with its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum EventKind {
    /// Processing of a document started. It is repeated if the host restarted in between.
    DocumentStarted {
        /// The file's name.
        name: String,
        /// Pages that the job requests.
        pages: u32,
        /// Requested pages that an earlier job has done.
        already_done: u32,
    },
    /// The rasterizer finished a batch.
    BatchRasterized {
        /// First page of the batch.
        first_page: PageNumber,
        /// Pages in the batch.
        pages: u32,
        /// Resolution in dpi.
        dpi: u32,
        /// State of the stage queues at that time.
        queues: Vec<QueueState>,
        /// Timings of the stages so far.
        #[serde(rename = "times")]
        stage_timings: Vec<StageTiming>,
    },
    /// A page is stored and read and, if requested, searchable.
    PageDone {
        /// The page.
        page: PageNumber,
        /// Whether its passages are searchable.
        searchable: bool,
        /// Number of indexed passages.
        passages: u32,
    },
    /// A page failed and is retried.
    PageRetried {
        /// The page.
        page: PageNumber,
        /// Stage that it failed in.
        stage: Stage,
        /// How often it has failed in this stage.
        attempt: u32,
        /// Why.
        error: ErrorInfo,
    },
    /// A page failed and is not retried.
    PageFailed {
        /// The page.
        page: PageNumber,
        /// Stage that it failed in.
        stage: Stage,
        /// Why.
        error: ErrorInfo,
    },
    /// A component call failed, and the default component decided instead.
    #[serde(rename = "policy-failed")]
    PolicyFallback {
        /// Why.
        error: ErrorInfo,
    },
    /// A section has its summary, or the pipeline wants none for it.
    SectionSummarized {
        /// Number of the section in the document, from 1.
        section: u32,
        /// Its heading, or a generated title.
        title: Option<String>,
        /// First page.
        first_page: PageNumber,
        /// Last page.
        last_page: PageNumber,
        /// The summary; `None` if the pipeline wants none.
        summary: Option<String>,
    },
    /// A section could not be summarized.
    SectionFailed {
        /// Number of the section in the document, from 1.
        section: u32,
        /// Its heading.
        title: Option<String>,
        /// Why.
        error: ErrorInfo,
    },
    /// The document was summarized.
    DocumentSummarized {
        /// Number of sections.
        sections: u32,
        /// Summary of the whole document; `None` if no section has one.
        summary: Option<String>,
    },
    /// The job starts no further pages until a quota allows more, and then continues.
    #[serde(rename = "job-held")]
    JobPausedByQuota {
        /// The exhausted quota, as an error of kind `quota`.
        error: ErrorInfo,
    },
    /// Requests of the job started to wait for language models, because each provider that could respond fails.
    ModelWaitStarted {
        /// The providers, with their last errors.
        providers: Vec<ProviderFailureInfo>,
    },
    /// Requests of the job stopped waiting for failing language models. The event is omitted if the job ends at that
    /// moment.
    ModelWaitEnded {},
    /// The progress component reported progress.
    Progress {
        /// Percent done, 0 to 100.
        percent: f32,
        /// Message for people.
        message: String,
        /// Estimated seconds left, if known.
        seconds_left: Option<u32>,
    },
    /// The document is done.
    DocumentDone {
        /// The file's name.
        name: String,
        /// Pages that the job requests.
        pages: u32,
        /// Searchable pages.
        searchable: u32,
        /// Pages that an earlier job had done.
        skipped: u32,
        /// Pages that failed.
        failed: Vec<FailedPage>,
    },
    /// The document failed. An event without a document id concerns a file that could not be read.
    DocumentFailed {
        /// The file's name.
        name: String,
        /// Why.
        error: ErrorInfo,
        /// Pages done before the failure.
        done: u32,
    },
    /// The document was cancelled.
    DocumentCancelled {
        /// The file's name.
        name: String,
        /// Pages done before the cancellation.
        done: u32,
    },
    /// The job has ended.
    JobEnded {
        /// Final state.
        state: JobState,
        /// Work of each stage since the host last started the job. Stages without work are omitted.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        stages: Vec<StageTotals>,
    },
}

impl EventKind {
    /// Removes all text of the document: titles, summaries, and messages of components and errors. Returns whether
    /// the event had any.
    pub fn remove_document_text(&mut self) -> bool {
        let before = self.clone();
        let removed = || "the document has been deleted".to_owned();
        match self {
            Self::SectionSummarized { title, summary, .. } => (*title, *summary) = (None, None),
            Self::SectionFailed { title, error, .. } => {
                *title = None;
                error.message = removed();
            }
            Self::DocumentSummarized { summary, .. } => *summary = None,
            Self::Progress { message, .. } => *message = removed(),
            Self::PageRetried { error, .. }
            | Self::PageFailed { error, .. }
            | Self::PolicyFallback { error }
            | Self::DocumentFailed { error, .. } => error.message = removed(),
            Self::DocumentDone { failed, .. } => {
                failed.iter_mut().for_each(|page| page.error.message = removed());
            }
            Self::ModelWaitStarted { providers } => {
                providers
                    .iter_mut()
                    .for_each(|provider| provider.error.message = removed());
            }
            Self::DocumentStarted { .. }
            | Self::JobPausedByQuota { .. }
            | Self::ModelWaitEnded {}
            | Self::BatchRasterized { .. }
            | Self::PageDone { .. }
            | Self::DocumentCancelled { .. }
            | Self::JobEnded { .. } => {}
        }
        *self != before
    }

    /// Returns the name, which is also the value of the tag `type`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::DocumentStarted { .. } => "document-started",
            Self::BatchRasterized { .. } => "batch-rasterized",
            Self::PageDone { .. } => "page-done",
            Self::PageRetried { .. } => "page-retried",
            Self::PageFailed { .. } => "page-failed",
            Self::PolicyFallback { .. } => "policy-failed",
            Self::SectionSummarized { .. } => "section-summarized",
            Self::SectionFailed { .. } => "section-failed",
            Self::DocumentSummarized { .. } => "document-summarized",
            Self::JobPausedByQuota { .. } => "job-held",
            Self::ModelWaitStarted { .. } => "model-wait-started",
            Self::ModelWaitEnded {} => "model-wait-ended",
            Self::Progress { .. } => "progress",
            Self::DocumentDone { .. } => "document-done",
            Self::DocumentFailed { .. } => "document-failed",
            Self::DocumentCancelled { .. } => "document-cancelled",
            Self::JobEnded { .. } => "job-ended",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_names_match_serde_tags() {
        let error = ErrorInfo {
            kind: "k".into(),
            message: "m".into(),
        };
        let (name, stage) = (String::from("n"), Stage::Read);
        let kinds = [
            EventKind::DocumentStarted {
                name: name.clone(),
                pages: 1,
                already_done: 0,
            },
            EventKind::BatchRasterized {
                first_page: 1,
                pages: 1,
                dpi: 100,
                queues: Vec::new(),
                stage_timings: Vec::new(),
            },
            EventKind::PageDone {
                page: 1,
                searchable: true,
                passages: 1,
            },
            EventKind::PageRetried {
                page: 1,
                stage,
                attempt: 1,
                error: error.clone(),
            },
            EventKind::PageFailed {
                page: 1,
                stage,
                error: error.clone(),
            },
            EventKind::SectionSummarized {
                section: 1,
                title: None,
                first_page: 1,
                last_page: 2,
                summary: None,
            },
            EventKind::SectionFailed {
                section: 1,
                title: None,
                error: error.clone(),
            },
            EventKind::DocumentSummarized {
                sections: 1,
                summary: None,
            },
            EventKind::JobPausedByQuota { error: error.clone() },
            EventKind::ModelWaitStarted {
                providers: Vec::new(),
            },
            EventKind::ModelWaitEnded {},
            EventKind::PolicyFallback { error: error.clone() },
            EventKind::Progress {
                percent: 1.0,
                message: String::new(),
                seconds_left: None,
            },
            EventKind::DocumentDone {
                name: name.clone(),
                pages: 1,
                searchable: 1,
                skipped: 0,
                failed: Vec::new(),
            },
            EventKind::DocumentFailed {
                name: name.clone(),
                error,
                done: 0,
            },
            EventKind::DocumentCancelled { name, done: 0 },
            EventKind::JobEnded {
                state: JobState::Done,
                stages: Vec::new(),
            },
        ];
        for mut kind in kinds {
            let tagged = serde_json::to_value(&kind).unwrap();
            assert_eq!(tagged["type"], kind.name());
            kind.remove_document_text();
            assert!(
                !kind.remove_document_text(),
                "the second call finds no text: {tagged}"
            );
        }
    }
}
