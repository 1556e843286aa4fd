//! Tracks a batch, which is the pages that were planned together.
//!
//! A batch does not hold its pages together: each page continues as soon as it can. The tracker only notices when the last page
//! has left the rasterizer, and sums up the time that each stage spent on the pages.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weir_core::event::EventKind;
use weir_core::{DocumentId, PageNumber, Stage};

use crate::job_and_document_context::DocumentContext;

/// The progress of one batch. The pages share it; when the last page drops it, it logs a line for each stage.
pub(crate) struct BatchTracker {
    document: DocumentId,
    first_page: PageNumber,
    pages: u32,
    dpi: u32,
    started: Instant,
    /// Pages that have not left the rasterizer yet.
    pages_to_rasterize: AtomicU32,
    stage_totals: Mutex<[BatchTimeInOneStage; Stage::ALL.len()]>,
}

/// The time that one stage spent on the batch.
#[derive(Default, Clone, Copy)]
struct BatchTimeInOneStage {
    pages: u32,
    busy: Duration,
    last: Option<Instant>,
}

impl BatchTracker {
    /// Creates the tracker of a batch that starts now.
    pub(crate) fn new(document: DocumentId, first_page: PageNumber, pages: u32, dpi: u32) -> Self {
        Self {
            document,
            first_page,
            pages,
            dpi,
            started: Instant::now(),
            pages_to_rasterize: AtomicU32::new(pages),
            stage_totals: Mutex::default(),
        }
    }

    /// Notes that a page has left the rasterizer or does not need it. The last page writes the event `batch-rasterized`.
    pub(crate) async fn record_page_left_rasterizer(&self, document: &DocumentContext) {
        if self.pages_to_rasterize.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let queues = document.queues.queue_states();
        document.queue_samples.add_sample_of_all_queues(&queues);
        tracing::debug!(
            document = %self.document, first_page = self.first_page, pages = self.pages, dpi = self.dpi,
            millis = to_millis(self.started.elapsed()), "batch rasterized"
        );
        let rasterized = EventKind::BatchRasterized {
            first_page: self.first_page,
            pages: self.pages,
            dpi: self.dpi,
            queues,
            stage_timings: document.queues.mean_stage_times(),
        };
        document.write_document_event(rasterized).await;
    }

    /// Adds the time that a stage spent on one page.
    pub(crate) fn add_stage_time(&self, stage: Stage, busy: Duration) {
        if let Some(total) = self.stage_totals.lock().get_mut(stage as usize) {
            total.pages += 1;
            total.busy += busy;
            total.last = Some(Instant::now());
        }
    }
}

impl Drop for BatchTracker {
    fn drop(&mut self) {
        for (stage, total) in Stage::ALL.iter().zip(self.stage_totals.lock().iter()) {
            if let Some(last) = total.last {
                tracing::debug!(
                    document = %self.document, first_page = self.first_page, %stage, pages = total.pages,
                    busy_millis = to_millis(total.busy), after_millis = to_millis(last - self.started), "batch through stage"
                );
            }
        }
    }
}

fn to_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
