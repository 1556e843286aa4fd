//! The steps of one page: it is rasterized, then its image is stored while its text is read, cut, embedded and indexed.
//!
//! Each page is a task of its own and advances as fast as the stage queues admit it. Pixels and the encoded image are moved into
//! the one step that needs them and are freed when that step ends. The page's result is written to the event log at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::time::sleep;
use tracing::Instrument as _;
use weir_core::decision::{PageRoute, ReadingMethod};
use weir_core::event::{ErrorInfo, EventKind, FailedPage};
use weir_core::ledger::{LedgerEntry, PageRecord, PageState};
use weir_core::page::EncodedImage;
use weir_core::page_text::TextSource;
use weir_core::ports::SchedulingContext;
use weir_core::usage::{QuotaReservation, Usage};
use weir_core::{PageFacts, PageNumber, Stage};

use crate::batch_tracker::BatchTracker;
use crate::document_context::DocumentContext;
use crate::error::{FAILURE_LOG_TARGET, PageStop, StageError};
use crate::failure_action::decide_failure_action;
use crate::rasterize_stage::RasterizedPage;
use crate::read_stage::QueuedRead;
use crate::stage_queue::{QueueReservation, QueuedPage, SlotPermit, StageWorkers};
use crate::trace_spans;

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
pub(crate) enum PageResult {
    /// The page is done and recorded.
    Done { passages: u32, image: Option<String> },
    /// The page has failed for good and this is recorded.
    Failed(FailedPage),
    /// The document fails. Nothing is recorded for the page.
    Fatal(ErrorInfo),
    /// The job was stopped before the page started. Nothing is recorded for the page.
    NotStarted,
}

/// Processes a page until it is done, has failed or is dropped, and records the result.
pub(crate) async fn run_page_task(
    work: Arc<DocumentContext>,
    mut page: PageTask,
) -> (PageNumber, PageResult) {
    let number = page.facts.number;
    let place = page.queue_reservation.take();
    let _reservation = page.quota_reservation.take();
    let ended = match page.process(&work, place).await {
        // A failed page must not be searchable, since the blobs that its passages link to may be missing.
        Err(PageStop::Page(stage, error)) => match page.remove_passages(&work).await {
            Ok(()) => Err(PageStop::Page(stage, error)),
            Err(stop) => Err(stop),
        },
        ended => ended,
    };
    let (state, what, end) = match ended {
        Ok(done) => {
            let what = EventKind::PageDone {
                page: number,
                searchable: done.passages > 0,
                passages: done.passages,
            };
            let end = PageResult::Done {
                passages: done.passages,
                image: done.image.clone(),
            };
            let state = PageState::Done {
                source: done.source,
                passages: done.passages,
                image: done.image,
                text: done.lines,
            };
            (state, what, end)
        }
        Err(PageStop::Page(stage, error)) => {
            tracing::warn!(target: FAILURE_LOG_TARGET, document = %work.id, page = number, %stage, error = error.message, "page failed");
            let what = EventKind::PageFailed {
                page: number,
                stage,
                error: error.clone(),
            };
            let state = PageState::Failed { error: error.clone() };
            (
                state,
                what,
                PageResult::Failed(FailedPage { page: number, error }),
            )
        }
        Err(PageStop::Document(error)) => return (number, PageResult::Fatal(error)),
        Err(PageStop::NotStarted) => return (number, PageResult::NotStarted),
    };
    let record = PageRecord {
        tenant: work.job.tenant.clone(),
        document: work.id,
        page: number,
        revision: work.job.pipeline.revision,
        job: work.job.id,
        state,
    };
    work.job
        .log
        .write_event_with_entries(vec![LedgerEntry::Page(record)], Some(work.id), what)
        .await;
    record_page_metrics(&work, &end);
    (number, end)
}

/// Counts a page that ended in the metrics and in the tenant's usage.
fn record_page_metrics(work: &DocumentContext, end: &PageResult) {
    let measures = &work.engine.metrics;
    match end {
        PageResult::Done { .. } => measures.pages_done.increment(1),
        PageResult::Failed(_) => measures.pages_failed.increment(1),
        PageResult::Fatal(_) | PageResult::NotStarted => return,
    }
    if let Some(meter) = &work.engine.ports.meter {
        let usage = Usage {
            pages: 1,
            ..Usage::default()
        };
        meter.record_usage(&work.job.tenant, &usage);
    }
}

