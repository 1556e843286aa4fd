//! The read stage: takes a page's text from its text layer, from OCR of its image, or from a vision model.

use tracing::Instrument as _;
use weir_core::decision::ReadingMethod;
use weir_core::page_text::{Line, PageText, TextSource};
use weir_core::{InferenceError, Stage, layout};

use crate::context::DocumentContext;
use crate::error::{PageStop, StageError};
use crate::page_task::PageTask;
use crate::rasterize_stage::{OcrImage, QueuedRead};
use crate::resizable_semaphore::CapacityPermit;
use crate::stage_queue::{QueueReservation, QueuedPage};
use crate::trace_spans;

/// Reservations in the queues that follow the read stage.
pub(crate) struct TextReservations {
    /// `None` if the page is not made searchable.
    pub(crate) embed: Option<QueueReservation>,
    pub(crate) lines: QueueReservation,
}

impl PageTask {
    /// Waits for reservations in the queues that follow the read stage.
    async fn reserve_text_queues(&self, work: &DocumentContext) -> TextReservations {
        let embed = match self.route.embed {
            true => Some(work.queues.embed.reserve().await),
            false => None,
        };
        TextReservations {
            embed,
            lines: work.queues.lines.reserve().await,
        }
    }

    /// Reads the page. Returns its lines in reading order and reservations in the queues that follow.
    ///
    /// These reservations are made before the page is read, so no worker reads a page that cannot continue. With OCR they are
    /// made after the pixels are freed, and the page keeps its reservation in the read queue until then.
    pub(crate) async fn read_page(
        &self,
        work: &DocumentContext,
        unread: QueuedRead,
    ) -> Result<(PageText, TextReservations), PageStop> {
        let QueuedRead {
            queued_page: waiting,
            image,
        } = unread;
        if self.route.reading_method == ReadingMethod::Ocr {
            let (lines, place) = self.recognize_with_retries(work, waiting, image).await?;
            let text = PageText {
                source: TextSource::Ocr,
                lines: layout::sort_into_reading_order(lines),
            };
            let places = self.reserve_text_queues(work).await;
            drop(place);
            return Ok((text, places));
        }
        let places = self.reserve_text_queues(work).await;
        let (source, lines) = match self.route.reading_method {
            ReadingMethod::VisionModel => {
                let seats = Some(&work.engine.workers.vision);
                let written = || self.transcribe_page(work);
                let (_seat, lines) = self
                    .run_in_worker_slot(work, Stage::Read, waiting, seats, written)
                    .await?;
                // The lines stay in the model's order, since lines without boxes cannot be sorted.
                (TextSource::VisionModel, lines)
            }
            ReadingMethod::TextLayer | ReadingMethod::Ocr | ReadingMethod::Nothing => {
                let seats = Some(&work.engine.workers.text_layer);
                let text = || work.open.read_text_layer(self.facts.number);
                let (_seat, lines) = self
                    .run_in_worker_slot(work, Stage::Read, waiting, seats, text)
                    .await?;
                (TextSource::TextLayer, layout::sort_into_reading_order(lines))
            }
        };
        Ok((PageText { source, lines }, places))
    }

    /// Recognizes the text of the page image. Returns the lines and the page's reservation in the read queue.
    ///
    /// No image is in memory between two attempts: each further attempt rasterizes the page again.
    async fn recognize_with_retries(
        &self,
        work: &DocumentContext,
        mut waiting: QueuedPage,
        mut image: Option<OcrImage>,
    ) -> Result<(Vec<Line>, Option<CapacityPermit>), PageStop> {
        let mut attempt = 1;
        loop {
            let drawn = match image.take() {
                Some(drawn) => drawn,
                None => self.rasterize_again_for_ocr(work).await?,
            };
            let (seat, place) = waiting.acquire_slot_keeping_reservation().await;
            let reading = self.recognize_image(work, drawn);
            match reading.instrument(trace_spans::stage_span(Stage::Read)).await {
                Ok(lines) => {
                    self.batch_tracker
                        .add_stage_time(Stage::Read, seat.record_finished(1));
                    return Ok((lines, place));
                }
                Err(error) => {
                    drop(place);
                    waiting = self
                        .await_retry(work, Stage::Read, seat.requeue(), &mut attempt, error)
                        .await?;
                }
            }
        }
    }

    async fn recognize_image(
        &self,
        work: &DocumentContext,
        mut image: OcrImage,
    ) -> Result<Vec<Line>, StageError> {
        let pixels = image.pixels.take().ok_or_else(|| InferenceError::InvalidInput {
            model: "text recognition".into(),
            reason: format!("page {} was rasterized without pixels", self.facts.number),
        })?;
        let reader = work.engine.ports.reader.as_ref().ok_or_else(no_reader_error)?;
        Ok(reader.recognize_text(&self.account, pixels, image.dpi).await?)
    }
}

fn no_reader_error() -> InferenceError {
    InferenceError::Unavailable {
        what: "a text recognition model".into(),
        remedy: "run `make setup`, or set ocr to never".into(),
    }
}
