//! Which stage holds the document up.
//!
//! Queues tell: pages pile up in front of the slowest stage, the queues behind it stay empty, and the rasterizer is the
//! slowest where nothing piles up anywhere. A full queue makes the stage in front of it wait until its own queue is full too, so
//! of several full ones the last counts. Where no queue is near full, the stages' own times decide.
//!
//! The queues are looked at when a batch has been drawn. Drawing stops where it is held up, so the look that shows a full queue
//! may be the last for a long time: it counts at once, while one that shows room only counts with those before it.

use weir_sdk::{QueueState, Stage, StageTime};

/// Share of a queue from which on it counts as full.
const FULL: f32 = 0.8;
/// Share of a queue up to which it counts as empty.
const EMPTY: f32 = 0.1;
/// How much of a queue's fill is taken over from a new look at it; the rest is what was seen before.
const WEIGHT: f32 = 0.3;
/// Pages a stage must have measured before its time counts.
const ENOUGH_PAGES: u32 = 4;

/// What was seen of the queues and stages.
#[derive(Debug, Default)]
pub(crate) struct Bottleneck {
    looks: u32,
    fill: [f32; Stage::ALL.len()],
    /// Whether the last look found it full.
    full: [bool; Stage::ALL.len()],
    millis: [f32; Stage::ALL.len()],
}

impl Bottleneck {
    /// Takes another look.
    pub(crate) fn look(&mut self, queues: &[QueueState], times: &[StageTime]) {
        let weight = if self.looks == 0 { 1.0 } else { WEIGHT };
        self.looks += 1;
        let seen = self.fill.iter_mut().zip(&mut self.full).zip(&mut self.millis);
        for (stage, ((fill, full), millis)) in Stage::ALL.into_iter().zip(seen) {
            let queue = queues.iter().find(|q| q.stage == stage);
            let now = queue.map_or(0.0, |q| q.depth as f32 / q.capacity.max(1) as f32);
            *fill += (now.min(1.0) - *fill) * weight;
            *full = now >= FULL;
            let time = times.iter().find(|t| t.stage == stage && t.pages >= ENOUGH_PAGES);
            let workers = queue.map_or(1, |q| q.workers.max(1));
            *millis = time.map_or(0.0, |t| t.millis_per_page / workers as f32);
        }
    }

    /// The stage, once something has been measured. Where `all_drawn`, drawing cannot be it: the queues were last looked at when
    /// the last batch was drawn, and on a short document that is before the later stages have got going.
    pub(crate) fn stage(&self, all_drawn: bool) -> Option<Stage> {
        let stages = || Stage::ALL.into_iter().zip(self.fill).zip(self.millis);
        if self.millis.iter().all(|millis| *millis <= 0.0) {
            return None;
        }
        let behind_raster = || stages().filter(|((stage, _), _)| *stage != Stage::Rasterize);
        let filled = Stage::ALL.into_iter().zip(self.fill).zip(self.full);
        let mut filled = filled.filter(|((stage, _), _)| *stage != Stage::Rasterize);
        if let Some(((stage, _), _)) = filled.rfind(|((_, fill), full)| *full || *fill >= FULL) {
            return Some(stage);
        }
        if !all_drawn && behind_raster().all(|((_, fill), _)| fill <= EMPTY) {
            return Some(Stage::Rasterize);
        }
        let slowest = stages()
            .filter(|((stage, _), millis)| *millis > 0.0 && !(all_drawn && *stage == Stage::Rasterize))
            .max_by(|(_, a), (_, b)| a.total_cmp(b));
        slowest.map(|((stage, _), _)| stage)
    }
}

/// What a stage does, for people.
pub(crate) fn activity(stage: Stage) -> &'static str {
    match stage {
        Stage::Rasterize => "drawing",
        Stage::Store => "storing",
        Stage::Read => "reading",
        Stage::Embed => "embedding",
        Stage::Upsert => "indexing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(fill: [u32; 5], millis: [f32; 5]) -> Option<Stage> {
        let mut bottleneck = Bottleneck::default();
        for _ in 0..10 {
            see(&mut bottleneck, fill, millis);
        }
        bottleneck.stage(false)
    }

    fn see(bottleneck: &mut Bottleneck, fill: [u32; 5], millis: [f32; 5]) {
        let queues: Vec<_> = Stage::ALL
            .into_iter()
            .zip(fill)
            .map(|(stage, depth)| QueueState {
                stage,
                depth,
                capacity: 10,
                workers: 2,
            })
            .collect();
        let times: Vec<_> = Stage::ALL
            .into_iter()
            .zip(millis)
            .map(|(stage, millis_per_page)| StageTime {
                stage,
                millis_per_page,
                pages: 16,
            })
            .collect();
        bottleneck.look(&queues, &times);
    }

    #[test]
    fn empty_queues_mean_that_drawing_is() {
        assert_eq!(
            look([10, 0, 0, 0, 0], [9.0, 1.0, 1.0, 1.0, 1.0]),
            Some(Stage::Rasterize)
        );
    }

    #[test]
    fn the_last_full_queue_decides() {
        assert_eq!(look([10, 0, 10, 0, 0], [1.0; 5]), Some(Stage::Read));
        assert_eq!(look([10, 0, 10, 10, 0], [1.0; 5]), Some(Stage::Embed));
        assert_eq!(look([10, 0, 10, 10, 9], [1.0; 5]), Some(Stage::Upsert));
    }

    #[test]
    fn a_queue_that_has_just_become_full_decides() {
        let mut bottleneck = Bottleneck::default();
        for _ in 0..5 {
            see(&mut bottleneck, [0; 5], [9.0, 1.0, 1.0, 0.0, 0.0]);
        }
        assert_eq!(bottleneck.stage(false), Some(Stage::Rasterize));
        see(&mut bottleneck, [0, 0, 7, 10, 0], [9.0, 1.0, 1.0, 0.0, 0.0]);
        assert_eq!(bottleneck.stage(false), Some(Stage::Embed));
    }

    #[test]
    fn between_full_and_empty_the_times_decide() {
        assert_eq!(
            look([0, 0, 5, 4, 0], [3.0, 1.0, 80.0, 20.0, 1.0]),
            Some(Stage::Read)
        );
    }

    #[test]
    fn drawing_is_not_blamed_once_everything_is_drawn() {
        let mut bottleneck = Bottleneck::default();
        see(&mut bottleneck, [6, 0, 0, 0, 0], [9.0, 1.0, 2.0, 0.0, 0.0]);
        assert_eq!(bottleneck.stage(false), Some(Stage::Rasterize));
        assert_eq!(bottleneck.stage(true), Some(Stage::Read));
        let mut early = Bottleneck::default();
        see(&mut early, [6, 0, 0, 0, 0], [9.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(early.stage(true), None);
    }

    #[test]
    fn one_look_does_not_overturn_many() {
        let mut bottleneck = Bottleneck::default();
        for _ in 0..10 {
            see(&mut bottleneck, [0, 0, 10, 0, 0], [1.0, 1.0, 50.0, 1.0, 1.0]);
        }
        see(&mut bottleneck, [0, 0, 0, 0, 0], [1.0, 1.0, 50.0, 1.0, 1.0]);
        assert_eq!(bottleneck.stage(false), Some(Stage::Read));
    }

    #[test]
    fn nothing_is_said_before_anything_is_measured() {
        assert_eq!(look([0; 5], [0.0; 5]), None);
        assert_eq!(Bottleneck::default().stage(false), None);
    }
}
