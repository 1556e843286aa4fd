//! What each stage has done for a job, all its documents together, or for one document, and is doing now.
//!
//! The times that a batching component sees are of the last pages of one document, which is what its next decision is about.
//! Which stage holds a job up is another question: pages with a text layer are read in a millisecond and scanned ones in
//! seconds, and after the last page has been drawn most of the work may be still to come. That takes the whole sum, with
//! the pages that are in their seats at the moment. Where a stage has seats of several kinds, those that were busiest speak for
//! it: two that are always taken hold pages up, however many others stand empty.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weir_core::Stage;
use weir_core::decision::StageWork;

/// Seats of one kind: what they are measured as, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeatKind {
    pub(crate) name: &'static str,
    pub(crate) count: u32,
}

/// The sums of one job or document, from the start of its work on.
pub(crate) struct Spent {
    began: Instant,
    /// Of the seats that were used.
    sums: Mutex<Vec<Sum>>,
}

#[derive(Clone, Copy)]
struct Sum {
    stage: Stage,
    seats: SeatKind,
    pages: u32,
    /// Of seats that have been left.
    busy: Duration,
    seated: u32,
    /// When those that are taken were, summed up.
    taken: Duration,
}

impl Sum {
    fn busy(&self, now: Duration) -> Duration {
        self.busy + (now * self.seated).saturating_sub(self.taken)
    }
}

impl Spent {
    /// Nothing yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            sums: Mutex::default(),
        })
    }

    fn change(&self, stage: Stage, seats: SeatKind, change: impl FnOnce(&mut Sum)) {
        let mut sums = self.sums.lock();
        if let Some(sum) = sums
            .iter_mut()
            .find(|sum| sum.stage == stage && sum.seats == seats)
        {
            return change(sum);
        }
        let mut sum = Sum {
            stage,
            seats,
            pages: 0,
            busy: Duration::ZERO,
            seated: 0,
            taken: Duration::ZERO,
        };
        change(&mut sum);
        sums.push(sum);
    }

    /// A seat is taken.
    pub(crate) fn sit(&self, stage: Stage, seats: SeatKind, at: Instant) {
        self.change(stage, seats, |sum| {
            sum.seated += 1;
            sum.taken += at.saturating_duration_since(self.began);
        });
    }

    /// The seat that was taken then is left.
    pub(crate) fn rise(&self, stage: Stage, seats: SeatKind, since: Instant) {
        self.change(stage, seats, |sum| {
            sum.seated = sum.seated.saturating_sub(1);
            let taken = since.saturating_duration_since(self.began);
            sum.taken = sum.taken.saturating_sub(taken);
            sum.busy += since.elapsed();
        });
    }

    /// So many pages are done.
    pub(crate) fn done(&self, stage: Stage, seats: SeatKind, pages: u32) {
        self.change(stage, seats, |sum| sum.pages = sum.pages.saturating_add(pages));
    }

    /// The stages that have had something to do, in their order.
    pub(crate) fn work(&self) -> Vec<StageWork> {
        let sums = self.sums.lock().clone();
        let now = self.began.elapsed();
        let of = |stage| {
            let sums = sums.iter().filter(move |sum: &&Sum| sum.stage == stage);
            let share = |sum: &Sum| sum.busy(now).as_secs_f64() / f64::from(sum.seats.count.max(1));
            let busiest = sums.clone().max_by(|a, b| share(a).total_cmp(&share(b)))?;
            Some(StageWork {
                stage,
                pages: sums.map(|sum| sum.pages).sum(),
                busy_millis: millis(busiest.busy(now)),
                workers: busiest.seats.count,
            })
        };
        let work = Stage::ALL.into_iter().filter_map(of);
        work.filter(|work| work.pages > 0 || work.busy_millis > 0)
            .collect()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_busiest_seats_of_a_stage_speak_for_it() {
        let kind = |name, count| SeatKind { name, count };
        let (ocr, vision) = (kind("read", 2), kind("vision", 5));
        let spent = Spent::new();
        // Nine seconds at five seats are less of a hold-up than six at two.
        for (seats, pages, seconds) in [(vision, 3, 9), (ocr, 2, 6)] {
            let since = Instant::now();
            spent.sit(Stage::Read, seats, since);
            tokio::time::advance(Duration::from_secs(seconds)).await;
            spent.done(Stage::Read, seats, pages);
            spent.rise(Stage::Read, seats, since);
        }
        let read = StageWork {
            stage: Stage::Read,
            pages: 5,
            busy_millis: 6000,
            workers: 2,
        };
        assert_eq!(spent.work(), [read]);
    }
}
