//! A planned page, the retry loop that every stage uses for it, and the decision that follows a failure.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::sleep;
use tracing::Instrument as _;
use weir_core::decision::{FailureAction, PageRoute, PageStageFailure, ReadingMethod};
use weir_core::event::{ErrorInfo, EventKind, FailedPage};
use weir_core::ports::SchedulingContext;
use weir_core::usage::QuotaReservation;
use weir_core::{PageFacts, PageNumber, Stage};

use crate::batch_tracker::BatchTracker;
use crate::error::{PageStopReason, StageError};
use crate::job_and_document_context::DocumentContext;
use crate::stage_queue::{QueueReservation, QueuedPage, WorkerSlotPermit};
use crate::stage_workers::StageWorkers;
use crate::trace_spans;

/// The most attempts of a page in one stage.
const MAX_ATTEMPTS: u32 = 5;

/// A planned page, with a reservation in the first stage queue that it needs.
pub(crate) struct PageTask {
    pub(crate) facts: PageFacts,
    pub(crate) route: PageRoute,
    pub(crate) dpi: u32,
    pub(crate) account: SchedulingContext,
    pub(crate) batch_tracker: Arc<BatchTracker>,
    pub(crate) queue_reservation: Option<QueueReservation>,
    /// The page's reservation of the tenant's quotas, held until the page has ended and was metered.
    pub(crate) quota_reservation: Option<QuotaReservation>,
    /// Whether the index may hold passages that this job has written for the page.
    pub(crate) indexed: AtomicBool,
}

/// The result of a page's task.
pub(crate) enum PageTaskOutcome {
    /// The page is done and recorded.
    Done { passages: u32, image: Option<String> },
    /// The page has failed for good and this is recorded.
    Failed(FailedPage),
    /// The document fails. Nothing is recorded for the page.
    Fatal(ErrorInfo),
    /// The job was stopped before the page started. Nothing is recorded for the page.
    NotStarted,
}

impl PageTask {
    /// Runs `step` in a worker slot until it succeeds or its failure is final. The slot is released between two attempts.
    /// `workers` replace the usual workers of the stage.
    pub(crate) async fn run_in_slot_with_retries<T, E, F>(
        &self,
        document: &DocumentContext,
        stage: Stage,
        mut queued_page: QueuedPage,
        workers: Option<&StageWorkers>,
        mut step: impl FnMut() -> F,
    ) -> Result<(WorkerSlotPermit, T), PageStopReason>
    where
        F: Future<Output = Result<T, E>>,
        StageError: From<E>,
    {
        let mut attempt = 1;
        loop {
            let acquiring_slot = async {
                match workers {
                    Some(workers) => queued_page.acquire_slot_of_workers(workers).await,
                    None => queued_page.leave_queue_for_worker_slot().await,
                }
            };
            // A stopping job sends no further page to a vision model. Requests in flight may finish.
            let sends_model_request =
                stage == Stage::Read && self.route.reading_method == ReadingMethod::VisionModel;
            let slot = match sends_model_request {
                true => {
                    document
                        .job
                        .run_unless_cancelled_or_suspended(acquiring_slot)
                        .await?
                }
                false => acquiring_slot.await,
            };
            match step().instrument(trace_spans::stage_span(stage)).await {
                Ok(value) => {
                    self.batch_tracker
                        .add_stage_time(stage, slot.record_finished_pages(1));
                    return Ok((slot, value));
                }
                Err(error) => {
                    let error = error.into();
                    queued_page = self
                        .decide_and_await_retry(
                            document,
                            stage,
                            slot.release_and_requeue(),
                            &mut attempt,
                            error,
                        )
                        .await?;
                }
            }
        }
    }

    /// Decides what follows a failed attempt, and waits for the backoff if there is a next attempt. The page stays in the stage
    /// queue meanwhile. The caller must have freed the page's pixels.
    pub(crate) async fn decide_and_await_retry(
        &self,
        document: &DocumentContext,
        stage: Stage,
        queued_page: QueuedPage,
        attempt: &mut u32,
        error: StageError,
    ) -> Result<QueuedPage, PageStopReason> {
        let backoff = decide_failure_action(document, self.facts.number, stage, *attempt, error).await?;
        sleep(backoff).await;
        *attempt += 1;
        Ok(queued_page)
    }
}

/// Decides what follows the failure of a page in its attempt number `attempt`. `Ok` is the backoff before the next attempt.
///
/// The tenant's component decides, with two exceptions. If every page would fail for the same reason (a full disk, a model that
/// is not installed), the document fails at once without a policy call. And a page gets at most five attempts in a stage, or
/// only one if the error is permanent (a language model that denies every request, a quota).
pub(crate) async fn decide_failure_action(
    document: &DocumentContext,
    page: PageNumber,
    stage: Stage,
    attempt: u32,
    error: StageError,
) -> Result<Duration, PageStopReason> {
    let note = error.to_error_info();
    if error.affects_every_page() {
        return Err(PageStopReason::DocumentFailed(note));
    }
    let failure = PageStageFailure {
        document: document.id,
        page,
        stage,
        attempt,
        kind: note.kind.clone(),
        message: note.message.clone(),
    };
    match document.job.policy.choose_failure_action(failure).await? {
        FailureAction::RetryAfter(millis) if attempt < MAX_ATTEMPTS && !error.is_permanent() => {
            tracing::info!(document = %document.id, page, %stage, attempt, error = note.message, "the page is retried");
            let retried = EventKind::PageRetried {
                page,
                stage,
                attempt,
                error: note,
            };
            document.write_document_event(retried).await;
            Ok(Duration::from_millis(millis.into()))
        }
        FailureAction::RetryAfter(_) | FailureAction::SkipPage => {
            Err(PageStopReason::PageFailed(stage, note))
        }
        FailureAction::FailDocument => Err(PageStopReason::DocumentFailed(note)),
    }
}
