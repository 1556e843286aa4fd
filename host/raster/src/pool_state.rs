//! The part of the pool that its open documents and its supervisors share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::config::RasterConfig;
use crate::dispatcher::Dispatcher;
use crate::image_reservation::ImageReservation;
use crate::task::{DocumentFile, QueuedTask, TaskResult, WorkerTask};
use crate::worker_spawner::WorkerSpawner;

/// Counts since the pool started.
#[derive(Debug, Default)]
pub(crate) struct PoolCounters {
    pub(crate) workers_started: AtomicU64,
    pub(crate) workers_lost: AtomicU64,
    pub(crate) workers_recycled: AtomicU64,
    pub(crate) pages_processed: AtomicU64,
}

/// The part of the pool that open documents share.
#[derive(Debug)]
pub(crate) struct PoolState {
    pub(crate) config: Arc<RasterConfig>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) workers: u32,
    pub(crate) spawner: Arc<WorkerSpawner>,
    pub(crate) counters: Arc<PoolCounters>,
}

impl PoolState {
    /// Runs a task in a worker. A drawing task needs the reservation of its image memory.
    pub(crate) async fn run_task_in_worker(
        &self,
        document: &Arc<DocumentFile>,
        task: WorkerTask,
        reservation: Option<ImageReservation>,
    ) -> TaskResult {
        self.dispatcher
            .queue_task_and_await_result(|result_sender| QueuedTask {
                document: Arc::clone(document),
                task,
                reservation,
                result_sender,
            })
            .await
    }
}
