//! Which pages come next.
//!
//! Pages are taken in batches, as the tenant's batching component says, and only when the first room on their way has a
//! place: that is where backpressure ends up. Each page is reserved of the tenant's quotas first, and when one of those is used up,
//! the job is held. What is known of the pages is fetched ahead, the first few at once so that
//! work can begin, then more at a time while that work is under way.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::mpsc;
use weir_core::decision::{Reading, Situation};
use weir_core::event::ErrorNote;
use weir_core::ports::{Account, OpenDocument};
use weir_core::usage::{Reservation, ReserveError, Usage};
use weir_core::{DocumentId, PageFacts, PageNumber, RasterError};

use crate::batch::Batch;
use crate::failure::StageError;
use crate::page::Page;
use crate::work::Work;

/// Pages whose facts are fetched before anything else.
pub(crate) const FIRST: u32 = 8;
/// Pages whose facts are fetched at a time after that; also what a batching component is shown at most.
const AHEAD: u32 = 64;

/// How planning ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planned {
    /// No further page is to be taken.
    All,
    /// A quota of the tenant allows no further page.
    Held,
}

/// Takes the pages `wanted` in order and sends them on. `known` are facts that were fetched before.
pub(crate) async fn take_pages(
    work: &Work,
    wanted: &[PageNumber],
    known: &[PageFacts],
    taken: mpsc::Sender<Page>,
) -> Result<Planned, ErrorNote> {
    let (send, facts) = mpsc::channel(1);
    let ((), planned) = tokio::try_join!(
        fetch_ahead(work, wanted, known, send),
        take(work, wanted.len(), facts, taken)
    )?;
    Ok(planned)
}

/// Reserves up to `most` pages of the tenant's quotas, one for each; `None` if a quota allows none.
async fn reserve(work: &Work, most: usize) -> Result<Option<Vec<Option<Reservation>>>, ErrorNote> {
    let Some(quotas) = &work.host.ports.quotas else {
        return Ok(Some((0..most).map(|_| None).collect()));
    };
    let tenant = &work.job.tenant;
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    match quotas.reserve_pages(tenant, most).await {
        Ok(pages) => {
            let one = Usage {
                pages: 1,
                ..Usage::default()
            };
            let each = (0..pages).map(|_| Some(Reservation::new(quotas, tenant, one)));
            Ok(Some(each.collect()))
        }
        Err(ReserveError::Exhausted(exhausted)) => {
            // The first stands.
            let _ = work.job.held.set(exhausted);
            Ok(None)
        }
        Err(ReserveError::Storage(error)) => Err(StageError::from(error).note()),
    }
}

async fn take(
    work: &Work,
    total: usize,
    mut facts: mpsc::Receiver<Vec<PageFacts>>,
    taken: mpsc::Sender<Page>,
) -> Result<Planned, ErrorNote> {
    let mut next: VecDeque<PageFacts> = VecDeque::new();
    let mut left = total;
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    while left > 0 {
        while next.len() < AHEAD as usize {
            let more = match facts.try_recv() {
                Ok(more) => more,
                Err(_) if !next.is_empty() => break,
                Err(_) => match facts.recv().await {
                    Some(more) => more,
                    // The other half has failed and says so itself.
                    None => return Ok(Planned::All),
                },
            };
            next.extend(more);
        }
        work.rooms.rasterize.opening().await;
        if work.job.halt.is_halted() {
            return Ok(Planned::All);
        }
        if work.job.held.get().is_some() {
            return Ok(Planned::Held);
        }
        let situation = Situation {
            document: work.id,
            total_pages: number(total),
            remaining_pages: number(left),
            next: next.iter().take(AHEAD as usize).copied().collect(),
            queues: work.rooms.queues(),
            times: work.rooms.times(),
            device: work.host.ports.embedder.device(),
            free_image_bytes: work.host.ports.rasterizer.free_image_bytes(),
        };
        let plan = work.job.policy.plan(situation).await.map_err(note)?;
        work.rooms.follow(&plan);
        let pages = (plan.pages.max(1) as usize).min(next.len());
        let Some(reserved) = reserve(work, pages).await? else {
            return Ok(Planned::Held);
        };
        let pages = pages.min(reserved.len());
        let first = next.front().map_or(0, |f| f.number);
        let batch = Arc::new(Batch::new(work.id, first, number(pages), plan.dpi));
        let account = Account {
            linger: Duration::from_millis(plan.linger_millis.into()),
            ..work.account.clone()
        };
        for (facts, reservation) in next.drain(..pages).zip(reserved) {
            let route = work.job.policy.route_page(&work.id, facts).await.map_err(note)?;
            let place = if route.is_drawn_first() {
                Some(work.rooms.rasterize.book().await)
            } else if route.reading != Reading::Nothing {
                Some(work.rooms.read.book().await)
            } else {
                None
            };
            let page = Page {
                facts,
                route,
                dpi: plan.dpi,
                account: account.clone(),
                batch: Arc::clone(&batch),
                place,
                reservation,
                indexed: AtomicBool::new(false),
            };
            if taken.send(page).await.is_err() {
                return Ok(Planned::All);
            }
            left -= 1;
        }
    }
    Ok(Planned::All)
}

