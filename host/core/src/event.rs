//! The event log of a job: one ordered, gap-free sequence of facts, the same for every reader.

use serde::{Deserialize, Serialize};

use crate::decision::{QueueState, StageTime, StageWork};
use crate::id::{DocumentId, JobId, PageNumber};
use crate::job::JobState;
use crate::language::FailingProvider;
use crate::page::Stage;

/// An entry of a job's event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Place in the log; the first is 1 and none is left out.
    pub seq: u64,
    /// The job.
    pub job: JobId,
    /// The document it is about; `None` for the job as a whole.
    pub document: Option<DocumentId>,
    /// Milliseconds since the job was made; never less than that of the event before.
    pub at_millis: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: EventKind,
}

/// An error as events and answers carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorNote {
    /// A stable word for programs.
    pub kind: String,
    /// One line for people.
    pub message: String,
}

/// A page that failed for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedPage {
    /// The page.
    pub page: PageNumber,
    /// Why.
    pub error: ErrorNote,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum EventKind {
    /// Work on a document begins; once more if the host was started again in between.
    DocumentStarted {
        /// The file's name.
        name: String,
        /// Pages asked for.
        pages: u32,
        /// Those of them an earlier job has done.
        already_done: u32,
    },
    /// A batch left the rasterizer.
    BatchRasterized {
        /// First page of the batch.
        first_page: PageNumber,
        /// Pages in it.
        pages: u32,
        /// Resolution.
        dpi: u32,
        /// Queue depths at that moment.
        queues: Vec<QueueState>,
        /// Stage times so far.
        times: Vec<StageTime>,
    },
    /// A page has been stored, read and, where asked for, made searchable.
    PageDone {
        /// The page.
        page: PageNumber,
        /// Whether a search can find it.
        searchable: bool,
        /// Passages indexed.
        passages: u32,
    },
    /// A page failed and is being tried again.
    PageRetried {
        /// The page.
        page: PageNumber,
        /// Where it failed.
        stage: Stage,
        /// How often it has failed there.
        attempt: u32,
        /// Why.
        error: ErrorNote,
    },
    /// A page failed for good.
    PageFailed {
        /// The page.
        page: PageNumber,
        /// Where it failed.
        stage: Stage,
        /// Why.
        error: ErrorNote,
    },
    /// A component did not decide, and the default took over for that call.
    PolicyFailed {
        /// Why.
        error: ErrorNote,
    },
    /// A section was summarized, or is not to be.
    SectionSummarized {
        /// Its place among the document's sections, from 1.
        section: u32,
        /// Its heading, or one made for it.
        title: Option<String>,
        /// First page.
        first_page: PageNumber,
        /// Last page.
        last_page: PageNumber,
        /// The summary; none if the pipeline wants none of it.
        summary: Option<String>,
    },
    /// A section could not be summarized.
    SectionFailed {
        /// Its place among the document's sections, from 1.
        section: u32,
        /// Its heading.
        title: Option<String>,
        /// Why.
        error: ErrorNote,
    },
    /// The document was summarized.
    DocumentSummarized {
        /// Its sections.
        sections: u32,
        /// The summary of the whole; none if none of its sections has one.
        summary: Option<String>,
    },
    /// The job begins no further pages until a quota allows more, and then goes on.
    JobHeld {
        /// The quota, as an error of the kind `quota`.
        error: ErrorNote,
    },
    /// Requests of the job wait for language models: each provider that could answer them fails.
    ModelWaitStarted {
        /// The providers, with their last errors.
        providers: Vec<FailingProvider>,
    },
    /// Requests of the job do not wait for failing language models any more. It is left out if the job ends at that moment.
    ModelWaitEnded {},
    /// The progress component has something to say.
    Progress {
        /// 0 to 100.
        percent: f32,
        /// For people.
        message: String,
        /// Seconds left, if that can be told.
        seconds_left: Option<u32>,
    },
    /// The document is done.
    DocumentDone {
        /// The file's name.
        name: String,
        /// Pages asked for.
        pages: u32,
        /// Pages a search can find.
        searchable: u32,
        /// Pages an earlier job had already done.
        skipped: u32,
        /// Pages that failed.
        failed: Vec<FailedPage>,
    },
    /// The document could not be done. An event without a document id is about a file that could not even be read.
    DocumentFailed {
        /// The file's name.
        name: String,
        /// Why.
        error: ErrorNote,
        /// Pages done before.
        done: u32,
    },
    /// Work on the document was cancelled.
    DocumentCancelled {
        /// The file's name.
        name: String,
        /// Pages done before.
        done: u32,
    },
    /// The job has ended.
    JobEnded {
        /// How.
        state: JobState,
        /// What each stage did for it since the host last began with it; stages that did nothing are left out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        stages: Vec<StageWork>,
    },
}

impl EventKind {
    /// Removes all text of the document: titles, summaries, messages of components and of errors. Says whether there was any.
    pub fn redact(&mut self) -> bool {
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
            | Self::PolicyFailed { error }
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
            | Self::JobHeld { .. }
            | Self::ModelWaitEnded {}
            | Self::BatchRasterized { .. }
            | Self::PageDone { .. }
            | Self::DocumentCancelled { .. }
            | Self::JobEnded { .. } => {}
        }
        *self != before
    }

    /// Its name, as the tag `type` has it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::DocumentStarted { .. } => "document-started",
            Self::BatchRasterized { .. } => "batch-rasterized",
            Self::PageDone { .. } => "page-done",
            Self::PageRetried { .. } => "page-retried",
            Self::PageFailed { .. } => "page-failed",
            Self::PolicyFailed { .. } => "policy-failed",
            Self::SectionSummarized { .. } => "section-summarized",
            Self::SectionFailed { .. } => "section-failed",
            Self::DocumentSummarized { .. } => "document-summarized",
            Self::JobHeld { .. } => "job-held",
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
    fn names_are_the_tags() {
        let error = ErrorNote {
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
                times: Vec::new(),
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
            EventKind::JobHeld { error: error.clone() },
            EventKind::ModelWaitStarted {
                providers: Vec::new(),
            },
            EventKind::ModelWaitEnded {},
            EventKind::PolicyFailed { error: error.clone() },
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
            kind.redact();
            assert!(!kind.redact(), "once is enough: {tagged}");
        }
    }
}
