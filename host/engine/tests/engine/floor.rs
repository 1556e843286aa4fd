//! The minimum makespan of a document, and a run of the engine to compare with it.
//!
//! For given stage costs and workers, each stage sets a lower limit of the makespan. It cannot start before the first page has
//! passed the stages before it. Its workers need at least the total work divided by their number. And after its last page, the
//! later stages still have to process that page. The minimum is the largest of these sums over all stages. It is slightly lower
//! than what is possible, since it divides pages among workers.

use std::time::Duration;

use weir_core::Stage;
use weir_core::event::EventKind;

use crate::fakes::{FakeHost, single_tenant_job};

/// The milliseconds of a page in each stage. They come from a measured batch of four pages: rasterize 2.4 s, store 1.1 s, read
/// 6.8 s, embed 4.2 s, upsert 0.9 s.
pub const STAGE_COSTS_MILLIS: [(Stage, u64); 5] = [
    (Stage::Rasterize, 600),
    (Stage::Store, 275),
    (Stage::Read, 1700),
    (Stage::Embed, 1050),
    (Stage::Upsert, 225),
];

/// The number of workers of each stage, in the order of [`Stage::ALL`].
pub type WorkerCounts = [u32; 5];

/// The times of a run and its minimum makespan.
pub struct MakespanRun {
    pub minimum: Duration,
    pub makespan: Duration,
    /// The time until the first page was searchable.
    pub first_page_searchable: Duration,
}

impl MakespanRun {
    pub fn ratio_to_floor(&self) -> f64 {
        self.makespan.as_secs_f64() / self.minimum.as_secs_f64()
    }
}

/// Returns the stages that a page passes before and after `stage`.
fn surrounding_stages(stage: Stage) -> (&'static [Stage], &'static [Stage]) {
    use Stage::{Embed, Rasterize, Read, Store, Upsert};
    match stage {
        Rasterize => (&[], &[Read, Embed, Upsert]),
        Store => (&[Rasterize], &[]),
        Read => (&[Rasterize], &[Embed, Upsert]),
        Embed => (&[Rasterize, Read], &[Upsert]),
        Upsert => (&[Rasterize, Read, Embed], &[]),
    }
}

/// Returns the minimum makespan of `pages` pages.
pub fn minimum_makespan(pages: u32, workers: WorkerCounts) -> Duration {
    let cost = |stage: Stage| STAGE_COSTS_MILLIS[stage as usize].1 as f64;
    let of = |stage: Stage| {
        let (before, after) = surrounding_stages(stage);
        let work = f64::from(pages) * cost(stage) / f64::from(workers[stage as usize]);
        before.iter().chain(after).map(|s| cost(*s)).sum::<f64>() + work
    };
    let most = Stage::ALL.map(of).into_iter().fold(0.0, f64::max);
    Duration::from_secs_f64(most / 1000.0)
}

/// Ingests a document in virtual time.
pub async fn run_document(pages: u32, workers: WorkerCounts) -> MakespanRun {
    let mut fakes = FakeHost::new();
    for (stage, millis) in STAGE_COSTS_MILLIS {
        fakes = fakes
            .with_cost(stage, millis)
            .with_workers(stage, workers[stage as usize]);
    }
    fakes.config.upsert_workers = workers[Stage::Upsert as usize];
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", pages)]));
    handle.await_outcome().await;
    let events = fakes.ledger.job_events(handle.id());
    let at = |is_it: fn(&EventKind) -> bool| {
        let event = events.iter().find(|e| is_it(&e.kind)).unwrap();
        Duration::from_millis(event.since_job_created_millis)
    };
    MakespanRun {
        minimum: minimum_makespan(pages, workers),
        makespan: at(|e| matches!(e, EventKind::DocumentDone { failed, .. } if failed.is_empty())),
        first_page_searchable: at(|e| matches!(e, EventKind::PageDone { searchable: true, .. })),
    }
}
