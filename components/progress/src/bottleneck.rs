//! Finds the stage that limits the speed of a document.
//!
//! Pages accumulate in front of the slowest stage, and the queues after it stay empty. If no queue fills, the rasterizer is the
//! slowest. A full queue blocks the previous stage until that stage's queue is full too, so if several queues are full, the last one
//! counts. If no queue is nearly full, the times of the stages decide.
//!
//! The queues are sampled when a batch has been rasterized. A full queue can stop the rasterizer, so a sample with a full queue may be
//! the last one for a long time. It counts at once, while a sample with free space is only averaged with the earlier ones.

use weir_sdk::{QueueState, Stage, StageTime};

/// Fill ratio from which a queue counts as full.
const FULL_RATIO: f32 = 0.8;
/// Fill ratio up to which a queue counts as empty.
const EMPTY_RATIO: f32 = 0.1;
/// Weight of a new sample in the moving average of a queue's fill ratio.
const NEW_SAMPLE_WEIGHT: f32 = 0.3;
/// Number of pages after which a stage's time is used.
const MIN_MEASURED_PAGES: u32 = 4;

/// Detects the slowest stage from samples of the queues and stage times.
#[derive(Debug, Default)]
pub(crate) struct BottleneckDetector {
    samples: u32,
    fill: [f32; Stage::ALL.len()],
    /// Whether the queue was full in the last sample.
    full: [bool; Stage::ALL.len()],
    millis: [f32; Stage::ALL.len()],
}

impl BottleneckDetector {
    /// Adds a sample.
    pub(crate) fn add_sample(&mut self, queues: &[QueueState], times: &[StageTime]) {
        let weight = if self.samples == 0 { 1.0 } else { NEW_SAMPLE_WEIGHT };
        self.samples += 1;
        let seen = self.fill.iter_mut().zip(&mut self.full).zip(&mut self.millis);
        for (stage, ((fill, full), millis)) in Stage::ALL.into_iter().zip(seen) {
            let queue = queues.iter().find(|q| q.stage == stage);
            let now = queue.map_or(0.0, |q| q.depth as f32 / q.capacity.max(1) as f32);
            *fill += (now.min(1.0) - *fill) * weight;
            *full = now >= FULL_RATIO;
            let time = times
                .iter()
                .find(|t| t.stage == stage && t.pages >= MIN_MEASURED_PAGES);
            let workers = queue.map_or(1, |q| q.workers.max(1));
            *millis = time.map_or(0.0, |t| t.millis_per_page / workers as f32);
        }
    }

    /// Returns the slowest stage, or `None` before anything has been measured. Once all pages are rasterized it is never the
    /// rasterizer: the last sample is from the last batch, which on a short document is before the later stages have started.
    pub(crate) fn slowest_stage(&self, all_rasterized: bool) -> Option<Stage> {
        let stages = || Stage::ALL.into_iter().zip(self.fill).zip(self.millis);
        if self.millis.iter().all(|millis| *millis <= 0.0) {
            return None;
        }
        let behind_raster = || stages().filter(|((stage, _), _)| *stage != Stage::Rasterize);
        let filled = Stage::ALL.into_iter().zip(self.fill).zip(self.full);
        let mut filled = filled.filter(|((stage, _), _)| *stage != Stage::Rasterize);
        if let Some(((stage, _), _)) = filled.rfind(|((_, fill), full)| *full || *fill >= FULL_RATIO) {
            return Some(stage);
        }
        if !all_rasterized && behind_raster().all(|((_, fill), _)| fill <= EMPTY_RATIO) {
            return Some(Stage::Rasterize);
        }
        let slowest = stages()
            .filter(|((stage, _), millis)| *millis > 0.0 && !(all_rasterized && *stage == Stage::Rasterize))
            .max_by(|(_, a), (_, b)| a.total_cmp(b));
        slowest.map(|((stage, _), _)| stage)
    }
}

