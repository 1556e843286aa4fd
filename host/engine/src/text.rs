//! From the text of a page to passages that can be found: cut, embedded, indexed.

use std::ops::Range;
use std::sync::atomic::Ordering;

use tokio::time::sleep;
use tracing::Instrument as _;
use weir_core::decision::{Heading, PassageSource};
use weir_core::id::passage_id;
use weir_core::search::{Point, lines_key};
use weir_core::text::{PageLines, PageText, PlainText, TextSource};
use weir_core::{InferenceError, PageNumber, PolicyError, Stage, layout};

use crate::failure::{Stop, note};
use crate::page::Page;
use crate::read::Unread;
use crate::spans;
use crate::stage::{Place, Waiting};
use crate::upsert::Passages;
use crate::verdict::judge;
use crate::work::Work;

/// Places in the queues behind the reading of a page.
pub(crate) struct TextPlaces {
    /// `None` if the page is not made searchable.
    embed: Option<Place>,
    lines: Place,
}

impl Page {
    /// Books places in the queues behind the reading.
    pub(crate) async fn book_text(&self, work: &Work) -> TextPlaces {
        let embed = match self.route.embed {
            true => Some(work.rooms.embed.book().await),
            false => None,
        };
        TextPlaces {
            embed,
            lines: work.rooms.lines.book().await,
        }
    }

    /// Reads the page, keeps its lines, makes it searchable: source, key of the lines, passages.
    pub(crate) async fn text(
        &self,
        work: &Work,
        unread: Option<Unread>,
        image: Option<&str>,
    ) -> Result<(TextSource, Option<String>, u32), Stop> {
        let Some(unread) = unread else {
            return Ok((TextSource::None, None, self.index(work, None, None).await?));
        };
        let (text, TextPlaces { embed, lines }) = self.read(work, unread).await?;
        let source = text.source;
        let key = lines_key(&work.id, self.facts.number);
        let blob = self.lines_blob(work, &text)?;
        let (passages, ()) = tokio::try_join!(
            self.index(work, Some((text, image)), embed),
            self.keep_lines(work, lines.arrive(), &key, blob),
        )?;
        Ok((source, Some(key), passages))
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
        serde_json::to_vec(&lines).map_err(|e| Stop::Page(Stage::Store, note("lines", e)))
    }

    /// Keeps the lines. Small beside the image, so their time is not counted among the stage's.
    async fn keep_lines(&self, work: &Work, waiting: Waiting, key: &str, blob: Vec<u8>) -> Result<(), Stop> {
        let put = || work.host.ports.blobs.put(&work.job.tenant, key, &blob);
        let mut waiting = waiting;
        let mut attempt = 1;
        loop {
            let seat = waiting.seat().await;
            let put = put().instrument(spans::stage(Stage::Store));
            let Err(error) = put.await else { return Ok(()) };
            waiting = self
                .again(work, Stage::Store, seat.back(), &mut attempt, error.into())
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
        self.write_passages(work, upsert, passages).await?;
        Ok(count)
    }

    /// Takes what this job has written to the index for the page out again, since the page has failed. Where that fails for
    /// good, so does the document.
    pub(crate) async fn remove_passages(&self, work: &Work) -> Result<(), Stop> {
        if !self.indexed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let nothing = Passages {
            page: self.facts.number,
            points: Vec::new(),
            replace: true,
        };
        let place = work.rooms.upsert.book().await;
        match self.write_passages(work, place, nothing).await {
            Err(Stop::Page(_, error)) => Err(Stop::Document(error)),
            ended => ended,
        }
    }

    async fn write_passages(&self, work: &Work, place: Place, passages: Passages) -> Result<(), Stop> {
        let (number, stage) = (self.facts.number, Stage::Upsert);
        let mut waiting = place.arrive();
        let mut attempt = 1;
        loop {
            self.indexed.store(true, Ordering::Relaxed);
            // With its wait for the pages that are written in one go with it.
            let put = work.upserts.put(waiting, passages.clone());
            match put.instrument(spans::stage(stage)).await {
                Ok(spent) => {
                    self.batch.spent(stage, spent);
                    return Ok(());
                }
                Err(error) => {
                    self.indexed.store(false, Ordering::Relaxed);
                    waiting = work.rooms.upsert.back();
                    let pause = judge(work, number, stage, attempt, error).await?;
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
        let source = PassageSource {
            document: work.id,
            page: number,
            text: plain.text.clone(),
            headings: headings(work, text, &plain, number),
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
}

/// The headings among a page's lines, as ranges of its text.
fn headings(work: &Work, text: &PageText, plain: &PlainText, page: PageNumber) -> Vec<Heading> {
    let heading = |(line, level): (usize, u8)| {
        let at = plain.lines.get(line)?;
        Some(Heading {
            at: u32::try_from(at.start).ok()?..u32::try_from(at.end).ok()?,
            level,
        })
    };
    let found = layout::headings(text.source, &text.lines, &work.open.info().outline, page);
    found.into_iter().filter_map(heading).collect()
}

fn outside(range: &Range<u32>, text: &str) -> PolicyError {
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
