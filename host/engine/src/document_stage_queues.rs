//! The stage queues of one document.

use std::sync::{Arc, OnceLock};

use weir_core::Stage;
use weir_core::decision::{NextBatchPlan, QueueState, StageTiming};
use weir_core::ports::SchedulingContext;

use crate::ocr_image_limiter::DocumentOcrImageLimiter;
use crate::resizable_semaphore::CapacityPermit;
use crate::stage_busy_times::StageBusyTimes;
use crate::stage_queue::DocumentStageQueue;
use crate::stage_workers::HostWorkers;

/// The stage queues of one document.
pub(crate) struct DocumentStageQueues {
    pub(crate) rasterize: DocumentStageQueue,
    pub(crate) store: DocumentStageQueue,
    /// The queue of lines that wait to be stored. It is separate from the queue of images (`store`): the rasterize stage reserves
    /// capacity for images, the read stage for lines. A queue with reservations from two stages could cause a deadlock (see
    /// `stage_queue.rs`). Both queues use the same workers.
    pub(crate) lines: DocumentStageQueue,
    pub(crate) read: DocumentStageQueue,
    pub(crate) embed: DocumentStageQueue,
    pub(crate) upsert: DocumentStageQueue,
    ocr_image_limit: OnceLock<DocumentOcrImageLimiter>,
}

impl DocumentStageQueues {
    /// Creates queues with capacity 1, until the first batch is planned. Busy time is added to the totals of the job and of the
    /// document.
    pub(crate) fn new(
        workers: &HostWorkers,
        account: &SchedulingContext,
        busy_times: [&Arc<StageBusyTimes>; 2],
    ) -> Self {
        let queue =
            |stage| DocumentStageQueue::new(stage, workers.workers_of_stage(stage), account, busy_times);
        Self {
            rasterize: queue(Stage::Rasterize),
            store: queue(Stage::Store),
            lines: queue(Stage::Store),
            read: queue(Stage::Read),
            embed: queue(Stage::Embed),
            upsert: queue(Stage::Upsert),
            ocr_image_limit: OnceLock::new(),
        }
    }

    /// Waits until the document may have another page image in memory for OCR.
    pub(crate) async fn acquire_ocr_image_permit(
        &self,
        workers: &HostWorkers,
        account: &SchedulingContext,
    ) -> CapacityPermit {
        let images = self
            .ocr_image_limit
            .get_or_init(|| workers.ocr_image_limiter.register_document(account));
        images.acquire().await
    }

    fn queues_in_stage_order(&self) -> [&DocumentStageQueue; 5] {
        [
            &self.rasterize,
            &self.store,
            &self.read,
            &self.embed,
            &self.upsert,
        ]
    }

    /// Sets the capacity of each queue, in pages: the number of batches that the plan allows in a queue times the pages of a
    /// batch.
    pub(crate) fn set_capacities_from_plan(&self, plan: &NextBatchPlan) {
        let pages = plan.queue_capacity.max(1).saturating_mul(plan.pages.max(1));
        for queue in self.queues_in_stage_order().into_iter().chain([&self.lines]) {
            queue.set_capacity(pages);
        }
    }

    /// Returns the states of the queues in stage order.
    pub(crate) fn queue_states(&self) -> Vec<QueueState> {
        self.queues_in_stage_order()
            .map(DocumentStageQueue::queue_state)
            .into()
    }

    /// Returns the stage times in stage order.
    pub(crate) fn mean_stage_times(&self) -> Vec<StageTiming> {
        self.queues_in_stage_order()
            .map(DocumentStageQueue::mean_stage_time)
            .into()
    }
}
