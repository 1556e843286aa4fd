//! The worker slots of the stages, which all documents of the host share.

use std::sync::Arc;

use weir_core::Stage;

use crate::engine_metrics::{QueueMetrics, WorkerMetrics};
use crate::fair_semaphore::FairSemaphore;
use crate::latency_boost::LatencyBoosts;
use crate::ocr_image_limiter::PerTenantOcrImageLimiter;
use crate::stage_busy_times::SlotKindAndCount;

/// The workers of every stage, for the whole host.
pub(crate) struct HostWorkers {
    pub(crate) rasterize: StageWorkers,
    pub(crate) ocr_image_limiter: Arc<PerTenantOcrImageLimiter>,
    pub(crate) store: StageWorkers,
    /// Workers that read pages by OCR.
    pub(crate) ocr: StageWorkers,
    /// Workers that read text layers. The PDF workers do that, not the models.
    pub(crate) text_layer: StageWorkers,
    /// Workers that wait for vision models. Each holds one page image.
    pub(crate) vision: StageWorkers,
    pub(crate) embed: StageWorkers,
    pub(crate) upsert: StageWorkers,
}

impl HostWorkers {
    /// Grants free slots of all stages to waiting pages; see `StageWorkers::grant_free_slots`.
    pub(crate) fn grant_free_slots(&self) {
        let all = [
            &self.rasterize,
            &self.store,
            &self.ocr,
            &self.text_layer,
            &self.vision,
            &self.embed,
            &self.upsert,
        ];
        all.into_iter().for_each(StageWorkers::grant_free_slots);
    }

    /// Returns the usual workers of a stage.
    pub(crate) const fn workers_of_stage(&self, stage: Stage) -> &StageWorkers {
        match stage {
            Stage::Rasterize => &self.rasterize,
            Stage::Store => &self.store,
            Stage::Read => &self.ocr,
            Stage::Embed => &self.embed,
            Stage::Upsert => &self.upsert,
        }
    }
}

/// The worker slots of one kind in a stage, shared by all documents of the host.
#[derive(Clone)]
pub(crate) struct StageWorkers {
    pub(crate) kind: SlotKindAndCount,
    pub(crate) slots: FairSemaphore,
    pub(crate) metrics: Arc<WorkerMetrics>,
    /// Metrics of the queues in front of the workers.
    pub(crate) queue_metrics: Arc<QueueMetrics>,
}

impl StageWorkers {
    /// Creates the workers of a stage with `count` slots, at least 1.
    pub(crate) fn new(stage: Stage, count: u32, boosts: &Arc<LatencyBoosts>) -> Self {
        Self::new_with_queue_metrics(
            stage.name(),
            count,
            boosts,
            Arc::new(QueueMetrics::for_stage_queue(stage)),
        )
    }

    /// Creates workers of another kind that serve the same queues. They have their own name in the metrics.
    pub(crate) fn new_kind_for_same_queues(
        &self,
        name: &'static str,
        count: u32,
        boosts: &Arc<LatencyBoosts>,
    ) -> Self {
        Self::new_with_queue_metrics(name, count, boosts, Arc::clone(&self.queue_metrics))
    }

    fn new_with_queue_metrics(
        name: &'static str,
        count: u32,
        boosts: &Arc<LatencyBoosts>,
        queue_metrics: Arc<QueueMetrics>,
    ) -> Self {
        let count = count.max(1);
        Self {
            kind: SlotKindAndCount { name, count },
            slots: FairSemaphore::new(count as usize, boosts),
            metrics: Arc::new(WorkerMetrics::for_worker_slots(name, count)),
            queue_metrics,
        }
    }

    /// Grants free slots to waiting pages. Called when a latency boost has ended, since that frees reserved slots.
    pub(crate) fn grant_free_slots(&self) {
        self.slots.grant_permits_to_waiters();
    }
}