/// Fetches facts a chunk ahead of what is taken.
async fn fetch_ahead(
    work: &Work,
    wanted: &[PageNumber],
    known: &[PageFacts],
    send: mpsc::Sender<Vec<PageFacts>>,
) -> Result<(), ErrorNote> {
    let mut rest = wanted;
    let mut chunk = FIRST;
    while let (Some(first), Some(last)) = (rest.first(), rest.last()) {
        let end = first.saturating_add(chunk).min(last.saturating_add(1));
        let (now, later) = rest.split_at(rest.partition_point(|page| *page < end));
        let fetched = facts_of(work, now, known, *first..end).await?;
        if send.send(fetched).await.is_err() {
            return Ok(());
        }
        (rest, chunk) = (later, AHEAD);
    }
    Ok(())
}

/// Facts of the pages `wanted`, all of which lie in `range`.
async fn facts_of(
    work: &Work,
    wanted: &[PageNumber],
    known: &[PageFacts],
    range: Range<PageNumber>,
) -> Result<Vec<PageFacts>, ErrorNote> {
    let of = |facts: &[PageFacts], page: PageNumber| facts.iter().find(|f| f.number == page).copied();
    if let Some(facts) = wanted.iter().map(|p| of(known, *p)).collect() {
        return Ok(facts);
    }
    let facts = facts(&work.id, &*work.open, range).await?;
    Ok(wanted
        .iter()
        .map(|p| of(&facts, *p).unwrap_or(unreadable(*p)))
        .collect())
}

/// Facts of a range of pages. Where one page makes it fail, the others are asked for one by one, so that what becomes of that
/// page is decided by the failure rules like any other page's trouble.
pub(crate) async fn facts(
    id: &DocumentId,
    open: &dyn OpenDocument,
    range: Range<PageNumber>,
) -> Result<Vec<PageFacts>, ErrorNote> {
    match open.facts(range.clone()).await {
        Ok(facts) => return Ok(facts),
        Err(error) if !is_one_pages(&error) => return Err(StageError::from(error).note()),
        Err(error) => tracing::debug!(document = %id, %error, "facts are fetched page by page"),
    }
    let mut all = Vec::with_capacity(range.len());
    for page in range {
        match open.facts(page..page.saturating_add(1)).await {
            Ok(facts) => all.extend(facts),
            Err(error) if is_one_pages(&error) => all.push(unreadable(page)),
            Err(error) => return Err(StageError::from(error).note()),
        }
    }
    Ok(all)
}

fn is_one_pages(error: &RasterError) -> bool {
    matches!(
        error,
        RasterError::PageUnreadable { .. }
            | RasterError::PageTooLarge { .. }
            | RasterError::Deadline { .. }
            | RasterError::WorkerDied { .. }
    )
}

const fn unreadable(number: PageNumber) -> PageFacts {
    PageFacts {
        number,
        width: 0.0,
        height: 0.0,
        text_chars: 0,
        image_coverage: 0.0,
        readable: false,
    }
}

fn note(error: weir_core::PolicyError) -> ErrorNote {
    StageError::from(error).note()
}
