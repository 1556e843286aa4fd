//! A page's path: drawn, then kept and read at the same time; its text cut, embedded and indexed.
//!
//! Each page is a task of its own and goes as fast as the rooms before it let it. What it carries (pixels, the encoded
//! image) is handed to the one step that needs it and freed with that step's end. Its result is written down and sent the
//! moment it is there.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::time::sleep;
use tracing::Instrument as _;
use weir_core::decision::{PageRoute, Reading};
use weir_core::event::{ErrorNote, EventKind, FailedPage};
use weir_core::ledger::{Entry, PageRecord, PageState};
use weir_core::page::EncodedImage;
use weir_core::ports::Account;
use weir_core::text::TextSource;
use weir_core::usage::{Reservation, Usage};
use weir_core::{PageFacts, PageNumber, Stage};

use crate::batch::Batch;
use crate::draw::Drawn;
use crate::failure::{FAILURES, StageError, Stop};
use crate::read::Unread;
use crate::spans;
use crate::stage::{Place, Seated, Seats, Waiting};
use crate::verdict::judge;
use crate::work::Work;

/// A page that has been taken, with its place in the first room on its way, if there is a room on its way.
pub(crate) struct Page {
    pub(crate) facts: PageFacts,
    pub(crate) route: PageRoute,
    pub(crate) dpi: u32,
    pub(crate) account: Account,
    pub(crate) batch: Arc<Batch>,
    pub(crate) place: Option<Place>,
    /// What is reserved of the tenant's quotas until the page has ended and was metered.
    pub(crate) reservation: Option<Reservation>,
    /// Whether the index may hold passages that this page was given by this job.
    pub(crate) indexed: AtomicBool,
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
    let _reservation = page.reservation.take();
    let ended = match page.path(&work, place).await {
        // Nothing of a page that is reported failed can be found: what it links to may not be there.
        Err(Stop::Page(stage, error)) => match page.remove_passages(&work).await {
            Ok(()) => Err(Stop::Page(stage, error)),
            Err(stop) => Err(stop),
        },
        ended => ended,
    };
    let (state, what, end) = match ended {
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
            tracing::warn!(target: FAILURES, document = %work.id, page = number, %stage, error = error.message, "page failed");
            let what = EventKind::PageFailed {
                page: number,
                stage,
                error: error.clone(),
            };
            let state = PageState::Failed { error: error.clone() };
            (state, what, PageEnd::Failed(FailedPage { page: number, error }))
        }
        Err(Stop::Document(error)) => return (number, PageEnd::Fatal(error)),
        Err(Stop::NotBegun) => return (number, PageEnd::Dropped),
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
    count(&work, &end);
    (number, end)
}

/// Tells of a page that ended.
fn count(work: &Work, end: &PageEnd) {
    let measures = &work.host.measures;
    match end {
        PageEnd::Done { .. } => measures.pages_done.increment(1),
        PageEnd::Failed(_) => measures.pages_failed.increment(1),
        PageEnd::Fatal(_) | PageEnd::Dropped => return,
    }
    if let Some(meter) = &work.host.ports.meter {
        let usage = Usage {
            pages: 1,
            ..Usage::default()
        };
        meter.used(&work.job.tenant, &usage);
    }
}

/// What has become of a page.
struct Done {
    source: TextSource,
    passages: u32,
    image: Option<String>,
    lines: Option<String>,
}

impl Page {
    async fn path(&self, work: &Work, place: Option<Place>) -> Result<Done, Stop> {
        let mut drawn = if self.route.is_drawn_first() {
            let drawn = self.draw(work, place).await;
            self.batch.page_left(work).await;
            drawn?
        } else {
            let unread = place.map(|place| Unread::new(place.arrive()));
            self.batch.page_left(work).await;
            Drawn {
                unread,
                ..Drawn::default()
            }
        };
        let (encoded, unread) = (drawn.encoded.take(), drawn.unread.take());
        let image = drawn.image_key.as_deref();
        let ((), (source, lines, passages)) =
            tokio::try_join!(self.store(work, encoded, image), self.text(work, unread, image),)?;
        Ok(Done {
            source,
            passages,
            image: drawn.image_key,
            lines,
        })
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

    /// Does `step` in a seat until it succeeds or its failure is final. The seat is given up while it waits to try again.
    pub(crate) async fn seated<T, E, F>(
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
            // Stopped, no further page is shown to a vision model; those that have been may come to their end.
            let begins = stage == Stage::Read && self.route.reading == Reading::VisionModel;
            let seat = match begins {
                true => work.job.unless_stopping(seating).await?,
                false => seating.await,
            };
            match step().instrument(spans::stage(stage)).await {
                Ok(value) => {
                    self.batch.spent(stage, seat.finished(1));
                    return Ok((seat, value));
                }
                Err(error) => {
                    let error = error.into();
                    waiting = self.again(work, stage, seat.back(), &mut attempt, error).await?;
                }
            }
        }
    }

    /// Asks what follows a failure and waits before the next attempt, if there is one. The page keeps its place in the
    /// queue; no pixels may be in memory meanwhile.
    pub(crate) async fn again(
        &self,
        work: &Work,
        stage: Stage,
        waiting: Waiting,
        attempt: &mut u32,
        error: StageError,
    ) -> Result<Waiting, Stop> {
        let pause = judge(work, self.facts.number, stage, *attempt, error).await?;
        sleep(pause).await;
        *attempt += 1;
        Ok(waiting)
    }
}
