//! Turns the text of a page into searchable passages: cuts it, embeds the passages and indexes them.

use std::ops::Range;
use std::sync::atomic::Ordering;

use tokio::time::sleep;
use tracing::Instrument as _;
use weir_core::decision::{Heading, PageTextToSplit};
use weir_core::id::derive_passage_id;
use weir_core::page_text::{PageText, PlainText, StoredPageText, TextSource};
use weir_core::search::{IndexPoint, page_lines_blob_key};
use weir_core::{InferenceError, PageNumber, PolicyError, Stage, layout};

use crate::error::{PageStopReason, build_error_info};
use crate::job_and_document_context::DocumentContext;
use crate::page_task::{PageTask, decide_failure_action};
use crate::rasterize_stage::PageQueuedForReading;
use crate::read_stage::EmbedAndLinesQueueReservations;
use crate::stage_queue::{QueueReservation, QueuedPage};
use crate::store_retry::retry_while_unavailable;
use crate::trace_spans;
use crate::upsert_writer::PagePassages;

impl PageTask {
    /// Reads the page, stores its lines and indexes its passages. Returns the source of the text, the key of the lines and the
    /// number of passages.
    pub(crate) async fn read_and_index_page(
        &self,
        document: &DocumentContext,
        queued_read: Option<PageQueuedForReading>,
        image: Option<&str>,
    ) -> Result<(TextSource, Option<String>, u32), PageStopReason> {
        let Some(queued_read) = queued_read else {
            return Ok((
                TextSource::None,
                None,
                self.index_passages(document, None, None).await?,
            ));
        };
        let (text, EmbedAndLinesQueueReservations { embed, lines }) =
            self.read_page(document, queued_read).await?;
        let source = text.source;
        let key = page_lines_blob_key(&document.id, self.facts.number);
        let blob = self.encode_lines_blob(document, &text)?;
        let (passages, ()) = tokio::try_join!(
            self.index_passages(document, Some((text, image)), embed),
            self.store_lines(document, lines.enqueue(), &key, blob),
        )?;
        Ok((source, Some(key), passages))
    }

    fn encode_lines_blob(
        &self,
        document: &DocumentContext,
        text: &PageText,
    ) -> Result<Vec<u8>, PageStopReason> {
        let lines = StoredPageText {
            document: document.id,
            page: self.facts.number,
            width: self.facts.width,
            height: self.facts.height,
            source: text.source,
            lines: text.lines.clone(),
        };
        serde_json::to_vec(&lines)
            .map_err(|e| PageStopReason::PageFailed(Stage::Store, build_error_info("lines", e)))
    }

    /// Stores the lines. Their time does not count as time of the stage, since they are small compared to the image.
    async fn store_lines(
        &self,
        document: &DocumentContext,
        queued_page: QueuedPage,
        key: &str,
        blob: Vec<u8>,
    ) -> Result<(), PageStopReason> {
        let blobs = &document.engine.ports.blobs;
        let put = || retry_while_unavailable(|| blobs.put_blob(&document.job.tenant, key, &blob));
        let mut queued_page = queued_page;
        let mut attempt = 1;
        loop {
            let slot = queued_page.leave_queue_for_worker_slot().await;
            let put = put().instrument(trace_spans::stage_span(Stage::Store));
            let Err(error) = put.await else { return Ok(()) };
            queued_page = self
                .decide_and_await_retry(
                    document,
                    Stage::Store,
                    slot.release_and_requeue(),
                    &mut attempt,
                    error.into(),
                )
                .await?;
        }
    }

    /// Indexes the page's passages, which replace those of earlier runs. Returns the number of passages.
    async fn index_passages(
        &self,
        document: &DocumentContext,
        text: Option<(PageText, Option<&str>)>,
        embed: Option<QueueReservation>,
    ) -> Result<u32, PageStopReason> {
        let replace = document.indexed_pages.contains(&self.facts.number);
        let points = match (text, embed) {
            (Some((text, image)), Some(embed)) => {
                self.split_and_embed_passages(document, &text, image, embed)
                    .await?
            }
            _ => None,
        };
        let (points, upsert) = match points {
            Some((points, upsert)) => (points, upsert),
            None if replace => (Vec::new(), document.queues.upsert.reserve().await),
            None => return Ok(0),
        };
        let count = u32::try_from(points.len()).unwrap_or(u32::MAX);
        let passages = PagePassages {
            page: self.facts.number,
            points,
            replace,
        };
        self.upsert_passages_with_retries(document, upsert, passages)
            .await?;
        Ok(count)
    }