/// The stored results of a page that is done.
struct ProcessedPage {
    source: TextSource,
    passages: u32,
    image: Option<String>,
    lines: Option<String>,
}

impl PageTask {
    async fn process(
        &self,
        work: &DocumentContext,
        place: Option<QueueReservation>,
    ) -> Result<ProcessedPage, PageStop> {
        let mut drawn = if self.route.needs_raster_before_reading() {
            let drawn = self.rasterize(work, place).await;
            self.batch_tracker.page_left_rasterizer(work).await;
            drawn?
        } else {
            let unread = place.map(|place| QueuedRead::new(place.enqueue()));
            self.batch_tracker.page_left_rasterizer(work).await;
            RasterizedPage {
                queued_read: unread,
                ..RasterizedPage::default()
            }
        };
        let (encoded, unread) = (drawn.encoded.take(), drawn.queued_read.take());
        let image = drawn.image_key.as_deref();
        let ((), (source, lines, passages)) = tokio::try_join!(
            self.store_image(work, encoded, image),
            self.read_and_index(work, unread, image),
        )?;
        Ok(ProcessedPage {
            source,
            passages,
            image: drawn.image_key,
            lines,
        })
    }

    /// Stores the page image, if there is one.
    async fn store_image(
        &self,
        work: &DocumentContext,
        encoded: Option<(EncodedImage, QueuedPage)>,
        key: Option<&str>,
    ) -> Result<(), PageStop> {
        let (Some((encoded, waiting)), Some(key)) = (encoded, key) else {
            return Ok(());
        };
        let put = || {
            work.engine
                .ports
                .blobs
                .put_blob(&work.job.tenant, key, &encoded.bytes)
        };
        self.run_in_worker_slot(work, Stage::Store, waiting, None, put)
            .await?;
        Ok(())
    }

    /// Runs `step` in a worker slot until it succeeds or its failure is final. The slot is released between two attempts.
    /// `workers` replace the usual workers of the stage.
    pub(crate) async fn run_in_worker_slot<T, E, F>(
        &self,
        work: &DocumentContext,
        stage: Stage,
        mut waiting: QueuedPage,
        workers: Option<&StageWorkers>,
        mut step: impl FnMut() -> F,
    ) -> Result<(SlotPermit, T), PageStop>
    where
        F: Future<Output = Result<T, E>>,
        StageError: From<E>,
    {
        let mut attempt = 1;
        loop {
            let seating = async {
                match workers {
                    Some(workers) => waiting.acquire_slot_from(workers).await,
                    None => waiting.acquire_slot().await,
                }
            };
            // A stopping job sends no further page to a vision model. Requests in flight may finish.
            let begins = stage == Stage::Read && self.route.reading_method == ReadingMethod::VisionModel;
            let seat = match begins {
                true => work.job.run_page_step_unless_stopping(seating).await?,
                false => seating.await,
            };
            match step().instrument(trace_spans::stage_span(stage)).await {
                Ok(value) => {
                    self.batch_tracker.add_stage_time(stage, seat.record_finished(1));
                    return Ok((seat, value));
                }
                Err(error) => {
                    let error = error.into();
                    waiting = self
                        .await_retry(work, stage, seat.requeue(), &mut attempt, error)
                        .await?;
                }
            }
        }
    }

    /// Decides what follows a failed attempt, and waits for the backoff if there is a next attempt. The page stays in the stage
    /// queue meanwhile. The caller must have freed the page's pixels.
    pub(crate) async fn await_retry(
        &self,
        work: &DocumentContext,
        stage: Stage,
        waiting: QueuedPage,
        attempt: &mut u32,
        error: StageError,
    ) -> Result<QueuedPage, PageStop> {
        let backoff = decide_failure_action(work, self.facts.number, stage, *attempt, error).await?;
        sleep(backoff).await;
        *attempt += 1;
        Ok(waiting)
    }
}
