//! The state that the pages of one document share while they are processed.

use std::collections::HashSet;
use std::sync::Arc;

use weir_core::decision::DocumentRoute;
use weir_core::event::EventKind;
use weir_core::ports::{OpenDocument, SchedulingContext};
use weir_core::{DocumentId, PageNumber};

use crate::EngineState;
use crate::bottleneck::QueueSamples;
use crate::job_context::JobContext;
use crate::stage_queues::StageQueues;
use crate::upsert_writer::UpsertQueue;

pub(crate) struct DocumentContext {
    pub(crate) engine: Arc<EngineState>,
    pub(crate) job: Arc<JobContext>,
    pub(crate) id: DocumentId,
    pub(crate) name: String,
    pub(crate) open: Arc<dyn OpenDocument>,
    pub(crate) route: DocumentRoute,
    /// The account that the document's pages are charged to.
    pub(crate) account: SchedulingContext,
    pub(crate) queues: StageQueues,
    pub(crate) queue_samples: QueueSamples,
    pub(crate) upserts: UpsertQueue,
    /// Pages that may already have passages in the index from an earlier run.
    pub(crate) indexed_pages: HashSet<PageNumber>,
}

impl DocumentContext {
    /// Writes an event of the document to the job's event log.
    pub(crate) async fn write_event(&self, what: EventKind) {
        self.job.log.write_event(Some(self.id), what).await;
    }
}
