//! Drawing a page: places behind it first, then memory, then a worker.
//!
//! A page that is read by OCR keeps its pixels in memory until it has been read. So it is drawn no further ahead than OCR can
//! take (`ocr_images`), and nothing but OCR itself keeps it waiting then. Memory comes before the worker, since a worker that
//! waits for memory is of no use to any document. A page that has to wait for another attempt lets go of its pixels and is drawn again.

use tracing::Instrument as _;
use weir_core::Stage;
use weir_core::decision::Reading;
use weir_core::page::{EncodedImage, PageImage};
use weir_core::ports::{Drawing, DrawnPage};
use weir_core::search::image_key;

use crate::failure::Stop;
use crate::gate::Pass;
use crate::page::Page;
use crate::read::Unread;
use crate::spans;
use crate::stage::{Place, Waiting};
use crate::work::Work;

/// A page that has been drawn, or did not need to be.
#[derive(Default)]
pub(crate) struct Drawn {
    /// The image to store, with its place in the queue.
    pub(crate) encoded: Option<(EncodedImage, Waiting)>,
    pub(crate) image_key: Option<String>,
    /// `None`: the page is not read.
    pub(crate) unread: Option<Unread>,
}

/// A page image in memory, for OCR.
pub(crate) struct DrawnImage {
    /// `None` if the rasterizer gave none.
    pub(crate) pixels: Option<PageImage>,
    pub(crate) dpi: u32,
    /// The right to have pixels in memory.
    _permit: Option<Pass>,
}

impl Page {
    /// Draws the page, with places booked in the queues that it goes to next.
    pub(crate) async fn draw(&self, work: &Work, place: Option<Place>) -> Result<Drawn, Stop> {
        let waiting = match place {
            Some(place) => place.arrive(),
            None => work.rooms.rasterize.book().await.arrive(),
        };
        let is_read_by_ocr = self.route.reading == Reading::Ocr;
        let booked = async {
            let store = match self.route.store {
                true => Some(work.rooms.store.book().await),
                false => None,
            };
            let read = match self.route.reading {
                Reading::Nothing => None,
                _ => Some(work.rooms.read.book().await),
            };
            (store, read)
        };
        let (store, read) = work.job.unless_stopping(booked).await?;
        let drawing = Drawing {
            dpi: self.dpi,
            pixels: is_read_by_ocr,
            encoded: self.route.store,
        };
        let (page, permit) = self.draw_in_turn(work, waiting, drawing).await?;
        let DrawnPage { dpi, image, encoded } = page;
        let image_key = encoded
            .as_ref()
            .map(|e| image_key(&work.id, self.facts.number, dpi, e.extension()));
        let image = is_read_by_ocr.then_some(DrawnImage {
            pixels: image,
            dpi,
            _permit: permit,
        });
        Ok(Drawn {
            encoded: encoded.zip(store.map(Place::arrive)),
            image_key,
            unread: read.map(|read| Unread {
                waiting: read.arrive(),
                image,
            }),
        })
    }

    /// Draws the pixels once more, for another attempt to read them.
    pub(crate) async fn draw_again(&self, work: &Work) -> Result<DrawnImage, Stop> {
        let drawing = Drawing {
            dpi: self.dpi,
            pixels: true,
            encoded: false,
        };
        let waiting = work.rooms.rasterize.back();
        let (page, permit) = self.draw_in_turn(work, waiting, drawing).await?;
        Ok(DrawnImage {
            pixels: page.image,
            dpi: page.dpi,
            _permit: permit,
        })
    }

    /// Draws when there is memory and then a worker, until that succeeds or its failure is final. Nothing is begun once the
    /// job is stopped.
    async fn draw_in_turn(
        &self,
        work: &Work,
        mut waiting: Waiting,
        drawing: Drawing,
    ) -> Result<(DrawnPage, Option<Pass>), Stop> {
        let (job, stage) = (&work.job, Stage::Rasterize);
        let mut attempt = 1;
        loop {
            let memory = async {
                let permit = match drawing.pixels {
                    true => Some(work.rooms.ocr_image(&work.host.seats).await),
                    false => None,
                };
                (permit, work.open.reserve(self.facts.number, drawing).await)
            };
            let (permit, reserved) = job.unless_stopping(memory).await?;
            let error = match reserved {
                Ok(reserved) => {
                    let seat = job.unless_stopping(waiting.seat()).await?;
                    match reserved.draw().instrument(spans::stage(stage)).await {
                        Ok(page) => {
                            self.batch.spent(stage, seat.finished(1));
                            return Ok((page, permit));
                        }
                        Err(error) => {
                            waiting = seat.back();
                            error
                        }
                    }
                }
                Err(error) => error,
            };
            drop(permit);
            waiting = self
                .again(work, stage, waiting, &mut attempt, error.into())
                .await?;
        }
    }
}
