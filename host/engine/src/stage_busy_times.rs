//! The busy time and page counts of each stage, for a job (all its documents together) or for one document.
//!
//! A batching component sees the times of the last pages of one document, since its next decision depends on those. To find the
//! stage that limits a job, recent pages are not enough: a page with a text layer takes a millisecond to read and a scanned
//! page takes seconds. And after the last page is rasterized, most of the work may still lie ahead. So these sums cover all
//! pages since the start, including those in a worker slot at the moment.
//!
//! A stage can have worker slots of several kinds. The kind that was busiest represents the stage: two slots that are always
//! busy delay pages, however many slots of other kinds are free.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weir_core::Stage;
use weir_core::decision::StageTotals;

/// A kind of worker slot: its name in the metrics, and the number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotKindAndCount {
    pub(crate) name: &'static str,
    pub(crate) count: u32,
}

/// The totals of one job or document since its start.
pub(crate) struct StageBusyTimes {
    began: Instant,
    /// One element for each kind of slot that was used.
    sums: Mutex<Vec<SlotKindTotals>>,
}

#[derive(Clone, Copy)]
struct SlotKindTotals {
    stage: Stage,
    slots: SlotKindAndCount,
    pages: u32,
    /// Busy time of slots that were released.
    busy: Duration,
    busy_slots: u32,
    /// Sum of the times at which the slots in use were acquired.
    acquired_at_sum: Duration,
}

impl SlotKindTotals {
    fn total_busy_time_at(&self, now: Duration) -> Duration {
        self.busy + (now * self.busy_slots).saturating_sub(self.acquired_at_sum)
    }
}

impl StageBusyTimes {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            sums: Mutex::default(),
        })
    }

    fn update_totals_of_slot_kind(
        &self,
        stage: Stage,
        slots: SlotKindAndCount,
        change: impl FnOnce(&mut SlotKindTotals),
    ) {
        let mut sums = self.sums.lock();
        if let Some(sum) = sums
            .iter_mut()
            .find(|sum| sum.stage == stage && sum.slots == slots)
        {
            return change(sum);
        }
        let mut sum = SlotKindTotals {
            stage,
            slots,
            pages: 0,
            busy: Duration::ZERO,
            busy_slots: 0,
            acquired_at_sum: Duration::ZERO,
        };
        change(&mut sum);
        sums.push(sum);
    }

    pub(crate) fn record_slot_acquired(&self, stage: Stage, slots: SlotKindAndCount, at: Instant) {
        self.update_totals_of_slot_kind(stage, slots, |sum| {
            sum.busy_slots += 1;
            sum.acquired_at_sum += at.saturating_duration_since(self.began);
        });
    }

    /// Records the release of a slot that was acquired at `since`.
    pub(crate) fn record_slot_released(&self, stage: Stage, slots: SlotKindAndCount, since: Instant) {
        self.update_totals_of_slot_kind(stage, slots, |sum| {
            sum.busy_slots = sum.busy_slots.saturating_sub(1);
            let acquired_at = since.saturating_duration_since(self.began);
            sum.acquired_at_sum = sum.acquired_at_sum.saturating_sub(acquired_at);
            sum.busy += since.elapsed();
        });
    }

    pub(crate) fn record_pages_done(&self, stage: Stage, slots: SlotKindAndCount, pages: u32) {
        self.update_totals_of_slot_kind(stage, slots, |sum| sum.pages = sum.pages.saturating_add(pages));
    }

    /// Returns the work of all stages that had any, in stage order.
    pub(crate) fn stage_totals(&self) -> Vec<StageTotals> {
        let sums = self.sums.lock().clone();
        let now = self.began.elapsed();
        let of = |stage| {
            let sums = sums
                .iter()
                .filter(move |sum: &&SlotKindTotals| sum.stage == stage);
            let share = |sum: &SlotKindTotals| {
                sum.total_busy_time_at(now).as_secs_f64() / f64::from(sum.slots.count.max(1))
            };
            let busiest = sums.clone().max_by(|a, b| share(a).total_cmp(&share(b)))?;
            Some(StageTotals {
                stage,
                pages: sums.map(|sum| sum.pages).sum(),
                busy_millis: to_millis(busiest.total_busy_time_at(now)),
                workers: busiest.slots.count,
            })
        };
        let work = Stage::ALL.into_iter().filter_map(of);
        work.filter(|work| work.pages > 0 || work.busy_millis > 0)
            .collect()
    }
}

fn to_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stage_reports_its_busiest_kind_of_slot() {
        let kind = |name, count| SlotKindAndCount { name, count };
        let (ocr, vision) = (kind("read", 2), kind("vision", 5));
        let busy_time = StageBusyTimes::new();
        // Nine seconds over five slots are a smaller share of time than six seconds over two.
        for (slots, pages, seconds) in [(vision, 3, 9), (ocr, 2, 6)] {
            let since = Instant::now();
            busy_time.record_slot_acquired(Stage::Read, slots, since);
            tokio::time::advance(Duration::from_secs(seconds)).await;
            busy_time.record_pages_done(Stage::Read, slots, pages);
            busy_time.record_slot_released(Stage::Read, slots, since);
        }
        let read = StageTotals {
            stage: Stage::Read,
            pages: 5,
            busy_millis: 6000,
            workers: 2,
        };
        assert_eq!(busy_time.stage_totals(), [read]);
    }
}
