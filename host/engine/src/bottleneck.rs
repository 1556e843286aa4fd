//! Finds the stage that limits the throughput of a document.
//!
//! The bottleneck is the stage whose worker slots were busy for the largest share of the time. The samples of its queue hint at
//! the reason. If the queue was always empty, pages arrived too slowly even for this stage, for example one at a time. If it was
//! often full, the stages before waited for this stage.

use std::time::Duration;

use parking_lot::Mutex;
use weir_core::Stage;
use weir_core::decision::{QueueState, StageTotals};

/// Counts how often the queues of a document were full or empty, sampled whenever a batch has left the rasterizer.
#[derive(Default)]
pub(crate) struct EmptyAndFullQueueCounter(Mutex<EmptyAndFullQueueCounts>);

#[derive(Default, Clone)]
struct EmptyAndFullQueueCounts {
    count: u32,
    empty: [u32; Stage::ALL.len()],
    full: [u32; Stage::ALL.len()],
}

impl EmptyAndFullQueueCounter {
    /// Adds one sample of all queues.
    pub(crate) fn add_sample_of_all_queues(&self, queues: &[QueueState]) {
        let mut counts = self.0.lock();
        counts.count += 1;
        for queue in queues {
            let at = queue.stage as usize;
            if queue.depth == 0
                && let Some(empty) = counts.empty.get_mut(at)
            {
                *empty += 1;
            }
            if queue.depth >= queue.capacity
                && let Some(full) = counts.full.get_mut(at)
            {
                *full += 1;
            }
        }
    }

    /// Describes the bottleneck of a document in one sentence. `work` is the work of its stages, `took` the time from its first
    /// page to its last.
    pub(crate) fn describe_bottleneck(&self, work: &[StageTotals], took: Duration) -> String {
        let counts = self.0.lock().clone();
        let share = |work: &StageTotals| {
            let seconds = took.as_secs_f64() * f64::from(work.workers.max(1));
            work.busy_millis as f64 / (seconds * 1000.0).max(f64::MIN_POSITIVE)
        };
        let busiest = work
            .iter()
            .map(|work| (work, share(work)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((busiest, share)) = busiest.filter(|(_, share)| *share > 0.0) else {
            return "no stage had anything to do".into();
        };
        let count = |of: &[u32; Stage::ALL.len()]| of.get(busiest.stage as usize).copied().unwrap_or(0);
        let (full, empty) = (count(&counts.full), count(&counts.empty));
        format!(
            "{} is the bottleneck: {} worker{} busy {:.0} % of the time, its queue full in {full} and empty in {empty} of {} samples",
            busiest.stage,
            busiest.workers,
            if busiest.workers == 1 { "" } else { "s" },
            (share * 100.0).min(100.0),
            counts.count,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busiest_stage_is_reported_as_bottleneck() {
        let queue = |stage, depth, workers| QueueState {
            stage,
            depth,
            capacity: 8,
            workers,
        };
        let queues = [
            queue(Stage::Rasterize, 0, 1),
            queue(Stage::Read, 8, 2),
            queue(Stage::Embed, 0, 1),
        ];
        let load = EmptyAndFullQueueCounter::default();
        load.add_sample_of_all_queues(&queues);
        let work = queues
            .iter()
            .zip([2000, 19_000, 5000])
            .map(|(queue, busy_millis)| StageTotals {
                stage: queue.stage,
                pages: 10,
                busy_millis,
                workers: queue.workers,
            });
        let work: Vec<_> = work.collect();
        assert_eq!(
            load.describe_bottleneck(&work, Duration::from_secs(10)),
            "read is the bottleneck: 2 workers busy 95 % of the time, its queue full in 1 and empty in 0 of 1 samples"
        );
        assert_eq!(
            load.describe_bottleneck(&[], Duration::ZERO),
            "no stage had anything to do"
        );
    }
}
