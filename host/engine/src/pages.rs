//! The pages of a document, from the plan to the last of them.
//!
//! Each page that the plan takes becomes a task; this is who owns those tasks, waits for every one and counts how it ended.

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout_at;
use tracing::Instrument as _;
use weir_core::event::FailedPage;
use weir_core::{PageFacts, PageNumber};

use crate::failure::{STAGE_DIED, Unfinished, note};
use crate::page::{self, PageEnd};
use crate::plan::{self, Planned};
use crate::spans;
use crate::work::Work;

/// How a document's pages stand.
#[derive(Default)]
pub(crate) struct Tally {
    /// Pages asked for.
    pub(crate) asked: u32,
    /// Pages an earlier job has done.
    pub(crate) skipped: u32,
    /// Pages done.
    pub(crate) done: u32,
    /// Pages a search can find, those of earlier jobs included.
    pub(crate) searchable: u32,
    /// Pages that failed for good.
    pub(crate) failed: Vec<FailedPage>,
    /// Page images that others under another key have replaced.
    pub(crate) stale: Vec<String>,
}

impl Tally {
    /// Pages done, by this job or an earlier one.
    pub(crate) fn all_done(&self) -> u32 {
        self.done + self.skipped
    }

    /// Pages failed for good.
    pub(crate) fn all_failed(&self) -> u32 {
        u32::try_from(self.failed.len()).unwrap_or(u32::MAX)
    }
}

/// Pages in work.
pub(crate) struct Pages<'a> {
    work: &'a Arc<Work>,
    tally: &'a mut Tally,
    /// Those that have not ended.
    open: BTreeSet<PageNumber>,
    /// Keys of the page images from before.
    images: HashMap<PageNumber, String>,
    tasks: JoinSet<(PageNumber, PageEnd)>,
}

impl<'a> Pages<'a> {
    /// Nothing is in work yet.
    pub(crate) fn new(
        work: &'a Arc<Work>,
        tally: &'a mut Tally,
        wanted: BTreeSet<PageNumber>,
        images: HashMap<PageNumber, String>,
    ) -> Self {
        Self {
            work,
            tally,
            open: wanted,
            images,
            tasks: JoinSet::new(),
        }
    }

    /// Takes every page through its path. When it returns no task is left, and if it returns well every page has ended in
    /// one state. `known` are facts that were fetched before.
    pub(crate) async fn run(mut self, known: &[PageFacts]) -> Result<(), Unfinished> {
        let mut ended = self.plan_and_work(known).await;
        if matches!(ended, Err(Unfinished::Cancelled | Unfinished::Suspended)) {
            let deadline = self.work.job.halt.deadline();
            match timeout_at(deadline, self.drain()).await {
                Ok(Err(failed)) => ended = Err(failed),
                // All there was to do was in flight.
                _ if matches!(ended, Err(Unfinished::Suspended)) && self.open.is_empty() => ended = Ok(()),
                _ => {}
            }
        }
        self.tasks.shutdown().await;
        ended?;
        match self.open.first() {
            None => Ok(()),
            Some(first) => Err(lost(format!(
                "{} pages were lost on the way, page {first} is the first: this is a fault of the host, see its log",
                self.open.len()
            ))),
        }
    }

    async fn plan_and_work(&mut self, known: &[PageFacts]) -> Result<(), Unfinished> {
        let work = self.work;
        let wanted: Vec<_> = self.open.iter().copied().collect();
        let (send, mut taken) = mpsc::channel(1);
        let mut planning = pin!(plan::take_pages(work, &wanted, known, send));
        let (mut planned, mut all_taken) = (None, false);
        while !(planned.is_some() && all_taken && self.tasks.is_empty()) {
            tokio::select! {
                biased;
                halted = work.job.halted() => return Err(halted),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => self.count(ended)?,
                page = taken.recv(), if !all_taken => match page {
                    Some(page) => {
                        let span = spans::page(page.facts.number);
                        let run = page::run(Arc::clone(work), page).instrument(span);
                        self.tasks.spawn(run.in_current_span());
                    }
                    None => all_taken = true,
                },
                result = &mut planning, if planned.is_none() => {
                    planned = Some(result.map_err(Unfinished::Failed)?);
                }
            }
        }
        match planned {
            Some(Planned::Held) if !self.open.is_empty() => Err(Unfinished::Suspended),
            _ => Ok(()),
        }
    }

    /// Waits for the pages that are still in work.
    async fn drain(&mut self) -> Result<(), Unfinished> {
        while let Some(ended) = self.tasks.join_next().await {
            self.count(ended)?;
        }
        Ok(())
    }

    /// Counts a page that has ended; an error if the document cannot go on.
    fn count(&mut self, ended: Result<(PageNumber, PageEnd), JoinError>) -> Result<(), Unfinished> {
        let (page, end) = ended.map_err(|died| {
            tracing::error!(%died, "a page's task died");
            let message = "a page's task died: this is a fault of the host, see its log";
            Unfinished::Failed(note(STAGE_DIED, message))
        })?;
        match end {
            PageEnd::Dropped => return Ok(()),
            PageEnd::Fatal(error) => return Err(Unfinished::Failed(error)),
            PageEnd::Failed(failed) => self.tally.failed.push(failed),
            PageEnd::Done { passages, image } => {
                self.tally.done += 1;
                self.tally.searchable += u32::from(passages > 0);
                if let Some(old) = self.images.get(&page).filter(|old| Some(*old) != image.as_ref()) {
                    self.tally.stale.push(old.clone());
                }
            }
        }
        if self.open.remove(&page) {
            Ok(())
        } else {
            Err(lost(format!(
                "page {page} ended twice: this is a fault of the host, see its log"
            )))
        }
    }
}

fn lost(message: String) -> Unfinished {
    Unfinished::Failed(note("lost-pages", message))
}
