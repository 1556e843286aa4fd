//! The steps of one page: it is rasterized, then its image is stored while its text is read, cut, embedded and indexed.
//!
//! Each page is a task of its own and advances as fast as the stage queues admit it. Pixels and the encoded image are moved into
//! the one step that needs them and are freed when that step ends. The page's result is written to the event log at once.

use std::sync::Arc;

use weir_core::event::{EventKind, FailedPage};
use weir_core::ledger::{FinalPageState, LedgerEntry, PageRecord};
use weir_core::page::EncodedImage;
use weir_core::page_text::TextSource;
use weir_core::usage::Usage;
use weir_core::{PageNumber, Stage};

use crate::error::{FAILURE_LOG_TARGET, PageStopReason};
use crate::job_and_document_context::DocumentContext;
use crate::page_task::{PageTask, PageTaskOutcome};
use crate::rasterize_stage::{PageAfterRasterizeStage, PageQueuedForReading};
use crate::stage_queue::{QueueReservation, QueuedPage};
use crate::store_retry::retry_while_unavailable;

/// Processes a page until it is done, has failed or is dropped, and records the result.
pub(crate) async fn run_page_task(
    document: Arc<DocumentContext>,
    mut page: PageTask,
) -> (PageNumber, PageTaskOutcome) {
    let number = page.facts.number;
    let reservation = page.queue_reservation.take();
    let _reservation = page.quota_reservation.take();
    let ended = match page.process_page(&document, reservation).await {
        // A failed page must not be searchable, since the blobs that its passages link to may be missing.
        Err(PageStopReason::PageFailed(stage, error)) => {
            match page.remove_failed_page_passages(&document).await {
                Ok(()) => Err(PageStopReason::PageFailed(stage, error)),
                Err(stop) => Err(stop),
            }
        }
        ended => ended,
    };
    let (state, event, end) = match ended {
        Ok(done) => {
            let event = EventKind::PageDone {
                page: number,
                searchable: done.passages > 0,
                passages: done.passages,
            };
            let end = PageTaskOutcome::Done {
                passages: done.passages,
                image: done.image.clone(),
            };
            let state = FinalPageState::Done {
                source: done.source,
                passages: done.passages,
                image: done.image,
                text: done.lines,
            };
            (state, event, end)
        }
        Err(PageStopReason::PageFailed(stage, error)) => {
            tracing::warn!(target: FAILURE_LOG_TARGET, document = %document.id, page = number, %stage, error = error.message, "page failed");
            let event = EventKind::PageFailed {
                page: number,
                stage,
                error: error.clone(),
            };
            let state = FinalPageState::Failed { error: error.clone() };
            (
                state,
                event,
                PageTaskOutcome::Failed(FailedPage { page: number, error }),
            )
        }
        Err(PageStopReason::DocumentFailed(error)) => return (number, PageTaskOutcome::Fatal(error)),
        Err(PageStopReason::NotStarted) => return (number, PageTaskOutcome::NotStarted),
    };
    let record = PageRecord {
        tenant: document.job.tenant.clone(),
        document: document.id,
        page: number,
        revision: document.job.pipeline.revision,
        job: document.job.id,
        state,
    };
    document
        .job
        .log
        .write_event_with_ledger_entries(vec![LedgerEntry::Page(record)], Some(document.id), event)
        .await;
    record_page_metrics_and_usage(&document, &end);
    (number, end)
}

/// Counts a page that ended in the metrics and in the tenant's usage.
fn record_page_metrics_and_usage(document: &DocumentContext, end: &PageTaskOutcome) {
    let metrics = &document.engine.metrics;
    match end {
        PageTaskOutcome::Done { .. } => metrics.pages_done.increment(1),
        PageTaskOutcome::Failed(_) => metrics.pages_failed.increment(1),
        PageTaskOutcome::Fatal(_) | PageTaskOutcome::NotStarted => return,
    }
    if let Some(meter) = &document.engine.ports.meter {
        let usage = Usage {
            pages: 1,
            ..Usage::default()
        };
        meter.record_usage(&document.job.tenant, &usage);
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
    async fn process_page(
        &self,
        document: &DocumentContext,
        reservation: Option<QueueReservation>,
    ) -> Result<ProcessedPage, PageStopReason> {
        let mut rasterized = if self.route.needs_raster_before_reading() {
            let rasterized = self.reserve_queues_and_rasterize(document, reservation).await;
            self.batch_tracker.record_page_left_rasterizer(document).await;
            rasterized?
        } else {
            let queued_read = reservation.map(|reservation| PageQueuedForReading::new(reservation.enqueue()));
            self.batch_tracker.record_page_left_rasterizer(document).await;
            PageAfterRasterizeStage {
                queued_read,
                ..PageAfterRasterizeStage::default()
            }
        };
        let (encoded, queued_read) = (rasterized.encoded.take(), rasterized.queued_read.take());
        let image = rasterized.image_key.as_deref();
        let ((), (source, lines, passages)) = tokio::try_join!(
            self.store_image(document, encoded, image),
            self.read_and_index_page(document, queued_read, image),
        )?;
        Ok(ProcessedPage {
            source,
            passages,
            image: rasterized.image_key,
            lines,
        })
    }

    /// Stores the page image, if there is one.
    async fn store_image(
        &self,
        document: &DocumentContext,
        encoded: Option<(EncodedImage, QueuedPage)>,
        key: Option<&str>,
    ) -> Result<(), PageStopReason> {
        let (Some((encoded, queued_page)), Some(key)) = (encoded, key) else {
            return Ok(());
        };
        let blobs = &document.engine.ports.blobs;
        let put = || retry_while_unavailable(|| blobs.put_blob(&document.job.tenant, key, &encoded.bytes));
        self.run_in_slot_with_retries(document, Stage::Store, queued_page, None, put)
            .await?;
        Ok(())
    }
}
