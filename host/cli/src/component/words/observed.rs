//! What a progress component is told.

use serde::Deserialize;
use weir_core::decision::Observation;
use weir_core::{DocumentId, PageNumber, Stage};

use super::queues::{QueueState, StageTime};
use super::unsaid::{one, some_document, yes};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Observed {
    pub(super) at_millis: u64,
    pub(super) event: Event,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub(crate) enum Event {
    DocumentStarted {
        #[serde(default = "some_document")]
        document: DocumentId,
        name: String,
        pages: u32,
        #[serde(default)]
        already_done: u32,
    },
    BatchRasterized {
        #[serde(default = "some_document")]
        document: DocumentId,
        pages: u32,
        #[serde(default)]
        queues: Vec<QueueState>,
        #[serde(default)]
        times: Vec<StageTime>,
    },
    PageDone {
        #[serde(default = "some_document")]
        document: DocumentId,
        page: PageNumber,
        #[serde(default = "yes")]
        searchable: bool,
        #[serde(default = "one")]
        passages: u32,
    },
    PageFailed {
        #[serde(default = "some_document")]
        document: DocumentId,
        page: PageNumber,
        stage: Stage,
        #[serde(default)]
        message: String,
    },
    DocumentDone {
        #[serde(default = "some_document")]
        document: DocumentId,
        done: u32,
        #[serde(default)]
        failed: u32,
    },
    DocumentFailed {
        #[serde(default = "some_document")]
        document: DocumentId,
        done: u32,
        #[serde(default)]
        failed: u32,
    },
}

impl From<Event> for Observation {
    fn from(event: Event) -> Self {
        match event {
            Event::DocumentStarted {
                document,
                name,
                pages,
                already_done,
            } => Self::DocumentStarted {
                document,
                name,
                pages,
                already_done,
            },
            Event::BatchRasterized {
                document,
                pages,
                queues,
                times,
            } => Self::BatchRasterized {
                document,
                pages,
                queues: queues.into_iter().map(Into::into).collect(),
                times: times.into_iter().map(Into::into).collect(),
            },
            Event::PageDone {
                document,
                page,
                searchable,
                passages,
            } => Self::PageDone {
                document,
                page,
                searchable,
                passages,
            },
            Event::PageFailed {
                document,
                page,
                stage,
                message,
            } => Self::PageFailed {
                document,
                page,
                stage,
                message,
            },
            Event::DocumentDone {
                document,
                done,
                failed,
            } => Self::DocumentDone {
                document,
                done,
                failed,
            },
            Event::DocumentFailed {
                document,
                done,
                failed,
            } => Self::DocumentFailed {
                document,
                done,
                failed,
            },
        }
    }
}