    /// Removes the passages that this job has written for the page, since the page has failed. If the removal fails for good, the
    /// document fails.
    pub(crate) async fn remove_failed_page_passages(
        &self,
        document: &DocumentContext,
    ) -> Result<(), PageStopReason> {
        if !self.indexed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let nothing = PagePassages {
            page: self.facts.number,
            points: Vec::new(),
            replace: true,
        };
        let reservation = document.queues.upsert.reserve().await;
        match self
            .upsert_passages_with_retries(document, reservation, nothing)
            .await
        {
            Err(PageStopReason::PageFailed(_, error)) => Err(PageStopReason::DocumentFailed(error)),
            ended => ended,
        }
    }

    async fn upsert_passages_with_retries(
        &self,
        document: &DocumentContext,
        reservation: QueueReservation,
        passages: PagePassages,
    ) -> Result<(), PageStopReason> {
        let (number, stage) = (self.facts.number, Stage::Upsert);
        let mut queued_page = reservation.enqueue();
        let mut attempt = 1;
        loop {
            self.indexed.store(true, Ordering::Relaxed);
            // The span includes the wait for pages that are written in the same group.
            let put = document.upserts.upsert_passages(queued_page, passages.clone());
            match put.instrument(trace_spans::stage_span(stage)).await {
                Ok(busy_time) => {
                    self.batch_tracker.add_stage_time(stage, busy_time);
                    return Ok(());
                }
                Err(error) => {
                    self.indexed.store(false, Ordering::Relaxed);
                    queued_page = document.queues.upsert.requeue_over_capacity();
                    let backoff = decide_failure_action(document, number, stage, attempt, error).await?;
                    sleep(backoff).await;
                    attempt += 1;
                }
            }
        }
    }

    /// Cuts and embeds the page's passages. Returns their points and a reservation in the upsert queue; `None` if the page has no
    /// passages.
    async fn split_and_embed_passages(
        &self,
        document: &DocumentContext,
        text: &PageText,
        image: Option<&str>,
        embed: QueueReservation,
    ) -> Result<Option<(Vec<IndexPoint>, QueueReservation)>, PageStopReason> {
        let number = self.facts.number;
        let plain = text.to_plain_text();
        if plain.text.trim().is_empty() {
            return Ok(None);
        }
        let source = PageTextToSplit {
            document: document.id,
            page: number,
            text: plain.text.clone(),
            headings: find_headings(document, text, &plain, number),
            max_tokens: document.engine.ports.embedder.max_input_tokens(),
        };
        let ranges = document.job.policy.split_passages(source).await?;
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
                .ok_or_else(|| range_outside_text_error(range, &plain.text))?;
            texts.push(passage.to_owned());
            rects.push(text.bounding_box_of_range(&plain, &at));
        }
        let queued_page = embed.enqueue();
        let upsert = document.queues.upsert.reserve().await;
        let embedder = &document.engine.ports.embedder;
        let vectors = async || {
            let vectors = embedder.embed_texts(&self.account, texts.clone()).await?;
            validate_vectors(&vectors, texts.len(), embedder.vector_dimensions())?;
            Ok::<_, InferenceError>(vectors)
        };
        let (_slot, vectors) = self
            .run_in_slot_with_retries(document, Stage::Embed, queued_page, None, vectors)
            .await?;
        let lines = page_lines_blob_key(&document.id, number);
        let points = (0_u32..)
            .zip(texts.iter().zip(rects).zip(vectors))
            .map(|(passage, ((text, rect), dense))| IndexPoint {
                id: derive_passage_id(
                    &document.job.tenant,
                    &document.id,
                    number,
                    passage,
                    &document.job.pipeline.revision,
                ),
                document: document.id,
                document_name: document.name.clone(),
                page: number,
                passage,
                text: text.clone(),
                rect,
                dense_vector: dense,
                labels: document
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

/// Finds the headings among a page's lines, as ranges of its text.
fn find_headings(
    document: &DocumentContext,
    text: &PageText,
    plain: &PlainText,
    page: PageNumber,
) -> Vec<Heading> {
    let heading = |(line, level): (usize, u8)| {
        let at = plain.line_ranges.get(line)?;
        Some(Heading {
            range: u32::try_from(at.start).ok()?..u32::try_from(at.end).ok()?,
            level,
        })
    };
    let found = layout::detect_page_headings(
        text.source,
        &text.lines,
        &document.open.document_info().outline,
        page,
    );
    found.into_iter().filter_map(heading).collect()
}

fn range_outside_text_error(range: &Range<u32>, text: &str) -> PolicyError {
    PolicyError::InvalidDecision {
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

/// Checks the number of vectors and their length, since a mismatch would silently mix up passages.
fn validate_vectors(vectors: &[Vec<f32>], texts: usize, dimensions: usize) -> Result<(), InferenceError> {
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
