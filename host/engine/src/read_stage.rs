//! The read stage: takes a page's text from its text layer, from OCR of its image, or from a vision model.

use tracing::Instrument as _;
use weir_core::decision::ReadingMethod;
use weir_core::page_text::{Line, PageText, TextSource};
use weir_core::{InferenceError, Stage, layout};

use crate::error::{PageStopReason, StageError};
use crate::job_and_document_context::DocumentContext;
use crate::page_task::PageTask;
use crate::rasterize_stage::{OcrImage, PageQueuedForReading};
use crate::resizable_semaphore::CapacityPermit;
use crate::stage_queue::{QueueReservation, QueuedPage};
use crate::trace_spans;

/// Reservations in the queues that follow the read stage.
pub(crate) struct EmbedAndLinesQueueReservations {
    /// `None` if the page is not made searchable.
    pub(crate) embed: Option<QueueReservation>,
    pub(crate) lines: QueueReservation,
}

impl PageTask {
    /// Waits for reservations in the queues that follow the read stage.
    async fn reserve_embed_and_lines_queues(
        &self,
        document: &DocumentContext,
    ) -> EmbedAndLinesQueueReservations {
        let embed = match self.route.embed {
            true => Some(document.queues.embed.reserve().await),
            false => None,
        };
        EmbedAndLinesQueueReservations {
            embed,
            lines: document.queues.lines.reserve().await,
        }
    }

    /// Reads the page. Returns its lines in reading order and reservations in the queues that follow.
    ///
    /// These reservations are made before the page is read, so no worker reads a page that cannot continue. With OCR they are
    /// made after the pixels are freed, and the page keeps its reservation in the read queue until then.
    pub(crate) async fn read_page(
        &self,
        document: &DocumentContext,
        queued_read: PageQueuedForReading,
    ) -> Result<(PageText, EmbedAndLinesQueueReservations), PageStopReason> {
        let PageQueuedForReading { queued_page, image } = queued_read;
        if self.route.reading_method == ReadingMethod::Ocr {
            let (lines, reservation) = self
                .recognize_text_with_retries(document, queued_page, image)
                .await?;
            let text = PageText {
                source: TextSource::Ocr,
                lines: layout::sort_into_reading_order(lines),
            };
            let reservations = self.reserve_embed_and_lines_queues(document).await;
            drop(reservation);
            return Ok((text, reservations));
        }
        let reservations = self.reserve_embed_and_lines_queues(document).await;
        let (source, lines) = match self.route.reading_method {
            ReadingMethod::VisionModel => {
                let workers = Some(&document.engine.workers.vision);
                let transcribe = || self.transcribe_page(document);
                let (_slot, lines) = self
                    .run_in_slot_with_retries(document, Stage::Read, queued_page, workers, transcribe)
                    .await?;
                // The lines stay in the model's order, since lines without boxes cannot be sorted.
                (TextSource::VisionModel, lines)
            }
            ReadingMethod::TextLayer | ReadingMethod::Ocr | ReadingMethod::Nothing => {
                let workers = Some(&document.engine.workers.text_layer);
                let text = || document.open.read_text_layer(self.facts.number);
                let (_slot, lines) = self
                    .run_in_slot_with_retries(document, Stage::Read, queued_page, workers, text)
                    .await?;
                (TextSource::TextLayer, layout::sort_into_reading_order(lines))
            }
        };
        Ok((PageText { source, lines }, reservations))
    }

    /// Recognizes the text of the page image. Returns the lines and the page's reservation in the read queue.
    ///
    /// No image is in memory between two attempts: each further attempt rasterizes the page again.
    async fn recognize_text_with_retries(
        &self,
        document: &DocumentContext,
        mut queued_page: QueuedPage,
        mut image: Option<OcrImage>,
    ) -> Result<(Vec<Line>, Option<CapacityPermit>), PageStopReason> {
        let mut attempt = 1;
        loop {
            let rasterized = match image.take() {
                Some(rasterized) => rasterized,
                None => self.rasterize_again_for_ocr_retry(document).await?,
            };
            let (slot, reservation) = queued_page.acquire_slot_keeping_reservation().await;
            let reading = self.recognize_image(document, rasterized);
            match reading.instrument(trace_spans::stage_span(Stage::Read)).await {
                Ok(lines) => {
                    self.batch_tracker
                        .add_stage_time(Stage::Read, slot.record_finished_pages(1));
                    return Ok((lines, reservation));
                }
                Err(error) => {
                    drop(reservation);
                    queued_page = self
                        .decide_and_await_retry(
                            document,
                            Stage::Read,
                            slot.release_and_requeue(),
                            &mut attempt,
                            error,
                        )
                        .await?;
                }
            }
        }
    }

    async fn recognize_image(
        &self,
        document: &DocumentContext,
        mut image: OcrImage,
    ) -> Result<Vec<Line>, StageError> {
        let pixels = image.pixels.take().ok_or_else(|| InferenceError::InvalidInput {
            model: "text recognition".into(),
            reason: format!("page {} was rasterized without pixels", self.facts.number),
        })?;
        let reader = document
            .engine
            .ports
            .ocr_engine
            .as_ref()
            .ok_or_else(missing_ocr_model_error)?;
        Ok(reader.recognize_text(&self.account, pixels, image.dpi).await?)
    }
}

fn missing_ocr_model_error() -> InferenceError {
    InferenceError::Unavailable {
        what: "a text recognition model".into(),
        remedy: "run `make setup`, or set ocr to never".into(),
    }
}
