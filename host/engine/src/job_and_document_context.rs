//! The state that the documents of an active job share, and the state that the pages of a document share.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use weir_core::collection_and_labels::CollectionAndLabelsRequest;
use weir_core::decision::DocumentRoute;
use weir_core::event::EventKind;
use weir_core::manifest::ResolvedPipeline;
use weir_core::ports::{JobPolicy, OpenedPdf, SchedulingContext};
use weir_core::usage::QuotaExhaustedError;
use weir_core::{DocumentId, JobId, PageNumber, PriorityLane, TenantId};

use crate::bottleneck::EmptyAndFullQueueCounter;
use crate::component_capabilities::ComponentCapabilitiesOfJob;
use crate::document_stage_queues::DocumentStageQueues;
use crate::engine_state::EngineState;
use crate::error::{DocumentStopReason, PageStopReason};
use crate::event_log::EventLog;
use crate::group_commit::GroupCommit;
use crate::model_request_tracker::ModelRequestTracker;
use crate::stage_busy_times::StageBusyTimes;
use crate::stop_signal::StopSignal;
use crate::upsert_writer::UpsertQueue;

/// The state that the documents of an active job share.
pub(crate) struct JobContext {
    pub(crate) engine: Arc<EngineState>,
    pub(crate) tenant: TenantId,
    pub(crate) id: JobId,
    pub(crate) pipeline: Arc<ResolvedPipeline>,
    pub(crate) force: bool,
    /// Whether documents are summarized.
    pub(crate) summarize: bool,
    /// The requested collection and labels.
    pub(crate) requested_placement: CollectionAndLabelsRequest,
    /// The account of work that does not wait for fuller batches.
    pub(crate) account: SchedulingContext,
    /// The requested lane.
    pub(crate) lane: Option<PriorityLane>,
    pub(crate) policy: Arc<dyn JobPolicy>,
    pub(crate) log: Arc<EventLog>,
    pub(crate) stop_signal: StopSignal,
    pub(crate) capabilities: Arc<ComponentCapabilitiesOfJob>,
    pub(crate) busy_time: Arc<StageBusyTimes>,
    pub(crate) model_requests: Arc<ModelRequestTracker>,
    /// The first quota that was used up. The job then starts no further pages.
    pub(crate) exhausted_quota: OnceLock<QuotaExhaustedError>,
}

/// Waits until a job was cancelled or has failed, or ledger commits fail. Returns the reason.
async fn await_job_cancelled_or_failed(
    stop_signal: &StopSignal,
    group_commit: &GroupCommit,
) -> DocumentStopReason {
    tokio::select! {
        biased;
        error = stop_signal.await_failed() => DocumentStopReason::Failed(error),
        error = group_commit.await_failure() => error.into(),
        () = stop_signal.await_cancelled() => DocumentStopReason::Cancelled,
    }
}

/// Waits until a job is stopped for any reason, including a suspension. Returns the reason.
pub(crate) async fn await_job_stop_reason(
    stop_signal: &StopSignal,
    group_commit: &GroupCommit,
) -> DocumentStopReason {
    tokio::select! {
        biased;
        over = await_job_cancelled_or_failed(stop_signal, group_commit) => over,
        () = stop_signal.await_cancelled_or_suspended() => DocumentStopReason::Suspended,
    }
}

impl JobContext {
    /// Waits until the job is stopped, and returns the reason.
    pub(crate) async fn await_stop_reason(&self) -> DocumentStopReason {
        await_job_stop_reason(&self.stop_signal, &self.engine.group_commit).await
    }

    /// Runs `step` unless the job is cancelled or fails before it ends. A suspension does not interrupt it.
    pub(crate) async fn run_unless_cancelled_or_failed<T>(
        &self,
        step: impl Future<Output = T>,
    ) -> Result<T, DocumentStopReason> {
        tokio::select! {
            biased;
            over = await_job_cancelled_or_failed(&self.stop_signal, &self.engine.group_commit) => Err(over),
            done = step => Ok(done),
        }
    }

    /// Runs `step` unless the job is stopped for any reason before it ends.
    pub(crate) async fn run_unless_stopped<T>(
        &self,
        step: impl Future<Output = T>,
    ) -> Result<T, DocumentStopReason> {
        tokio::select! {
            biased;
            stopped = self.await_stop_reason() => Err(stopped),
            done = step => Ok(done),
        }
    }

    /// Runs a step that precedes the start of a page, unless the job is cancelled or suspended before it ends.
    pub(crate) async fn run_unless_cancelled_or_suspended<T>(
        &self,
        step: impl Future<Output = T>,
    ) -> Result<T, PageStopReason> {
        tokio::select! {
            biased;
            () = self.stop_signal.await_cancelled_or_suspended() => Err(PageStopReason::NotStarted),
            done = step => Ok(done),
        }
    }
}

/// The state that the pages of one document share while they are processed.
pub(crate) struct DocumentContext {
    pub(crate) engine: Arc<EngineState>,
    pub(crate) job: Arc<JobContext>,
    pub(crate) id: DocumentId,
    pub(crate) name: String,
    pub(crate) open: Arc<dyn OpenedPdf>,
    pub(crate) route: DocumentRoute,
    /// The account that the document's pages are charged to.
    pub(crate) account: SchedulingContext,
    pub(crate) queues: DocumentStageQueues,
    pub(crate) queue_samples: EmptyAndFullQueueCounter,
    pub(crate) upserts: UpsertQueue,
    /// Pages that may already have passages in the index from an earlier run.
    pub(crate) indexed_pages: HashSet<PageNumber>,
}

impl DocumentContext {
    /// Writes an event of the document to the job's event log.
    pub(crate) async fn write_document_event(&self, kind: EventKind) {
        self.job.log.write_event(Some(self.id), kind).await;
    }
}
