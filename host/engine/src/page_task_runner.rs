//! Runs the pages of a document.
//!
//! Each planned page becomes a task. The runner owns these tasks, waits for each and counts its result.

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout_at;
use tracing::Instrument as _;
use weir_core::event::FailedPage;
use weir_core::{PageFacts, PageNumber};

use crate::batch_planner::{self, PlanningEndReason};
use crate::error::{DocumentStopReason, STAGE_DIED_KIND, build_error_info};
use crate::job_and_document_context::DocumentContext;
use crate::page_steps;
use crate::page_task::PageTaskOutcome;
use crate::trace_spans;

/// The counts of a document's pages by their results.
#[derive(Default)]
pub(crate) struct PageTally {
    /// Requested pages.
    pub(crate) requested: u32,
    /// Pages that an earlier job has done.
    pub(crate) skipped: u32,
    /// Pages done.
    pub(crate) done: u32,
    /// Pages that have passages in the index, including those of earlier jobs.
    pub(crate) searchable: u32,
    /// Pages that failed for good.
    pub(crate) failed: Vec<FailedPage>,
    /// Keys of page images that were replaced by images with other keys.
    pub(crate) stale_images: Vec<String>,
}

impl PageTally {
    /// Returns the number of pages done by this job or an earlier one.
    pub(crate) fn total_done_including_earlier_jobs(&self) -> u32 {
        self.done + self.skipped
    }

    /// Returns the number of pages that failed for good.
    pub(crate) fn total_failed(&self) -> u32 {
        u32::try_from(self.failed.len()).unwrap_or(u32::MAX)
    }
}

/// Runs the page tasks of one document.
pub(crate) struct PageTaskRunner<'a> {
    document: &'a Arc<DocumentContext>,
    tally: &'a mut PageTally,
    /// The pages that have not ended.
    open_pages: BTreeSet<PageNumber>,
    /// The keys of page images from earlier runs.
    old_image_keys: HashMap<PageNumber, String>,
    tasks: JoinSet<(PageNumber, PageTaskOutcome)>,
}

impl<'a> PageTaskRunner<'a> {
    pub(crate) fn new(
        document: &'a Arc<DocumentContext>,
        tally: &'a mut PageTally,
        wanted: BTreeSet<PageNumber>,
        images: HashMap<PageNumber, String>,
    ) -> Self {
        Self {
            document,
            tally,
            open_pages: wanted,
            old_image_keys: images,
            tasks: JoinSet::new(),
        }
    }

    /// Plans and runs all pages. No task is left when this returns, and with `Ok` every page has ended in one state. `known` are
    /// page facts that were fetched before.
    pub(crate) async fn run_and_verify_all_pages(
        mut self,
        known: &[PageFacts],
    ) -> Result<(), DocumentStopReason> {
        let mut ended = self.plan_and_run_pages(known).await;
        if matches!(
            ended,
            Err(DocumentStopReason::Cancelled | DocumentStopReason::Suspended)
        ) {
            let deadline = self.document.job.stop_signal.in_flight_deadline();
            match timeout_at(deadline, self.await_running_tasks()).await {
                Ok(Err(failed)) => ended = Err(failed),
                // All remaining pages were in flight and have ended.
                _ if matches!(ended, Err(DocumentStopReason::Suspended)) && self.open_pages.is_empty() => {
                    ended = Ok(())
                }
                _ => {}
            }
        }
        self.tasks.shutdown().await;
        ended?;
        match self.open_pages.first() {
            None => Ok(()),
            Some(first) => Err(lost_pages_error(format!(
                "{} pages have no result, page {first} is the first: this is a fault of the host, see its log",
                self.open_pages.len()
            ))),
        }
    }

    async fn plan_and_run_pages(&mut self, known: &[PageFacts]) -> Result<(), DocumentStopReason> {
        let document = self.document;
        let wanted: Vec<_> = self.open_pages.iter().copied().collect();
        let (send, mut page_receiver) = mpsc::channel(1);
        let mut planning = pin!(batch_planner::plan_document_pages(document, &wanted, known, send));
        let (mut planned, mut all_received) = (None, false);
        while !(planned.is_some() && all_received && self.tasks.is_empty()) {
            tokio::select! {
                biased;
                stopped = document.job.await_stop_reason() => return Err(stopped),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => self.record_page_result(ended)?,
                page = page_receiver.recv(), if !all_received => match page {
                    Some(page) => {
                        let span = trace_spans::page_span(page.facts.number);
                        let run = page_steps::run_page_task(Arc::clone(document), page).instrument(span);
                        self.tasks.spawn(run.in_current_span());
                    }
                    None => all_received = true,
                },
                result = &mut planning, if planned.is_none() => {
                    planned = Some(result.map_err(DocumentStopReason::Failed)?);
                }
            }
        }
        match planned {
            Some(PlanningEndReason::HeldByQuota) if !self.open_pages.is_empty() => {
                Err(DocumentStopReason::Suspended)
            }
            _ => Ok(()),
        }
    }

    /// Waits for the pages in flight.
    async fn await_running_tasks(&mut self) -> Result<(), DocumentStopReason> {
        while let Some(ended) = self.tasks.join_next().await {
            self.record_page_result(ended)?;
        }
        Ok(())
    }

    /// Counts the result of a page. Returns an error if the document fails with it.
    fn record_page_result(
        &mut self,
        ended: Result<(PageNumber, PageTaskOutcome), JoinError>,
    ) -> Result<(), DocumentStopReason> {
        let (page, end) = ended.map_err(|join_error| {
            tracing::error!(%join_error, "a page's task panicked");
            let message = "a page's task panicked: this is a fault of the host, see its log";
            DocumentStopReason::Failed(build_error_info(STAGE_DIED_KIND, message))
        })?;
        match end {
            PageTaskOutcome::NotStarted => return Ok(()),
            PageTaskOutcome::Fatal(error) => return Err(DocumentStopReason::Failed(error)),
            PageTaskOutcome::Failed(failed) => self.tally.failed.push(failed),
            PageTaskOutcome::Done { passages, image } => {
                self.tally.done += 1;
                self.tally.searchable += u32::from(passages > 0);
                if let Some(old) = self
                    .old_image_keys
                    .get(&page)
                    .filter(|old| Some(*old) != image.as_ref())
                {
                    self.tally.stale_images.push(old.clone());
                }
            }
        }
        if self.open_pages.remove(&page) {
            Ok(())
        } else {
            Err(lost_pages_error(format!(
                "page {page} ended twice: this is a fault of the host, see its log"
            )))
        }
    }
}

fn lost_pages_error(message: String) -> DocumentStopReason {
    DocumentStopReason::Failed(build_error_info("lost-pages", message))
}
