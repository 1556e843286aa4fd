//! The least time a document can take, and how near the engine comes to it.
//!
//! With stage costs for a page and so many workers each, no scheduling can be quicker than this: a stage cannot begin before
//! its first page has passed the stages before it, its workers cannot do its pages in less than all their work divided by
//! them, and after its last page the stages behind have still that page to do. The floor is the largest of these sums
//! over all stages. (It takes pages as divisible among workers, so it is a little lower than what is possible.)

use std::time::Duration;

use weir_core::Stage;
use weir_core::event::EventKind;

use crate::fakes::{Fakes, job};

/// Milliseconds a page takes in each stage: those of the measured batch of four, rasterize 2.4 s, store 1.1 s, read 6.8 s,
/// embed 4.2 s, upsert 0.9 s.
pub const COSTS: [(Stage, u64); 5] = [
    (Stage::Rasterize, 600),
    (Stage::Store, 275),
    (Stage::Read, 1700),
    (Stage::Embed, 1050),
    (Stage::Upsert, 225),
];

/// Workers of each stage, in the order of [`Stage::ALL`].
pub type Workers = [u32; 5];

/// A run beside its floor.
pub struct Run {
    pub floor: Duration,
    pub makespan: Duration,
    /// When the first page could be found.
    pub first: Duration,
}

impl Run {
    pub fn ratio(&self) -> f64 {
        self.makespan.as_secs_f64() / self.floor.as_secs_f64()
    }
}

/// The stages a page passes on its way to and from `stage`.
fn around(stage: Stage) -> (&'static [Stage], &'static [Stage]) {
    use Stage::{Embed, Rasterize, Read, Store, Upsert};
    match stage {
        Rasterize => (&[], &[Read, Embed, Upsert]),
        Store => (&[Rasterize], &[]),
        Read => (&[Rasterize], &[Embed, Upsert]),
        Embed => (&[Rasterize, Read], &[Upsert]),
        Upsert => (&[Rasterize, Read, Embed], &[]),
    }
}

/// The least time for so many pages.
pub fn floor(pages: u32, workers: Workers) -> Duration {
    let cost = |stage: Stage| COSTS[stage as usize].1 as f64;
    let of = |stage: Stage| {
        let (before, after) = around(stage);
        let work = f64::from(pages) * cost(stage) / f64::from(workers[stage as usize]);
        before.iter().chain(after).map(|s| cost(*s)).sum::<f64>() + work
    };
    let most = Stage::ALL.map(of).into_iter().fold(0.0, f64::max);
    Duration::from_secs_f64(most / 1000.0)
}

/// A document in virtual time.
pub async fn run(pages: u32, workers: Workers) -> Run {
    let mut fakes = Fakes::new();
    for (stage, millis) in COSTS {
        fakes = fakes.cost(stage, millis).workers(stage, workers[stage as usize]);
    }
    fakes.config.upsert_workers = workers[Stage::Upsert as usize];
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", pages)]));
    handle.wait().await;
    let events = fakes.ledger.log(handle.id());
    let at = |is_it: fn(&EventKind) -> bool| {
        let event = events.iter().find(|e| is_it(&e.what)).unwrap();
        Duration::from_millis(event.at_millis)
    };
    Run {
        floor: floor(pages, workers),
        makespan: at(|e| matches!(e, EventKind::DocumentDone { failed, .. } if failed.is_empty())),
        first: at(|e| matches!(e, EventKind::PageDone { searchable: true, .. })),
    }
}
