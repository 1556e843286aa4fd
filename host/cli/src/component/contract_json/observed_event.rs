//! Events in the input of progress calls, parsed from the JSON of a test case.

use serde::Deserialize;
use weir_core::decision::ObservedEvent;
use weir_core::{DocumentId, PageNumber, Stage};

use super::defaults::{default_document_id, default_one, default_true};
use super::stage_state::{QueueStateJson, StageTimingJson};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ObserveInputJson {
    pub(super) at_millis: u64,
    pub(super) event: ObservedEventJson,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub(crate) enum ObservedEventJson {
    DocumentStarted {
        #[serde(default = "default_document_id")]
        document: DocumentId,
        name: String,
        pages: u32,
        #[serde(default)]
        already_done: u32,
    },
    BatchRasterized {
        #[serde(default = "default_document_id")]
        document: DocumentId,
        pages: u32,
        #[serde(default)]
        queues: Vec<QueueStateJson>,
        #[serde(default)]
        times: Vec<StageTimingJson>,
    },
    PageDone {
        #[serde(default = "default_document_id")]
        document: DocumentId,
        page: PageNumber,
        #[serde(default = "default_true")]
        searchable: bool,
        #[serde(default = "default_one")]
        passages: u32,
    },
    PageFailed {
        #[serde(default = "default_document_id")]
        document: DocumentId,
        page: PageNumber,
        stage: Stage,
        #[serde(default)]
        message: String,
    },
    DocumentDone {
        #[serde(default = "default_document_id")]
        document: DocumentId,
        done: u32,
        #[serde(default)]
        failed: u32,
    },
    DocumentFailed {
        #[serde(default = "default_document_id")]
        document: DocumentId,
        done: u32,
        #[serde(default)]
        failed: u32,
    },
}

impl From<ObservedEventJson> for ObservedEvent {
    fn from(event: ObservedEventJson) -> Self {
        match event {
            ObservedEventJson::DocumentStarted {
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
            ObservedEventJson::BatchRasterized {
                document,
                pages,
                queues,
                times,
            } => Self::BatchRasterized {
                document,
                pages,
                queues: queues.into_iter().map(Into::into).collect(),
                stage_timings: times.into_iter().map(Into::into).collect(),
            },
            ObservedEventJson::PageDone {
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
            ObservedEventJson::PageFailed {
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
            ObservedEventJson::DocumentDone {
                document,
                done,
                failed,
            } => Self::DocumentDone {
                document,
                done,
                failed,
            },
            ObservedEventJson::DocumentFailed {
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
