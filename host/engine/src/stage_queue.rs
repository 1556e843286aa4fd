//! The bounded queue of each document in front of a stage.
//!
//! Worker slots belong to the host, which has a fixed number of OCR sessions for example, and tenants share them fairly. Queues
//! belong to a document, and its batch plan sets their capacity. A page *reserves* capacity in the queues that follow before it
//! acquires a worker slot. So a page in a slot never waits for the stages behind it, and congestion in one document does not
//! delay another. There is one exception: a page that OCR reads reserves the next queues only after it was read, when it has
//! released its slot and its pixels (`read_stage.rs`). It keeps its reservation in the read queue until then.
//!
//! The queues are the backpressure between stages: pages that find a full queue do not acquire slots of the stage before it, so
//! its queue fills as well, and in the end no further pages are planned. A page is not even rasterized before the store and read
//! queues have capacity for it.
//!
//! Other limits hold pages back as well: the memory for page images (`OpenedPdf::reserve_page_memory`), the number of images in
//! memory for OCR (`ocr_image_limiter.rs`), the queue of the progress component (`event_log.rs`), the group commit
//! (`group_commit.rs`) and the queues of the models.
//!
//! Reservations follow the order of the stages, and each queue takes reservations from one stage only. So no two pages can wait
//! for each other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weir_core::Stage;
use weir_core::decision::{QueueState, StageTiming};
use weir_core::fair_queue::Flow;
use weir_core::ports::SchedulingContext;

use crate::fair_semaphore::Permit;
use crate::resizable_semaphore::{CapacityPermit, ResizableSemaphore};
use crate::stage_busy_times::StageBusyTimes;
use crate::stage_workers::StageWorkers;

/// The number of pages over which a stage time is averaged.
const STAGE_TIME_SAMPLES: usize = 16;

/// The bounded queue of one document in front of a stage.
#[derive(Clone)]
pub(crate) struct DocumentStageQueue(Arc<DocumentStageQueueInner>);

struct DocumentStageQueueInner {
    stage: Stage,
    workers: StageWorkers,
    capacity_permits: ResizableSemaphore,
    /// The flow under which pages acquire slots.
    flow: Arc<Flow>,
    depth: AtomicU32,
    /// The number of slots of the kind that a page acquired last.
    last_slot_count: AtomicU32,
    times: Mutex<RecentPageTimes>,
    /// The busy times of the job and of the document.
    busy_times: [Arc<StageBusyTimes>; 2],
}

impl Drop for DocumentStageQueueInner {
    fn drop(&mut self) {
        let metrics = &self.workers.queue_metrics;
        metrics
            .capacity
            .decrement(self.capacity_permits.capacity() as f64);
    }
}

#[derive(Default)]
struct RecentPageTimes {
    last: VecDeque<Duration>,
    pages: u32,
}

impl DocumentStageQueue {
    /// Creates a queue in front of `workers`, with capacity 1 until [`Self::set_capacity`].
    pub(crate) fn new(
        stage: Stage,
        workers: &StageWorkers,
        account: &SchedulingContext,
        busy_times: [&Arc<StageBusyTimes>; 2],
    ) -> Self {
        workers.queue_metrics.capacity.increment(1.0);
        Self(Arc::new(DocumentStageQueueInner {
            stage,
            workers: workers.clone(),
            capacity_permits: ResizableSemaphore::new(1),
            flow: Arc::new(Flow {
                lane: account.lane,
                tenant: account.tenant.clone(),
                group: account.group,
                weight: account.tenant_weight,
            }),
            depth: AtomicU32::new(0),
            last_slot_count: AtomicU32::new(workers.kind.count),
            times: Mutex::default(),
            busy_times: busy_times.map(Arc::clone),
        }))
    }

    /// Changes the capacity. Pages in the queue stay, even if they exceed the new capacity.
    pub(crate) fn set_capacity(&self, pages: u32) {
        let before = self.0.capacity_permits.set_capacity(pages as usize);
        let now = self.0.capacity_permits.capacity();
        let metrics = &self.0.workers.queue_metrics;
        metrics.capacity.increment(now as f64 - before as f64);
    }

    /// Waits for capacity and reserves it for a page that will be enqueued.
    pub(crate) async fn reserve(&self) -> QueueReservation {
        QueueReservation {
            permit: self.0.capacity_permits.acquire().await,
            queue: self.clone(),
        }
    }

    /// Waits until the queue has capacity for a page, without reserving it.
    pub(crate) async fn await_capacity(&self) {
        drop(self.reserve().await);
    }

    /// Puts a page back into the queue for another attempt, without waiting for capacity. The queue can exceed its capacity by at
    /// most the number of pages that were in slots. Waiting for capacity while holding a slot could deadlock.
    pub(crate) fn requeue_over_capacity(&self) -> QueuedPage {
        let reservation = QueueReservation {
            permit: self.0.capacity_permits.acquire_over_capacity(),
            queue: self.clone(),
        };
        reservation.enqueue()
    }

