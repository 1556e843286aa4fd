//! Supervises one worker: runs tasks one by one, and replaces a worker that dies or hangs.
//!
//! A task on a single page is retried once if its worker is lost. The retry runs in a new process, because earlier pages may have
//! damaged the first one. If the second worker is lost as well, the page fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use crate::config::RasterConfig;
use crate::dispatcher::{Dispatcher, IdleWorker, SupervisorCommand};
use crate::pool_state::PoolCounters;
use crate::task::{QueuedTask, TaskResult, TaskResultSender, WorkerTask, pool_closed_error};
use crate::worker_process::WorkerProcess;
use crate::worker_spawner::WorkerSpawner;

/// Log target of the records about lost workers. The retry or failure of a page is also an event of its job, so a command that
/// shows events hides these records.
pub const LOST_WORKERS_LOG_TARGET: &str = "weir_raster::lost_workers";

pub(crate) struct WorkerSupervisor {
    pub(crate) slot: usize,
    pub(crate) config: Arc<RasterConfig>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) spawner: Arc<WorkerSpawner>,
    pub(crate) counters: Arc<PoolCounters>,
}

impl WorkerSupervisor {
    /// Runs commands until the pool is closed.
    pub(crate) async fn run_commands(self, mut commands: mpsc::UnboundedReceiver<SupervisorCommand>) {
        let mut process = None;
        while let Some(command) = commands.recv().await {
            match command {
                SupervisorCommand::RunTask(queued_task) => {
                    let (reply, outcome) = self.run_task_with_retry(&mut process, queued_task).await;
                    if process
                        .take_if(|p| p.pages_processed >= self.config.max_pages_per_worker)
                        .is_some()
                    {
                        self.counters.workers_recycled.fetch_add(1, Ordering::Relaxed);
                    }
                    // Marked idle before the result is sent, so that a caller with a follow-up task finds the same worker.
                    self.dispatcher.mark_worker_idle(IdleWorker {
                        slot: self.slot,
                        worker_id: process.as_ref().map(|p| p.id),
                        open_documents: process
                            .as_ref()
                            .map(WorkerProcess::keys_of_open_documents)
                            .unwrap_or_default(),
                    });
                    drop(reply.send(outcome));
                }
                SupervisorCommand::CloseDocument(document) => {
                    if let Some(worker) = &mut process
                        && worker.close_document(document).await.is_err()
                    {
                        worker.kill_and_reap().await;
                        process = None;
                    }
                }
            }
        }
    }

    /// Runs a task, with one retry if it kills the worker. The reserved bytes are released before the result is sent, unless they
    /// are part of it.
    async fn run_task_with_retry(
        &self,
        process: &mut Option<WorkerProcess>,
        mut queued_task: QueuedTask,
    ) -> (TaskResultSender, TaskResult) {
        let mut outcome = Err(pool_closed_error());
        // A worker that ended between two tasks is not the fault of this task and does not use up an attempt.
        if let Some(mut exited_worker) = process.take_if(|p| p.has_exited()) {
            let exit_description = exited_worker.kill_and_reap().await;
            self.counters.workers_lost.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                pid = exited_worker.pid,
                exit_description,
                "an idle PDF worker ended"
            );
        }
        for _try in 0..2 {
            let worker = match process {
                Some(worker) => worker,
                None => match WorkerProcess::start(&self.config, &self.dispatcher, &self.spawner).await {
                    Ok(started) => {
                        self.counters.workers_started.fetch_add(1, Ordering::Relaxed);
                        process.insert(started)
                    }
                    Err(error) => return (queued_task.result_sender, Err(error)),
                },
            };
            let worker_exit = match worker.run_task(&self.config, &mut queued_task).await {
                Ok(task_result) => {
                    outcome = task_result;
                    break;
                }
                Err(worker_exit) => worker_exit,
            };
            let exit_description = worker.kill_and_reap().await;
            let pid = worker.pid;
            *process = None;
            self.counters.workers_lost.fetch_add(1, Ordering::Relaxed);
            let task = &queued_task.task;
            if matches!(task, WorkerTask::RunProbe(_)) {
                tracing::debug!(
                    pid,
                    ?worker_exit,
                    exit_description,
                    ?task,
                    "the sandbox killed a worker that tried a forbidden operation"
                );
            } else {
                tracing::warn!(target: LOST_WORKERS_LOG_TARGET, pid, ?worker_exit, exit_description, ?task, "a PDF worker was lost");
            }
            outcome = Err(worker_exit.to_raster_error(&exit_description, task));
            if queued_task.result_sender.is_closed() || !task.is_retryable_in_new_worker() {
                break;
            }
        }
        let pages = u64::from(queued_task.task.processed_page_count());
        self.counters.pages_processed.fetch_add(pages, Ordering::Relaxed);
        (queued_task.result_sender, outcome)
    }
}
