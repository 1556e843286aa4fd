//! Reading a page: its text layer, OCR of its image, or a vision model.

use tracing::Instrument as _;
use weir_core::decision::Reading;
use weir_core::text::{Line, PageText, TextSource};
use weir_core::{InferenceError, Stage, layout};

use crate::draw::DrawnImage;
use crate::failure::{StageError, Stop};
use crate::gate::Pass;
use crate::page::Page;
use crate::spans;
use crate::stage::Waiting;
use crate::text::TextPlaces;
use crate::work::Work;

/// A page in the queue before the reading.
pub(crate) struct Unread {
    pub(crate) waiting: Waiting,
    /// Its image, if OCR reads it.
    pub(crate) image: Option<DrawnImage>,
}

impl Unread {
    /// A page without an image or further places.
    pub(crate) fn new(waiting: Waiting) -> Self {
        Self { waiting, image: None }
    }
}

impl Page {
    /// The page's lines, in reading order, and places behind the reading. Those are booked before, so that no worker reads for
    /// a jam; but for OCR they are booked when the pixels are gone, and the page keeps its place before the reading until then.
    pub(crate) async fn read(&self, work: &Work, unread: Unread) -> Result<(PageText, TextPlaces), Stop> {
        let Unread { waiting, image } = unread;
        if self.route.reading == Reading::Ocr {
            let (lines, place) = self.recognize(work, waiting, image).await?;
            let text = PageText {
                source: TextSource::Ocr,
                lines: layout::reading_order(lines),
            };
            let places = self.book_text(work).await;
            drop(place);
            return Ok((text, places));
        }
        let places = self.book_text(work).await;
        let (source, lines) = match self.route.reading {
            Reading::VisionModel => {
                let seats = Some(&work.host.seats.vision);
                let written = || self.transcribe(work);
                let (_seat, lines) = self.seated(work, Stage::Read, waiting, seats, written).await?;
                // In the model's own order: without boxes there is no better one.
                (TextSource::VisionModel, lines)
            }
            Reading::TextLayer | Reading::Ocr | Reading::Nothing => {
                let seats = Some(&work.host.seats.text_layer);
                let text = || work.open.text(self.facts.number);
                let (_seat, lines) = self.seated(work, Stage::Read, waiting, seats, text).await?;
                (TextSource::TextLayer, layout::reading_order(lines))
            }
        };
        Ok((PageText { source, lines }, places))
    }

    /// Has the page's image read; with the lines comes the page's place before the reading. Between two attempts there is no image; each begins with one that is drawn for it.
    async fn recognize(
        &self,
        work: &Work,
        mut waiting: Waiting,
        mut image: Option<DrawnImage>,
    ) -> Result<(Vec<Line>, Option<Pass>), Stop> {
        let mut attempt = 1;
        loop {
            let drawn = match image.take() {
                Some(drawn) => drawn,
                None => self.draw_again(work).await?,
            };
            let (seat, place) = waiting.seat_with_place().await;
            let reading = self.recognize_once(work, drawn);
            match reading.instrument(spans::stage(Stage::Read)).await {
                Ok(lines) => {
                    self.batch.spent(Stage::Read, seat.finished(1));
                    return Ok((lines, place));
                }
                Err(error) => {
                    drop(place);
                    waiting = self
                        .again(work, Stage::Read, seat.back(), &mut attempt, error)
                        .await?;
                }
            }
        }
    }

    async fn recognize_once(&self, work: &Work, mut image: DrawnImage) -> Result<Vec<Line>, StageError> {
        let pixels = image.pixels.take().ok_or_else(|| InferenceError::Input {
            model: "text recognition".into(),
            reason: format!("page {} was drawn without its pixels", self.facts.number),
        })?;
        let reader = work.host.ports.reader.as_ref().ok_or_else(no_reader)?;
        Ok(reader.read(&self.account, pixels, image.dpi).await?)
    }
}

fn no_reader() -> InferenceError {
    InferenceError::Unavailable {
        what: "a text recognition model".into(),
        remedy: "run `make setup`, or set ocr to never".into(),
    }
}
