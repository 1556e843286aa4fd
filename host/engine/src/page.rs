//! A page's path: drawn, then kept and read at the same time; its text cut, embedded and indexed.
//!
//! Each page is a task of its own and goes as fast as the rooms before it let it. What it carries (pixels, the encoded
//! image) is handed to the one step that needs it and freed with that step's end. Its result is written down and sent the
//! moment it is there.

use std::sync::Arc;

use tokio::time::sleep;
use weir_core::decision::{Heading, PageRoute, PassageSource, Reading};
use weir_core::event::{ErrorNote, EventKind, FailedPage};
use weir_core::id::passage_id;
use weir_core::ledger::{Entry, PageRecord, PageState};
use weir_core::page::{EncodedImage, PageImage};
use weir_core::ports::{Account, Drawing, DrawnPage};
use weir_core::search::{Point, image_key, lines_key};
use weir_core::text::{PageLines, PageText, TextSource};
use weir_core::{InferenceError, PageFacts, PageNumber, PolicyError, Stage, layout};

use crate::batch::Batch;
use crate::document::Work;
use crate::failure::{StageError, Stop, judge};
use crate::stage::{Place, Seated, Seats, Waiting};
use crate::upsert::Passages;

/// A page that has been taken, with its place in the first room on its way, if there is a room on its way.
pub(crate) struct Page {
    pub(crate) facts: PageFacts,
    pub(crate) route: PageRoute,
    pub(crate) dpi: u32,
    pub(crate) account: Account,
    pub(crate) batch: Arc<Batch>,
    pub(crate) place: Option<Place>,
}

/// How a page's task ended.
pub(crate) enum PageEnd {
    /// Done and written down.
    Done { passages: u32, image: Option<String> },
    /// Failed for good and written down.
    Failed(FailedPage),
    /// Nothing is written down; the document cannot go on.
    Fatal(ErrorNote),
    /// Nothing is written down; the job was cancelled before the page was begun.
    Dropped,
}

