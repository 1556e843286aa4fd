//! The stage queues of one document, and the workers of the host that serve them.

use std::sync::{Arc, OnceLock};

use weir_core::Stage;
use weir_core::decision::{BatchPlan, QueueState, StageTiming};
use weir_core::ports::SchedulingContext;

use crate::busy_time::BusyTime;
use crate::ocr_image_limiter::{DocumentImageLimit, OcrImageLimiter};
use crate::resizable_semaphore::CapacityPermit;
use crate::stage_queue::{StageQueue, StageWorkers};

/// The workers of every stage, for the whole host.
pub(crate) struct HostWorkers {
    pub(crate) rasterize: StageWorkers,
    pub(crate) ocr_image_limiter: Arc<OcrImageLimiter>,
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
    /// Grants free slots of all stages to waiting pages; see `StageWorkers::recheck_waiters`.
    pub(crate) fn recheck_waiters(&self) {
        let all = [
            &self.rasterize,
            &self.store,
            &self.ocr,
            &self.text_layer,
            &self.vision,
            &self.embed,
            &self.upsert,
        ];
        all.into_iter().for_each(StageWorkers::recheck_waiters);
    }

    /// Returns the usual workers of a stage.
    pub(crate) const fn workers_of(&self, stage: Stage) -> &StageWorkers {
        match stage {
            Stage::Rasterize => &self.rasterize,
            Stage::Store => &self.store,
            Stage::Read => &self.ocr,
            Stage::Embed => &self.embed,
            Stage::Upsert => &self.upsert,
        }
    }
}

/// The stage queues of one document.
pub(crate) struct StageQueues {
    pub(crate) rasterize: StageQueue,
    pub(crate) store: StageQueue,
    /// The queue of lines that wait to be stored. It is separate from the queue of images, since each queue takes reservations
    /// from one stage only. Both queues use the same workers.
    pub(crate) lines: StageQueue,
    pub(crate) read: StageQueue,
    pub(crate) embed: StageQueue,
    pub(crate) upsert: StageQueue,
    ocr_image_limit: OnceLock<DocumentImageLimit>,
}

impl StageQueues {
    /// Creates queues with capacity 1, until the first batch is planned. Busy time is added to the totals of the job and of the
    /// document.
    pub(crate) fn new(seats: &HostWorkers, account: &SchedulingContext, spent: [&Arc<BusyTime>; 2]) -> Self {
        let room = |stage| StageQueue::new(stage, seats.workers_of(stage), account, spent);
        Self {
            rasterize: room(Stage::Rasterize),
            store: room(Stage::Store),
            lines: room(Stage::Store),
            read: room(Stage::Read),
            embed: room(Stage::Embed),
            upsert: room(Stage::Upsert),
            ocr_image_limit: OnceLock::new(),
        }
    }

    /// Waits until the document may have another page image in memory for OCR.
    pub(crate) async fn acquire_ocr_image(
        &self,
        workers: &HostWorkers,
        account: &SchedulingContext,
    ) -> CapacityPermit {
        let images = self
            .ocr_image_limit
            .get_or_init(|| workers.ocr_image_limiter.register_document(account));
        images.acquire().await
    }

    fn main_queues(&self) -> [&StageQueue; 5] {
        [
            &self.rasterize,
            &self.store,
            &self.read,
            &self.embed,
            &self.upsert,
        ]
    }

    /// Sets the capacity of each queue to the value of the batch plan.
    pub(crate) fn apply_plan(&self, plan: &BatchPlan) {
        let pages = plan.queue_capacity.max(1).saturating_mul(plan.pages.max(1));
        for room in self.main_queues().into_iter().chain([&self.lines]) {
            room.set_capacity(pages);
        }
    }

    /// Returns the states of the queues in stage order.
    pub(crate) fn queue_states(&self) -> Vec<QueueState> {
        self.main_queues().map(StageQueue::queue_state).into()
    }

    /// Returns the stage times in stage order.
    pub(crate) fn stage_times(&self) -> Vec<StageTiming> {
        self.main_queues().map(StageQueue::stage_time).into()
    }
}
