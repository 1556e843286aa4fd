//! The steps of one page: it is rasterized, then its image is stored while its text is read, cut, embedded and indexed.
//!
//! Each page is a task of its own and advances as fast as the stage queues admit it. Pixels and the encoded image are moved into
//! the one step that needs them and are freed when that step ends. The page's result is written to the event log at once.

use std::sync::Arc;

use weir_core::event::{EventKind, FailedPage};
use weir_core::ledger::{LedgerEntry, PageRecord, PageState};
use weir_core::page::EncodedImage;
use weir_core::page_text::TextSource;
use weir_core::usage::Usage;
use weir_core::{PageNumber, Stage};

use crate::context::DocumentContext;
use crate::error::{FAILURE_LOG_TARGET, PageStop};
use crate::page_task::{PageResult, PageTask};
use crate::rasterize_stage::{QueuedRead, RasterizedPage};
use crate::stage_queue::{QueueReservation, QueuedPage};

/// Processes a page until it is done, has failed or is dropped, and records the result.
pub(crate) async fn run_page_task(
    document: Arc<DocumentContext>,
    mut page: PageTask,
) -> (PageNumber, PageResult) {
    let number = page.facts.number;
    let reservation = page.queue_reservation.take();
    let _reservation = page.quota_reservation.take();
    let ended = match page.process(&document, reservation).await {
        // A failed page must not be searchable, since the blobs that its passages link to may be missing.
        Err(PageStop::Page(stage, error)) => match page.remove_passages(&document).await {
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
            tracing::warn!(target: FAILURE_LOG_TARGET, document = %document.id, page = number, %stage, error = error.message, "page failed");
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
        .write_event_with_entries(vec![LedgerEntry::Page(record)], Some(document.id), what)
        .await;
    record_page_metrics(&document, &end);
    (number, end)
}

/// Counts a page that ended in the metrics and in the tenant's usage.
fn record_page_metrics(document: &DocumentContext, end: &PageResult) {
    let measures = &document.engine.metrics;
    match end {
        PageResult::Done { .. } => measures.pages_done.increment(1),
        PageResult::Failed(_) => measures.pages_failed.increment(1),
        PageResult::Fatal(_) | PageResult::NotStarted => return,
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
    async fn process(
        &self,
        document: &DocumentContext,
        reservation: Option<QueueReservation>,
    ) -> Result<ProcessedPage, PageStop> {
        let mut rasterized = if self.route.needs_raster_before_reading() {
            let rasterized = self.rasterize(document, reservation).await;
            self.batch_tracker.page_left_rasterizer(document).await;
            rasterized?
        } else {
            let queued_read = reservation.map(|reservation| QueuedRead::new(reservation.enqueue()));
            self.batch_tracker.page_left_rasterizer(document).await;
            RasterizedPage {
                queued_read,
                ..RasterizedPage::default()
            }
        };
        let (encoded, queued_read) = (rasterized.encoded.take(), rasterized.queued_read.take());
        let image = rasterized.image_key.as_deref();
        let ((), (source, lines, passages)) = tokio::try_join!(
            self.store_image(document, encoded, image),
            self.read_and_index(document, queued_read, image),
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
    ) -> Result<(), PageStop> {
        let (Some((encoded, queued_page)), Some(key)) = (encoded, key) else {
            return Ok(());
        };
        let put = || {
            document
                .engine
                .ports
                .blobs
                .put_blob(&document.job.tenant, key, &encoded.bytes)
        };
        self.run_in_worker_slot(document, Stage::Store, queued_page, None, put)
            .await?;
        Ok(())
    }
}
