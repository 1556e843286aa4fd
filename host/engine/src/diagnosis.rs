//! Which stage holds a document up.
//!
//! The stage whose seats were busy for the largest share of the time is the bottleneck; what its queue looked like says why
//! with some certainty. A queue before the busiest stage that was always empty means that the work came too slowly even
//! so (one page at a time, say); one that was often full means that the stages before it waited for it.

use std::time::Duration;

use parking_lot::Mutex;
use weir_core::Stage;
use weir_core::decision::{QueueState, StageWork};

/// How full the queues of a document were, looked at whenever a batch left the rasterizer.
#[derive(Default)]
pub(crate) struct Load(Mutex<Looks>);

#[derive(Default, Clone)]
struct Looks {
    count: u32,
    empty: [u32; Stage::ALL.len()],
    full: [u32; Stage::ALL.len()],
}

impl Load {
    /// Takes a look.
    pub(crate) fn look(&self, queues: &[QueueState]) {
        let mut looks = self.0.lock();
        looks.count += 1;
        for queue in queues {
            let at = queue.stage as usize;
            if queue.depth == 0
                && let Some(empty) = looks.empty.get_mut(at)
            {
                *empty += 1;
            }
            if queue.depth >= queue.capacity
                && let Some(full) = looks.full.get_mut(at)
            {
                *full += 1;
            }
        }
    }

    /// The bottleneck of a document in one sentence. `work` is what its stages have done; `took` the time from its first page
    /// to its last.
    pub(crate) fn bottleneck(&self, work: &[StageWork], took: Duration) -> String {
        let looks = self.0.lock().clone();
        let share = |work: &StageWork| {
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
        let (full, empty) = (count(&looks.full), count(&looks.empty));
        format!(
            "{} is the bottleneck: {} worker{} busy {:.0} % of the time, its queue full in {full} and empty in {empty} of {} looks",
            busiest.stage,
            busiest.workers,
            if busiest.workers == 1 { "" } else { "s" },
            (share * 100.0).min(100.0),
            looks.count,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_stage_is_named() {
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
        let load = Load::default();
        load.look(&queues);
        let work = queues
            .iter()
            .zip([2000, 19_000, 5000])
            .map(|(queue, busy_millis)| StageWork {
                stage: queue.stage,
                pages: 10,
                busy_millis,
                workers: queue.workers,
            });
        let work: Vec<_> = work.collect();
        assert_eq!(
            load.bottleneck(&work, Duration::from_secs(10)),
            "read is the bottleneck: 2 workers busy 95 % of the time, its queue full in 1 and empty in 0 of 1 looks"
        );
        assert_eq!(
            load.bottleneck(&[], Duration::ZERO),
            "no stage had anything to do"
        );
    }
}
