//! A batch: the pages taken together. It does not hold its pages together (each goes on the moment it can), it only
//! knows when the last of them has left the rasterizer, and what each stage spent on them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weir_core::event::EventKind;
use weir_core::{DocumentId, PageNumber, Stage};

use crate::work::Work;

/// Pages taken together. Dropped with its last page, it logs a line for each stage.
pub(crate) struct Batch {
    document: DocumentId,
    first_page: PageNumber,
    pages: u32,
    dpi: u32,
    taken: Instant,
    /// Pages still before or in the rasterizer.
    drawing: AtomicU32,
    marks: Mutex<[Mark; Stage::ALL.len()]>,
}

/// What a stage spent on the batch.
#[derive(Default, Clone, Copy)]
struct Mark {
    pages: u32,
    busy: Duration,
    last: Option<Instant>,
}

impl Batch {
    /// A batch that has just been taken.
    pub(crate) fn new(document: DocumentId, first_page: PageNumber, pages: u32, dpi: u32) -> Self {
        Self {
            document,
            first_page,
            pages,
            dpi,
            taken: Instant::now(),
            drawing: AtomicU32::new(pages),
            marks: Mutex::default(),
        }
    }

    /// A page has left the rasterizer, or never had to be drawn. The last one makes it an event.
    pub(crate) async fn page_left(&self, work: &Work) {
        if self.drawing.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let queues = work.rooms.queues();
        work.load.look(&queues);
        tracing::debug!(
            document = %self.document, first_page = self.first_page, pages = self.pages, dpi = self.dpi,
            millis = millis(self.taken.elapsed()), "batch rasterized"
        );
        let rasterized = EventKind::BatchRasterized {
            first_page: self.first_page,
            pages: self.pages,
            dpi: self.dpi,
            queues,
            times: work.rooms.times(),
        };
        work.say(rasterized).await;
    }

    /// A stage has spent `busy` on a page.
    pub(crate) fn spent(&self, stage: Stage, busy: Duration) {
        if let Some(mark) = self.marks.lock().get_mut(stage as usize) {
            mark.pages += 1;
            mark.busy += busy;
            mark.last = Some(Instant::now());
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for (stage, mark) in Stage::ALL.iter().zip(self.marks.lock().iter()) {
            if let Some(last) = mark.last {
                tracing::debug!(
                    document = %self.document, first_page = self.first_page, %stage, pages = mark.pages,
                    busy_millis = millis(mark.busy), after_millis = millis(last - self.taken), "batch through stage"
                );
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