/// Takes a page from where it is to its end.
pub(crate) async fn run(work: Arc<Work>, mut page: Page) -> (PageNumber, PageEnd) {
    let number = page.facts.number;
    let place = page.place.take();
    let (state, what, end) = match page.path(&work, place).await {
        Ok(done) => {
            let what = EventKind::PageDone {
                page: number,
                searchable: done.passages > 0,
                passages: done.passages,
            };
            let end = PageEnd::Done {
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
        Err(Stop::Page(stage, error)) => {
            tracing::warn!(document = %work.id, page = number, %stage, error = error.message, "page failed");
            let what = EventKind::PageFailed {
                page: number,
                stage,
                error: error.clone(),
            };
            let state = PageState::Failed { error: error.clone() };
            (state, what, PageEnd::Failed(FailedPage { page: number, error }))
        }
        Err(Stop::Document(error)) => return (number, PageEnd::Fatal(error)),
        Err(Stop::Cancelled) => return (number, PageEnd::Dropped),
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
        .record(vec![Entry::Page(record)], Some(work.id), what)
        .await;
    (number, end)
}

/// What has become of a page.
struct Done {
    source: TextSource,
    passages: u32,
    image: Option<String>,
    lines: Option<String>,
}

/// A page that has been drawn, or did not need to be.
#[derive(Default)]
struct Drawn {
    dpi: Option<u32>,
    pixels: Option<PageImage>,
    encoded: Option<(EncodedImage, Waiting)>,
    image_key: Option<String>,
}

impl Page {
    async fn path(&self, work: &Work, place: Option<Place>) -> Result<Done, Stop> {
        let (mut drawn, reading) = if self.route.needs_image() {
            let drawn = self.draw(work, place).await;
            self.batch.page_left(work).await;
            drawn?
        } else {
            let waiting = place.map(Place::arrive);
            self.batch.page_left(work).await;
            (Drawn::default(), waiting)
        };
        let (encoded, pixels) = (drawn.encoded.take(), drawn.pixels.take());
        let image = drawn.image_key.as_deref();
        let ((), (source, lines, passages)) = tokio::try_join!(
            self.store(work, encoded, image),
            self.text(work, reading, pixels, drawn.dpi, image),
        )?;
        Ok(Done {
            source,
            passages,
            image: drawn.image_key,
            lines,
        })
    }

    /// Draws the page, with places booked for where it goes next.
    async fn draw(&self, work: &Work, place: Option<Place>) -> Result<(Drawn, Option<Waiting>), Stop> {
        let number = self.facts.number;
        let waiting = match place {
            Some(place) => place.arrive(),
            None => work.rooms.rasterize.book().await.arrive(),
        };
        let drawing = Drawing {
            dpi: self.dpi,
            pixels: self.route.reading == Reading::Ocr,
            encoded: self.route.store,
        };
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
        let (store, read) = work.job.unless_cancelled(booked).await?;
        let draw = || work.open.draw(number, drawing);
        let (_seat, page) = self.seated(work, Stage::Rasterize, waiting, None, draw).await?;
        let DrawnPage { dpi, image, encoded } = page;
        let image_key = encoded
            .as_ref()
            .map(|e| image_key(&work.id, number, dpi, e.extension()));
        let drawn = Drawn {
            dpi: Some(dpi),
            pixels: image,
            encoded: encoded.zip(store.map(Place::arrive)),
            image_key,
        };
        Ok((drawn, read.map(Place::arrive)))
    }

    /// Keeps the page image.
    async fn store(
        &self,
        work: &Work,
        encoded: Option<(EncodedImage, Waiting)>,
        key: Option<&str>,
    ) -> Result<(), Stop> {
        let (Some((encoded, waiting)), Some(key)) = (encoded, key) else {
            return Ok(());
        };
        let put = || work.host.ports.blobs.put(&work.job.tenant, key, &encoded.bytes);
        self.seated(work, Stage::Store, waiting, None, put).await?;
        Ok(())
    }

    /// Reads the page, keeps its lines, makes it searchable: source, key of the lines, passages.
    async fn text(
        &self,
        work: &Work,
        waiting: Option<Waiting>,
        pixels: Option<PageImage>,
        dpi: Option<u32>,
        image: Option<&str>,
    ) -> Result<(TextSource, Option<String>, u32), Stop> {
        let Some(waiting) = waiting else {
            return Ok((TextSource::None, None, self.index(work, None, None).await?));
        };
        let embed = match self.route.embed {
            true => Some(work.rooms.embed.book().await),
            false => None,
        };
        let lines = work.rooms.lines.book().await;
        let text = self.read(work, waiting, pixels, dpi).await?;
        let source = text.source;
        let key = lines_key(&work.id, self.facts.number);
        let blob = self.lines_blob(work, &text)?;
        let (passages, ()) = tokio::try_join!(
            self.index(work, Some((text, image)), embed),
            self.keep_lines(work, lines.arrive(), &key, blob),
        )?;
        Ok((source, Some(key), passages))
    }

    /// The page's lines, in reading order.
    async fn read(
        &self,
        work: &Work,
        waiting: Waiting,
        pixels: Option<PageImage>,
        dpi: Option<u32>,
    ) -> Result<PageText, Stop> {
        let number = self.facts.number;
        let ocr = async || -> Result<_, StageError> {
            let image = pixels.clone().ok_or_else(|| InferenceError::Input {
                model: "text recognition".into(),
                reason: format!("page {number} was drawn without its pixels"),
            })?;
            let reader = work.host.ports.reader.as_ref().ok_or_else(no_reader)?;
            Ok(reader.read(&self.account, image, dpi.unwrap_or(self.dpi)).await?)
        };
        let (source, lines) = match self.route.reading {
            Reading::Ocr => {
                let (_seat, lines) = self.seated(work, Stage::Read, waiting, None, ocr).await?;
                (TextSource::Ocr, lines)
            }
            Reading::VisionModel => {
                let none = async || Err(StageError::NoVisionModel { page: number });
                let (_seat, lines) = self.seated(work, Stage::Read, waiting, None, none).await?;
                (TextSource::Ocr, lines)
            }
            Reading::TextLayer | Reading::Nothing => {
                let seats = Some(&work.host.seats.text_layer);
                let text = || work.open.text(number);
                let (_seat, lines) = self.seated(work, Stage::Read, waiting, seats, text).await?;
                (TextSource::TextLayer, lines)
            }
        };
        Ok(PageText {
            source,
            lines: layout::reading_order(lines),
        })
    }

    fn lines_blob(&self, work: &Work, text: &PageText) -> Result<Vec<u8>, Stop> {
        let lines = PageLines {
            document: work.id,
            page: self.facts.number,
            width: self.facts.width,
            height: self.facts.height,
            source: text.source,
            lines: text.lines.clone(),
        };
        serde_json::to_vec(&lines).map_err(|e| Stop::Page(Stage::Store, crate::failure::note("lines", e)))
    }

    /// Keeps the lines. Small beside the image, so their time is not counted among the stage's.
    async fn keep_lines(&self, work: &Work, waiting: Waiting, key: &str, blob: Vec<u8>) -> Result<(), Stop> {
        let put = || work.host.ports.blobs.put(&work.job.tenant, key, &blob);
        let mut waiting = waiting;
        let mut attempt = 1;
        loop {
            let seat = waiting.seat().await;
            let Err(error) = put().await else { return Ok(()) };
            waiting = self
                .again(work, Stage::Store, seat, &mut attempt, error.into())
                .await?;
        }
    }

    /// Makes the page's passages findable, and those it may have had before not any more.
    async fn index(
        &self,
        work: &Work,
        text: Option<(PageText, Option<&str>)>,
        embed: Option<Place>,
    ) -> Result<u32, Stop> {
        let replace = work.indexed.contains(&self.facts.number);
        let points = match (text, embed) {
            (Some((text, image)), Some(embed)) => self.points(work, &text, image, embed).await?,
            _ => None,
        };
        let (points, upsert) = match points {
            Some((points, upsert)) => (points, upsert),
            None if replace => (Vec::new(), work.rooms.upsert.book().await),
            None => return Ok(0),
        };
        let count = u32::try_from(points.len()).unwrap_or(u32::MAX);
        let passages = Passages {
            page: self.facts.number,
            points,
            replace,
        };
        let mut waiting = upsert.arrive();
        let mut attempt = 1;
        loop {
            match work.upserts.put(waiting, passages.clone()).await {
                Ok(spent) => {
                    self.batch.spent(Stage::Upsert, spent);
                    return Ok(count);
                }
                Err(error) => {
                    waiting = work.rooms.upsert.back();
                    let pause = judge(work, self.facts.number, Stage::Upsert, attempt, error).await?;
                    sleep(pause).await;
                    attempt += 1;
                }
            }
        }
    }

    /// The page's passages with their vectors, and a place before the index; `None` if it has no passages.
    async fn points(
        &self,
        work: &Work,
        text: &PageText,
        image: Option<&str>,
        embed: Place,
    ) -> Result<Option<(Vec<Point>, Place)>, Stop> {
        let number = self.facts.number;
        let plain = text.plain();
        if plain.text.trim().is_empty() {
            return Ok(None);
        }
        let headings = layout::headings(&text.lines, &work.open.info().outline, number);
        let source = PassageSource {
            document: work.id,
            page: number,
            text: plain.text.clone(),
            headings: headings
                .into_iter()
                .filter_map(|(line, level)| {
                    let at = plain.lines.get(line)?;
                    Some(Heading {
                        at: u32::try_from(at.start).ok()?..u32::try_from(at.end).ok()?,
                        level,
                    })
                })
                .collect(),
            max_tokens: work.host.ports.embedder.max_tokens(),
        };
        let ranges = work.job.policy.passages(source).await?;
        if ranges.is_empty() {
            return Ok(None);
        }
        let mut texts = Vec::with_capacity(ranges.len());
        let mut rects = Vec::with_capacity(ranges.len());
        for range in &ranges {
            let at = range.start as usize..range.end as usize;
            let passage = plain
                .text
                .get(at.clone())
                .ok_or_else(|| outside(range, &plain.text))?;
            texts.push(passage.to_owned());
            rects.push(text.rect_of(&plain, &at));
        }
        let waiting = embed.arrive();
        let upsert = work.rooms.upsert.book().await;
        let embedder = &work.host.ports.embedder;
        let vectors = async || {
            let vectors = embedder.embed(&self.account, texts.clone()).await?;
            check(&vectors, texts.len(), embedder.dimensions())?;
            Ok::<_, InferenceError>(vectors)
        };
        let (_seat, vectors) = self.seated(work, Stage::Embed, waiting, None, vectors).await?;
        let lines = lines_key(&work.id, number);
        let points = (0_u32..)
            .zip(texts.iter().zip(rects).zip(vectors))
            .map(|(passage, ((text, rect), dense))| Point {
                id: passage_id(
                    &work.job.tenant,
                    &work.id,
                    number,
                    passage,
                    &work.job.pipeline.revision,
                ),
                document: work.id,
                name: work.name.clone(),
                page: number,
                passage,
                text: text.clone(),
                rect,
                dense,
                labels: work
                    .route
                    .labels
                    .iter()
                    .chain(&self.route.labels)
                    .cloned()
                    .collect(),
                image: image.map(str::to_owned),
                lines: Some(lines.clone()),
            })
            .collect();
        Ok(Some((points, upsert)))
    }

    /// Does `step` in a seat until it succeeds or its failure is final. The seat is given up while it waits to try again.
    async fn seated<T, E, F>(
        &self,
        work: &Work,
        stage: Stage,
        mut waiting: Waiting,
        seats: Option<&Seats>,
        mut step: impl FnMut() -> F,
    ) -> Result<(Seated, T), Stop>
    where
        F: Future<Output = Result<T, E>>,
        StageError: From<E>,
    {
        let mut attempt = 1;
        loop {
            let seating = async {
                match seats {
                    Some(seats) => waiting.seat_at(seats).await,
                    None => waiting.seat().await,
                }
            };
            // Cancelled, no further page is drawn; those that have been drawn may come to their end.
            let seat = match stage {
                Stage::Rasterize => work.job.unless_cancelled(seating).await?,
                _ => seating.await,
            };
            match step().await {
                Ok(value) => {
                    self.batch.spent(stage, seat.finished(1));
                    return Ok((seat, value));
                }
                Err(error) => {
                    waiting = self.again(work, stage, seat, &mut attempt, error.into()).await?;
                }
            }
        }
    }

    /// Back to the waiting room, if the page may try again, and not before it may.
    async fn again(
        &self,
        work: &Work,
        stage: Stage,
        seat: Seated,
        attempt: &mut u32,
        error: StageError,
    ) -> Result<Waiting, Stop> {
        let waiting = seat.back();
        let pause = judge(work, self.facts.number, stage, *attempt, error).await?;
        sleep(pause).await;
        *attempt += 1;
        Ok(waiting)
    }
}

fn no_reader() -> InferenceError {
    InferenceError::Unavailable {
        what: "a text recognition model".into(),
        remedy: "run `make setup`, or set ocr to never".into(),
    }
}

fn outside(range: &std::ops::Range<u32>, text: &str) -> PolicyError {
    PolicyError::Nonsense {
        component: "chunking".into(),
        function: "passages",
        reason: format!(
            "{}..{} is not a range of characters in a text of {} bytes",
            range.start,
            range.end,
            text.len()
        ),
    }
}

/// A model that answers with another number of vectors, or of another length, would mix up passages silently.
fn check(vectors: &[Vec<f32>], texts: usize, dimensions: usize) -> Result<(), InferenceError> {
    if vectors.len() == texts && vectors.iter().all(|v| v.len() == dimensions) {
        return Ok(());
    }
    Err(InferenceError::Failed {
        model: "text embedding".into(),
        reason: format!(
            "{} vectors for {texts} texts of {dimensions} dimensions",
            vectors.len()
        ),
    })
}
