//! The rasterize stage. A page first reserves capacity in the queues that follow, then memory, and acquires a worker last.
//!
//! A page for OCR keeps its pixels in memory until it has been read. So pages are rasterized no further ahead than OCR can take
//! (`ocr_image_limiter`), and then only OCR itself keeps a page waiting. Memory is reserved before the worker is acquired, since
//! a worker that waits for memory serves no document. A page that waits for another attempt frees its pixels and is rasterized
//! again.

use tracing::Instrument as _;
use weir_core::Stage;
use weir_core::decision::ReadingMethod;
use weir_core::page::{EncodedImage, RawPageImage};
use weir_core::ports::{RasterizeOptions, RasterizeOutput};
use weir_core::search::page_image_blob_key;

use crate::error::PageStopReason;
use crate::job_and_document_context::DocumentContext;
use crate::page_task::PageTask;
use crate::resizable_semaphore::CapacityPermit;
use crate::stage_queue::{QueueReservation, QueuedPage};
use crate::trace_spans;

/// A page that has left the rasterize stage, or did not need it.
#[derive(Default)]
pub(crate) struct PageAfterRasterizeStage {
    /// The image to store, with its position in the store queue.
    pub(crate) encoded: Option<(EncodedImage, QueuedPage)>,
    pub(crate) image_key: Option<String>,
    /// `None` if the page is not read.
    pub(crate) queued_read: Option<PageQueuedForReading>,
}

/// A page in the queue of the read stage.
pub(crate) struct PageQueuedForReading {
    pub(crate) queued_page: QueuedPage,
    /// The page image, if OCR reads the page.
    pub(crate) image: Option<OcrImage>,
}

impl PageQueuedForReading {
    /// Creates a queued page without an image.
    pub(crate) fn new(queued_page: QueuedPage) -> Self {
        Self {
            queued_page,
            image: None,
        }
    }
}

/// A page image in memory for OCR.
pub(crate) struct OcrImage {
    /// `None` if the rasterizer returned no pixels.
    pub(crate) pixels: Option<RawPageImage>,
    pub(crate) dpi: u32,
    /// The permit to have pixels in memory.
    _permit: Option<CapacityPermit>,
}

impl PageTask {
    /// Rasterizes the page, after it has reserved capacity in the queues that follow.
    pub(crate) async fn reserve_queues_and_rasterize(
        &self,
        document: &DocumentContext,
        reservation: Option<QueueReservation>,
    ) -> Result<PageAfterRasterizeStage, PageStopReason> {
        let queued_page = match reservation {
            Some(reservation) => reservation.enqueue(),
            None => document.queues.rasterize.reserve().await.enqueue(),
        };
        let is_read_by_ocr = self.route.reading_method == ReadingMethod::Ocr;
        let reservations = async {
            let store = match self.route.store {
                true => Some(document.queues.store.reserve().await),
                false => None,
            };
            let read = match self.route.reading_method {
                ReadingMethod::Nothing => None,
                _ => Some(document.queues.read.reserve().await),
            };
            (store, read)
        };
        let (store, read) = document
            .job
            .run_unless_cancelled_or_suspended(reservations)
            .await?;
        let drawing = RasterizeOptions {
            dpi: self.dpi,
            want_pixels: is_read_by_ocr,
            want_encoded: self.route.store,
        };
        let (page, permit) = self
            .rasterize_with_retries(document, queued_page, drawing)
            .await?;
        let RasterizeOutput { dpi, image, encoded } = page;
        let image_key = encoded
            .as_ref()
            .map(|e| page_image_blob_key(&document.id, self.facts.number, dpi, e.file_extension()));
        let image = is_read_by_ocr.then_some(OcrImage {
            pixels: image,
            dpi,
            _permit: permit,
        });
        Ok(PageAfterRasterizeStage {
            encoded: encoded.zip(store.map(QueueReservation::enqueue)),
            image_key,
            queued_read: read.map(|read| PageQueuedForReading {
                queued_page: read.enqueue(),
                image,
            }),
        })
    }

    /// Rasterizes the page again for another OCR attempt.
    pub(crate) async fn rasterize_again_for_ocr_retry(
        &self,
        document: &DocumentContext,
    ) -> Result<OcrImage, PageStopReason> {
        let drawing = RasterizeOptions {
            dpi: self.dpi,
            want_pixels: true,
            want_encoded: false,
        };
        let queued_page = document.queues.rasterize.requeue_over_capacity();
        let (page, permit) = self
            .rasterize_with_retries(document, queued_page, drawing)
            .await?;
        Ok(OcrImage {
            pixels: page.image,
            dpi: page.dpi,
            _permit: permit,
        })
    }

    /// Waits for memory and then for a worker, and rasterizes the page, until that succeeds or its failure is final. Starts nothing
    /// once the job is stopping.
    async fn rasterize_with_retries(
        &self,
        document: &DocumentContext,
        mut queued_page: QueuedPage,
        drawing: RasterizeOptions,
    ) -> Result<(RasterizeOutput, Option<CapacityPermit>), PageStopReason> {
        let (job, stage) = (&document.job, Stage::Rasterize);
        let mut attempt = 1;
        loop {
            let memory = async {
                let permit = match drawing.want_pixels {
                    true => {
                        let workers = &document.engine.workers;
                        Some(
                            document
                                .queues
                                .acquire_ocr_image_permit(workers, &document.account)
                                .await,
                        )
                    }
                    false => None,
                };
                (
                    permit,
                    document
                        .open
                        .reserve_page_memory(self.facts.number, drawing)
                        .await,
                )
            };
            let (permit, reserved) = job.run_unless_cancelled_or_suspended(memory).await?;
            let error = match reserved {
                Ok(reserved) => {
                    let slot = job
                        .run_unless_cancelled_or_suspended(queued_page.leave_queue_for_worker_slot())
                        .await?;
                    match reserved
                        .rasterize_page()
                        .instrument(trace_spans::stage_span(stage))
                        .await
                    {
                        Ok(page) => {
                            self.batch_tracker
                                .add_stage_time(stage, slot.record_finished_pages(1));
                            return Ok((page, permit));
                        }
                        Err(error) => {
                            queued_page = slot.release_and_requeue();
                            error
                        }
                    }
                }
                Err(error) => error,
            };
            drop(permit);
            queued_page = self
                .decide_and_await_retry(document, stage, queued_page, &mut attempt, error.into())
                .await?;
        }
    }
}