    /// Returns the state of the queue, for policies and events.
    pub(crate) fn queue_state(&self) -> QueueState {
        QueueState {
            stage: self.0.stage,
            depth: self.0.depth.load(Ordering::Relaxed),
            capacity: u32::try_from(self.0.capacity_permits.capacity()).unwrap_or(u32::MAX),
            workers: self.0.last_slot_count.load(Ordering::Relaxed),
        }
    }

    /// Returns the mean time of the document's last pages in this stage.
    pub(crate) fn mean_stage_time(&self) -> StageTiming {
        let times = self.0.times.lock();
        let sum: Duration = times.last.iter().sum();
        StageTiming {
            stage: self.0.stage,
            millis_per_page: sum.as_secs_f32() * 1000.0 / times.last.len().max(1) as f32,
            pages: times.pages,
        }
    }
}

/// Reserved capacity in a stage queue for a page that is not enqueued yet.
pub(crate) struct QueueReservation {
    permit: CapacityPermit,
    queue: DocumentStageQueue,
}

impl QueueReservation {
    /// Enqueues the page.
    pub(crate) fn enqueue(self) -> QueuedPage {
        self.queue.0.depth.fetch_add(1, Ordering::Relaxed);
        self.queue.0.workers.queue_metrics.depth.increment(1.0);
        QueuedPage {
            permit: Some(self.permit),
            queue: self.queue,
        }
    }
}

/// A page in a stage queue.
pub(crate) struct QueuedPage {
    permit: Option<CapacityPermit>,
    queue: DocumentStageQueue,
}

impl QueuedPage {
    /// Waits for a worker slot of the stage, and leaves the queue.
    pub(crate) async fn leave_queue_for_worker_slot(self) -> WorkerSlotPermit {
        let workers = self.queue.0.workers.clone();
        self.acquire_slot_of_workers(&workers).await
    }

    /// Waits for a worker slot of the stage, and leaves the queue. The queue capacity stays reserved until the returned permit is
    /// dropped.
    pub(crate) async fn acquire_slot_keeping_reservation(
        mut self,
    ) -> (WorkerSlotPermit, Option<CapacityPermit>) {
        let reservation = self.permit.take();
        (self.leave_queue_for_worker_slot().await, reservation)
    }

    /// Waits for a slot of the given workers instead of the stage's own, and leaves the queue.
    pub(crate) async fn acquire_slot_of_workers(self, workers: &StageWorkers) -> WorkerSlotPermit {
        let permit = workers.slots.acquire(&self.queue.0.flow).await;
        let since = Instant::now();
        workers.metrics.busy.increment(1.0);
        let queue = &self.queue.0;
        queue.last_slot_count.store(workers.kind.count, Ordering::Relaxed);
        for busy_time in &queue.busy_times {
            busy_time.record_slot_acquired(queue.stage, workers.kind, since);
        }
        WorkerSlotPermit {
            queue: self.queue.clone(),
            since,
            workers: workers.clone(),
            _permit: permit,
        }
    }
}

impl Drop for QueuedPage {
    fn drop(&mut self) {
        self.queue.0.depth.fetch_sub(1, Ordering::Relaxed);
        self.queue.0.workers.queue_metrics.depth.decrement(1.0);
    }
}

/// A worker slot that a page holds, until it is dropped.
pub(crate) struct WorkerSlotPermit {
    _permit: Permit,
    queue: DocumentStageQueue,
    since: Instant,
    workers: StageWorkers,
}

impl Drop for WorkerSlotPermit {
    fn drop(&mut self) {
        self.workers.metrics.busy.decrement(1.0);
        for busy_time in &self.queue.0.busy_times {
            busy_time.record_slot_released(self.queue.0.stage, self.workers.kind, self.since);
        }
    }
}

impl WorkerSlotPermit {
    /// Records that `pages` pages were finished in the time since the slot was acquired, and returns that time. Do not
    /// call it for failed work: only finished pages count in the stage times.
    pub(crate) fn record_finished_pages(&self, pages: u32) -> Duration {
        let took = self.since.elapsed();
        let each = took / pages.max(1);
        self.workers
            .metrics
            .seconds
            .record_many(each.as_secs_f64(), pages as usize);
        for busy_time in &self.queue.0.busy_times {
            busy_time.record_pages_done(self.queue.0.stage, self.workers.kind, pages);
        }
        let mut times = self.queue.0.times.lock();
        for _ in 0..pages.min(STAGE_TIME_SAMPLES as u32) {
            if times.last.len() == STAGE_TIME_SAMPLES {
                times.last.pop_front();
            }
            times.last.push_back(each);
        }
        times.pages = times.pages.saturating_add(pages);
        took
    }

    /// Releases the slot and puts the page back into the queue for another attempt.
    pub(crate) fn release_and_requeue(self) -> QueuedPage {
        self.queue.requeue_over_capacity()
    }
}

#[cfg(test)]
mod tests;
