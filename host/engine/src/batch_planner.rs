//! Plans the batches of a document: which pages come next.
//!
//! The tenant's batching component decides the size of each batch. A batch is planned only when the first stage queue has
//! capacity, which is where backpressure takes effect. Each page is first reserved from the tenant's quotas; when a quota is used
//! up, the job is held. Page facts are prefetched: a few at first so that work can start soon, then more at a time during that
//! work.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::mpsc;
use weir_core::decision::{BatchContext, ReadingMethod};
use weir_core::event::ErrorInfo;
use weir_core::ports::{OpenedPdf, SchedulingContext};
use weir_core::usage::{QuotaReservation, QuotaReserveError, Usage};
use weir_core::{DocumentId, PageFacts, PageNumber, RasterError};

use crate::batch_tracker::BatchTracker;
use crate::error::StageError;
use crate::job_and_document_context::DocumentContext;
use crate::page_task::PageTask;
use crate::store_retry::retry_while_unavailable;

/// The number of pages whose facts are fetched first.
pub(crate) const FIRST_FETCH_PAGES: u32 = 8;
/// The number of pages whose facts are fetched at a time after that. A batching component sees at most as many.
const PREFETCH_PAGES: u32 = 64;

/// The result of planning a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlanningEndReason {
    /// No further page is to be planned.
    Complete,
    /// A quota of the tenant allows no further page.
    HeldByQuota,
}

/// Plans the pages `wanted` in order and sends each to `taken`. `known` are facts that were fetched before.
pub(crate) async fn plan_document_pages(
    document: &DocumentContext,
    wanted: &[PageNumber],
    known: &[PageFacts],
    page_sender: mpsc::Sender<PageTask>,
) -> Result<PlanningEndReason, ErrorInfo> {
    let (send, facts) = mpsc::channel(1);
    let ((), planned) = tokio::try_join!(
        prefetch_page_facts(document, wanted, known, send),
        plan_and_send_batches(document, wanted.len(), facts, page_sender)
    )?;
    Ok(planned)
}

/// Reserves up to `most` pages from the tenant's quotas. Returns one reservation for each page, or `None` if a quota allows no
/// page.
async fn try_reserve_quota_for_pages(
    document: &DocumentContext,
    max_pages: usize,
) -> Result<Option<Vec<Option<QuotaReservation>>>, ErrorInfo> {
    let Some(quotas) = &document.engine.ports.quotas else {
        return Ok(Some((0..max_pages).map(|_| None).collect()));
    };
    let tenant = &document.job.tenant;
    let max_pages = u32::try_from(max_pages).unwrap_or(u32::MAX);
    let reserve = async || match quotas.reserve_pages(tenant, max_pages).await {
        Ok(pages) => Ok(Ok(pages)),
        Err(QuotaReserveError::Exhausted(exhausted)) => Ok(Err(exhausted)),
        Err(QuotaReserveError::Storage(error)) => Err(error),
    };
    let reserved = retry_while_unavailable(reserve).await;
    match reserved.map_err(|error| StageError::from(error).to_error_info())? {
        Ok(pages) => {
            let one = Usage {
                pages: 1,
                ..Usage::default()
            };
            let each = (0..pages).map(|_| Some(QuotaReservation::new(quotas, tenant, one)));
            Ok(Some(each.collect()))
        }
        Err(exhausted) => {
            // If several documents find an exhausted quota, the first one counts.
            let _ = document.job.exhausted_quota.set(exhausted);
            Ok(None)
        }
    }
}

