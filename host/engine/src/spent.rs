//! What each stage has done for a job, all its documents together, and is doing now.
//!
//! The times that a batching component sees are of the last pages of one document, which is what its next decision is about.
//! Which stage holds a job up is another question: pages with a text layer are read in a millisecond and scanned ones in
//! seconds, and after the last page has been drawn most of the work may be still to come. That takes the whole sum, with
//! the pages that are in their seats at the moment.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weir_core::Stage;
use weir_core::decision::StageWork;

use crate::rooms::HostSeats;

/// The sums of one job, from the start of its work on.
pub(crate) struct Spent {
    began: Instant,
    workers: [u32; Stage::ALL.len()],
    sums: Mutex<[Sum; Stage::ALL.len()]>,
}

#[derive(Default, Clone, Copy)]
struct Sum {
    pages: u32,
    /// Of seats that have been left.
    busy: Duration,
    seated: u32,
    /// When those that are taken were, summed up.
    taken: Duration,
}

impl Spent {
    /// Nothing yet.
    pub(crate) fn new(seats: &HostSeats) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            workers: Stage::ALL.map(|stage| seats.of(stage).count()),
            sums: Mutex::default(),
        })
    }

    fn change(&self, stage: Stage, change: impl FnOnce(&mut Sum)) {
        if let Some(sum) = self.sums.lock().get_mut(stage as usize) {
            change(sum);
        }
    }

    /// A seat is taken.
    pub(crate) fn sit(&self, stage: Stage, at: Instant) {
        self.change(stage, |sum| {
            sum.seated += 1;
            sum.taken += at - self.began;
        });
    }

    /// The seat that was taken then is left.
    pub(crate) fn rise(&self, stage: Stage, since: Instant) {
        self.change(stage, |sum| {
            sum.seated = sum.seated.saturating_sub(1);
            sum.taken = sum.taken.saturating_sub(since - self.began);
            sum.busy += since.elapsed();
        });
    }

    /// A stage is done with so many pages.
    pub(crate) fn done(&self, stage: Stage, pages: u32) {
        self.change(stage, |sum| sum.pages = sum.pages.saturating_add(pages));
    }

    /// The stages that have had something to do.
    pub(crate) fn work(&self) -> Vec<StageWork> {
        let sums = *self.sums.lock();
        let now = self.began.elapsed();
        let stages = Stage::ALL.into_iter().zip(sums).zip(self.workers);
        let work = stages.map(|((stage, sum), workers)| StageWork {
            stage,
            pages: sum.pages,
            busy_millis: millis(sum.busy + (now * sum.seated).saturating_sub(sum.taken)),
            workers,
        });
        work.filter(|work| work.pages > 0 || work.busy_millis > 0)
            .collect()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
