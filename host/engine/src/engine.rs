//! The engine: starts, finds and ends jobs.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Instrument as _;
use weir_core::{JobId, Stage, StorageError};

use crate::engine_metrics::JobAndPageMetrics;
use crate::engine_state::{EngineConfig, EngineState, PortImplementations};
use crate::group_commit::GroupCommit;
use crate::job_handle::JobHandle;
use crate::job_run;
use crate::job_spec::JobSpec;
use crate::latency_boost::LatencyBoosts;
use crate::ocr_image_limiter::PerTenantOcrImageLimiter;
use crate::stage_workers::{HostWorkers, StageWorkers};

/// Runs jobs. Dropping the engine aborts its jobs, as a crash would. [`Engine::cancel_jobs_and_shutdown`] cancels them and
/// commits their results.
pub struct Engine {
    pub(crate) state: Arc<EngineState>,
    running: Mutex<RunningTasks>,
}

#[derive(Default)]
struct RunningTasks {
    jobs: JoinSet<()>,
    commit_writer: JoinSet<()>,
}

impl Engine {
    /// Creates an engine without jobs.
    ///
    /// Must be called inside a tokio runtime, which runs the engine's tasks. A metrics recorder must be installed before.
    pub fn new(ports: PortImplementations, config: EngineConfig) -> Self {
        let (group_commit, writing) = GroupCommit::new(
            Arc::clone(&ports.blobs),
            Arc::clone(&ports.vectors),
            Arc::clone(&ports.ledger),
            config.max_commit_delay,
            config.max_commit_entries,
        );
        let mut running = RunningTasks::default();
        running.commit_writer.spawn(writing);
        let rasterizing = ports.rasterizer.worker_count();
        let reading = ports
            .ocr_engine
            .as_ref()
            .map_or(1, |reader| reader.worker_count());
        let boosts = Arc::new(LatencyBoosts::new(config.latency_boost));
        let ocr = StageWorkers::new(Stage::Read, reading, &boosts);
        let workers = HostWorkers {
            rasterize: StageWorkers::new(Stage::Rasterize, rasterizing, &boosts),
            ocr_image_limiter: PerTenantOcrImageLimiter::new(reading, rasterizing),
            store: StageWorkers::new(Stage::Store, config.store_workers, &boosts),
            text_layer: ocr.new_kind_for_same_queues("text-layer", rasterizing, &boosts),
            vision: ocr.new_kind_for_same_queues("vision", config.vision.workers, &boosts),
            ocr,
            embed: StageWorkers::new(Stage::Embed, ports.embedder.worker_count(), &boosts),
            upsert: StageWorkers::new(Stage::Upsert, config.upsert_workers, &boosts),
        };
        Self {
            state: Arc::new(EngineState {
                ports,
                config,
                workers,
                latency_boosts: boosts,
                group_commit,
                document_locks: Arc::default(),
                active_jobs: Arc::default(),
                metrics: JobAndPageMetrics::new(),
                last_scheduling_group: AtomicU64::new(0),
            }),
            running: Mutex::new(running),
        }
    }

    /// Starts a job, or resumes one that the ledger knows: see [`JobSpec`]. If the job is already active, returns the handle of
    /// the active job.
    ///
    /// The job's spans become children of the current span, so the caller enters a span of the job first.
    pub fn start_or_resume_job(&self, spec: JobSpec) -> JobHandle {
        let mut running = self.running.lock();
        while running.jobs.try_join_next().is_some() {}
        if let Some(handle) = self.state.active_jobs.get(&spec.id) {
            return handle;
        }
        let (handle, run) = job_run::register_and_prepare_job_run(Arc::clone(&self.state), spec);
        running.jobs.spawn(run.in_current_span());
        handle
    }

    /// Returns the handle of a job if it is active.
    pub fn active_job(&self, id: &JobId) -> Option<JobHandle> {
        self.state.active_jobs.get(id)
    }

    /// Checks that results of jobs can be stored now: commits the pending ledger entries and flushes the index.
    pub async fn check_writable_by_committing(&self) -> Result<(), StorageError> {
        self.state.group_commit.commit_pending().await?;
        self.state.ports.vectors.flush_points().await
    }

    /// Returns the ports that the engine works with.
    pub fn port_implementations(&self) -> &PortImplementations {
        &self.state.ports
    }

    /// Cancels every job and waits up to `grace` until they have ended. Then drops the remaining jobs, commits the pending
    /// ledger entries and closes the group commit, so no job can be started afterwards. No task of the engine runs when this
    /// returns. An error means that the last entries could not be written.
    pub async fn cancel_jobs_and_shutdown(&self, grace: Duration) -> Result<(), StorageError> {
        self.stop_jobs_and_close_commit(grace, JobHandle::cancel_job)
            .await
    }

    /// Like [`Self::cancel_jobs_and_shutdown`], but suspends the jobs. No further page is started and pages in flight get
    /// `grace` to finish. The group commit is closed here as well. A job that has not ended by then stays in the ledger as
    /// running. The next engine resumes it under the same id.
    pub async fn suspend_jobs_and_shutdown(&self, grace: Duration) -> Result<(), StorageError> {
        self.stop_jobs_and_close_commit(grace, |job| job.suspend_job(grace))
            .await
    }

    async fn stop_jobs_and_close_commit(
        &self,
        grace: Duration,
        stop: impl Fn(&JobHandle),
    ) -> Result<(), StorageError> {
        let RunningTasks {
            mut jobs,
            mut commit_writer,
        } = std::mem::take(&mut *self.running.lock());
        self.state.active_jobs.all_handles().iter().for_each(stop);
        if timeout(grace, async { while jobs.join_next().await.is_some() {} })
            .await
            .is_err()
        {
            tracing::warn!(
                jobs = jobs.len(),
                "jobs did not end within the grace period and are dropped"
            );
        }
        jobs.shutdown().await;
        let written = self.state.group_commit.commit_and_close().await;
        while commit_writer.join_next().await.is_some() {}
        written
    }
}