async fn plan_and_send_batches(
    document: &DocumentContext,
    total: usize,
    mut facts: mpsc::Receiver<Vec<PageFacts>>,
    page_sender: mpsc::Sender<PageTask>,
) -> Result<PlanningEndReason, ErrorInfo> {
    let mut next: VecDeque<PageFacts> = VecDeque::new();
    let mut remaining = total;
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    while remaining > 0 {
        while next.len() < PREFETCH_PAGES as usize {
            let more = match facts.try_recv() {
                Ok(more) => more,
                Err(_) if !next.is_empty() => break,
                Err(_) => match facts.recv().await {
                    Some(more) => more,
                    // The prefetching has failed and returns the error itself.
                    None => return Ok(PlanningEndReason::Complete),
                },
            };
            next.extend(more);
        }
        document.queues.rasterize.await_capacity().await;
        if document.job.stop_signal.is_cancelled_suspended_or_failed() {
            return Ok(PlanningEndReason::Complete);
        }
        if document.job.exhausted_quota.get().is_some() {
            return Ok(PlanningEndReason::HeldByQuota);
        }
        let context = BatchContext {
            document: document.id,
            total_pages: number(total),
            remaining_pages: number(remaining),
            next_pages: next.iter().take(PREFETCH_PAGES as usize).copied().collect(),
            queues: document.queues.queue_states(),
            stage_timings: document.queues.mean_stage_times(),
            device: document.engine.ports.embedder.compute_device(),
            free_image_bytes: document.engine.ports.rasterizer.available_image_bytes(),
        };
        let plan = document
            .job
            .policy
            .plan_batch(context)
            .await
            .map_err(policy_error_info)?;
        document.queues.set_capacities_from_plan(&plan);
        let pages = (plan.pages.max(1) as usize).min(next.len());
        let Some(reserved) = try_reserve_quota_for_pages(document, pages).await? else {
            return Ok(PlanningEndReason::HeldByQuota);
        };
        let pages = pages.min(reserved.len());
        let first = next.front().map_or(0, |f| f.number);
        let batch = Arc::new(BatchTracker::new(document.id, first, number(pages), plan.dpi));
        let account = SchedulingContext {
            batch_linger: Duration::from_millis(plan.linger_millis.into()),
            ..document.account.clone()
        };
        for (facts, quota_reservation) in next.drain(..pages).zip(reserved) {
            let route = document
                .job
                .policy
                .route_page(&document.id, facts)
                .await
                .map_err(policy_error_info)?;
            let queue_reservation = if route.needs_raster_before_reading() {
                Some(document.queues.rasterize.reserve().await)
            } else if route.reading_method != ReadingMethod::Nothing {
                Some(document.queues.read.reserve().await)
            } else {
                None
            };
            let page = PageTask {
                facts,
                route,
                dpi: plan.dpi,
                account: account.clone(),
                batch_tracker: Arc::clone(&batch),
                queue_reservation,
                quota_reservation,
                indexed: AtomicBool::new(false),
            };
            if page_sender.send(page).await.is_err() {
                return Ok(PlanningEndReason::Complete);
            }
            remaining -= 1;
        }
    }
    Ok(PlanningEndReason::Complete)
}

/// Fetches page facts one chunk ahead of the planned pages.
async fn prefetch_page_facts(
    document: &DocumentContext,
    wanted: &[PageNumber],
    known: &[PageFacts],
    send: mpsc::Sender<Vec<PageFacts>>,
) -> Result<(), ErrorInfo> {
    let mut rest = wanted;
    let mut chunk = FIRST_FETCH_PAGES;
    while let (Some(first), Some(last)) = (rest.first(), rest.last()) {
        let end = first.saturating_add(chunk).min(last.saturating_add(1));
        let (now, later) = rest.split_at(rest.partition_point(|page| *page < end));
        let fetched = reuse_or_fetch_page_facts(document, now, known, *first..end).await?;
        if send.send(fetched).await.is_err() {
            return Ok(());
        }
        (rest, chunk) = (later, PREFETCH_PAGES);
    }
    Ok(())
}

/// Returns the facts of the pages `wanted`, all of which lie in `range`. Fetches them unless all of them are in `known`.
async fn reuse_or_fetch_page_facts(
    document: &DocumentContext,
    wanted: &[PageNumber],
    known: &[PageFacts],
    range: Range<PageNumber>,
) -> Result<Vec<PageFacts>, ErrorInfo> {
    let of = |facts: &[PageFacts], page: PageNumber| facts.iter().find(|f| f.number == page).copied();
    if let Some(facts) = wanted.iter().map(|p| of(known, *p)).collect() {
        return Ok(facts);
    }
    let facts = fetch_facts_marking_unreadable_pages(&document.id, &*document.open, range).await?;
    Ok(wanted
        .iter()
        .map(|p| of(&facts, *p).unwrap_or(unreadable_page_facts(*p)))
        .collect())
}

/// Fetches the facts of a range of pages. If one page makes that fail, fetches the pages one by one and marks that page as
/// unreadable. The failure rules then decide about it, as about any other failed page.
pub(crate) async fn fetch_facts_marking_unreadable_pages(
    id: &DocumentId,
    open: &dyn OpenedPdf,
    range: Range<PageNumber>,
) -> Result<Vec<PageFacts>, ErrorInfo> {
    match open.read_page_facts(range.clone()).await {
        Ok(facts) => return Ok(facts),
        Err(error) if !is_single_page_error(&error) => return Err(StageError::from(error).to_error_info()),
        Err(error) => tracing::debug!(document = %id, %error, "page facts are fetched page by page"),
    }
    let mut all = Vec::with_capacity(range.len());
    for page in range {
        match open.read_page_facts(page..page.saturating_add(1)).await {
            Ok(facts) => all.extend(facts),
            Err(error) if is_single_page_error(&error) => all.push(unreadable_page_facts(page)),
            Err(error) => return Err(StageError::from(error).to_error_info()),
        }
    }
    Ok(all)
}

fn is_single_page_error(error: &RasterError) -> bool {
    matches!(
        error,
        RasterError::PageUnreadable { .. }
            | RasterError::PageTooLarge { .. }
            | RasterError::PageTimeout { .. }
            | RasterError::WorkerDied { .. }
    )
}

const fn unreadable_page_facts(number: PageNumber) -> PageFacts {
    PageFacts {
        number,
        width: 0.0,
        height: 0.0,
        text_chars: 0,
        image_coverage: 0.0,
        readable: false,
    }
}

fn policy_error_info(error: weir_core::PolicyError) -> ErrorInfo {
    StageError::from(error).to_error_info()
}