/// Describes the activity of a stage for users.
pub(crate) fn stage_activity(stage: Stage) -> &'static str {
    match stage {
        Stage::Rasterize => "rasterizing",
        Stage::Store => "storing",
        Stage::Read => "reading",
        Stage::Embed => "embedding",
        Stage::Upsert => "indexing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage_after_samples(fill: [u32; 5], millis: [f32; 5]) -> Option<Stage> {
        let mut bottleneck = BottleneckDetector::default();
        for _ in 0..10 {
            add_test_sample(&mut bottleneck, fill, millis);
        }
        bottleneck.slowest_stage(false)
    }

    fn add_test_sample(bottleneck: &mut BottleneckDetector, fill: [u32; 5], millis: [f32; 5]) {
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
        bottleneck.add_sample(&queues, &times);
    }

    #[test]
    fn empty_queues_mean_that_the_rasterizer_is_slowest() {
        assert_eq!(
            stage_after_samples([10, 0, 0, 0, 0], [9.0, 1.0, 1.0, 1.0, 1.0]),
            Some(Stage::Rasterize)
        );
    }

    #[test]
    fn last_stage_with_a_full_queue_is_the_bottleneck() {
        assert_eq!(
            stage_after_samples([10, 0, 10, 0, 0], [1.0; 5]),
            Some(Stage::Read)
        );
        assert_eq!(
            stage_after_samples([10, 0, 10, 10, 0], [1.0; 5]),
            Some(Stage::Embed)
        );
        assert_eq!(
            stage_after_samples([10, 0, 10, 10, 9], [1.0; 5]),
            Some(Stage::Upsert)
        );
    }

    #[test]
    fn stage_whose_queue_has_just_become_full_is_the_bottleneck() {
        let mut bottleneck = BottleneckDetector::default();
        for _ in 0..5 {
            add_test_sample(&mut bottleneck, [0; 5], [9.0, 1.0, 1.0, 0.0, 0.0]);
        }
        assert_eq!(bottleneck.slowest_stage(false), Some(Stage::Rasterize));
        add_test_sample(&mut bottleneck, [0, 0, 7, 10, 0], [9.0, 1.0, 1.0, 0.0, 0.0]);
        assert_eq!(bottleneck.slowest_stage(false), Some(Stage::Embed));
    }

    #[test]
    fn slowest_stage_is_the_bottleneck_if_queues_are_partly_full() {
        assert_eq!(
            stage_after_samples([0, 0, 5, 4, 0], [3.0, 1.0, 80.0, 20.0, 1.0]),
            Some(Stage::Read)
        );
    }

    #[test]
    fn rasterizer_is_not_slowest_once_all_pages_are_rasterized() {
        let mut bottleneck = BottleneckDetector::default();
        add_test_sample(&mut bottleneck, [6, 0, 0, 0, 0], [9.0, 1.0, 2.0, 0.0, 0.0]);
        assert_eq!(bottleneck.slowest_stage(false), Some(Stage::Rasterize));
        assert_eq!(bottleneck.slowest_stage(true), Some(Stage::Read));
        let mut early = BottleneckDetector::default();
        add_test_sample(&mut early, [6, 0, 0, 0, 0], [9.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(early.slowest_stage(true), None);
    }

    #[test]
    fn one_sample_does_not_outweigh_many() {
        let mut bottleneck = BottleneckDetector::default();
        for _ in 0..10 {
            add_test_sample(&mut bottleneck, [0, 0, 10, 0, 0], [1.0, 1.0, 50.0, 1.0, 1.0]);
        }
        add_test_sample(&mut bottleneck, [0, 0, 0, 0, 0], [1.0, 1.0, 50.0, 1.0, 1.0]);
        assert_eq!(bottleneck.slowest_stage(false), Some(Stage::Read));
    }

    #[test]
    fn no_stage_is_named_before_anything_is_measured() {
        assert_eq!(stage_after_samples([0; 5], [0.0; 5]), None);
        assert_eq!(BottleneckDetector::default().slowest_stage(false), None);
    }
}
