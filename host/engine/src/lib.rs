//! Runs ingestion jobs from the first to the last event, through ports (traits) alone.
//!
//! ```text
//!  job ─► document ─► plan ─► page ─┬─ rasterize ─┬─ store image
//!                                   │             └─ read ─┬─ store lines
//!                                   │                      └─ passages ─ embed ─ upsert
//!                                   └─► event log ─► group commit ─► ledger
//! ```
//!
//! The engine itself does not rasterize, recognize, embed or store. The [`Ports`] do that work. The engine decides in which
//! order the steps run, how many run at once, what follows a failure, and when a page or document counts as done. The tenant's
//! components decide which pages come next, at which resolution, how they are read and where their text is cut. The engine
//! calls them through a port as well.
//!
//! All waiting uses tokio's clock and all durable state is in the ports. So the same engine runs against fakes in virtual
//! time, and it can be killed at any moment.

mod active_documents;
mod active_jobs;
mod batch_planner;
mod batch_tracker;
mod bottleneck;
mod busy_time;
mod document_context;
mod document_deletion;
mod document_hash;
mod document_ingestion;
mod document_queue;
mod engine_metrics;
mod error;
mod event_log;
mod existing_pages;
mod failure_action;
mod fair_semaphore;
mod group_commit;
mod job_capabilities;
mod job_context;
mod job_handle;
mod job_outcome;
mod job_run;
mod job_spec;
mod latency_boost;
mod model_request_tracker;
mod ocr_image_limiter;
mod page_scheduler;
mod page_task;
mod passage_indexing;
mod rasterize_stage;
mod read_stage;
mod resizable_semaphore;
mod search;
mod stage_queue;
mod stage_queues;
mod stop_signal;
mod summarization;
mod trace_spans;
mod upsert_writer;
mod vision_reading;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Instrument as _;
use weir_core::llm::LanguageModel;
use weir_core::ports::{BlobStore, Embedder, Ledger, OcrEngine, PolicyFactory, Rasterizer, VectorStore};
use weir_core::settings::Settings;
use weir_core::usage::{UsageMeter, UsageQuotaLimiter};
use weir_core::{JobId, Stage, StorageError};

use crate::active_documents::ActiveDocuments;
use crate::active_jobs::ActiveJobs;
use crate::engine_metrics::EngineMetrics;
use crate::group_commit::GroupCommit;
use crate::latency_boost::LatencyBoosts;
use crate::ocr_image_limiter::OcrImageLimiter;
use crate::stage_queue::StageWorkers;
use crate::stage_queues::HostWorkers;

pub use document_deletion::DeleteError;
pub use error::FAILURE_LOG_TARGET;
pub use job_handle::JobHandle;
pub use job_outcome::{DocumentEndState, DocumentOutcome, JobOutcome};
pub use job_spec::{DocumentSpec, JobSpec};
pub use search::{SearchError, SearchRequest};
pub use vision_reading::VisionConfig;

/// The implementations that do the engine's work.
#[derive(Clone)]
pub struct Ports {
    /// Rasterizes PDFs.
    pub rasterizer: Arc<dyn Rasterizer>,
    /// Recognizes text; `None` if no model is installed. A page that needs OCR then fails its document.
    pub reader: Option<Arc<dyn OcrEngine>>,
    /// Embeds texts as vectors.
    pub embedder: Arc<dyn Embedder>,
    /// Reads pages that are routed to a vision model, summarizes, and serves the requests of components; `None` if no model is
    /// set up.
    pub language_model: Option<Arc<dyn LanguageModel>>,
    /// Stores page images and lines.
    pub blobs: Arc<dyn BlobStore>,
    /// Stores passages and searches them.
    pub vectors: Arc<dyn VectorStore>,
    /// Records jobs, documents, pages and events.
    pub ledger: Arc<dyn Ledger>,
    /// Opens tenants' components.
    pub policies: Arc<dyn PolicyFactory>,
    /// Counts the pages that ended for each tenant; `None` if usage is not metered.
    pub meter: Option<Arc<dyn UsageMeter>>,
    /// Reserves pages before they are processed; `None` if tenants have no quotas.
    pub quotas: Option<Arc<dyn UsageQuotaLimiter>>,
}

/// Limits and times of the engine; see the settings `engine.…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Documents of one job that are processed at the same time, at least 1.
    pub max_active_documents: usize,
    /// Blobs that are written at once, at least 1.
    pub store_workers: u32,
    /// Concurrent writes to the index, at least 1. One document never has more than one write in flight.
    pub upsert_workers: u32,
    /// The longest time that a ledger entry waits for other entries of its commit.
    pub max_commit_delay: Duration,
    /// The number of pending ledger entries that starts a commit at once, at least 1.
    pub max_commit_entries: usize,
    /// The time that pages in flight get to finish after their job is cancelled.
    pub cancel_grace: Duration,
    /// The longest time that a job may go ahead of other tenants' jobs; zero for no boosts. Jobs in the bulk lane get no boost,
    /// nor does a job whose tenant already has an active job without a boost.
    pub latency_boost: Duration,
    /// The longest time of a language model request, with all waiting and all attempts.
    pub model_timeout: Duration,
    /// The reading of pages by vision models.
    pub vision: VisionConfig,
}

impl EngineConfig {
    /// Takes the values from the settings.
    pub fn from_settings(settings: &Settings) -> Self {
        Self {
            max_active_documents: settings.engine_max_concurrent_documents_per_job as usize,
            store_workers: settings.engine_image_store_workers,
            upsert_workers: settings.engine_index_upsert_workers,
            max_commit_delay: Duration::from_millis(settings.engine_commit_interval_millis.into()),
            max_commit_entries: settings.engine_max_commit_entries as usize,
            cancel_grace: Duration::from_millis(settings.engine_cancel_timeout_millis.into()),
            latency_boost: Duration::from_millis(settings.engine_latency_boost_millis.into()),
            model_timeout: Duration::from_secs(settings.llm_request_timeout_seconds.into()),
            vision: VisionConfig::from_settings(settings),
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self::from_settings(&Settings::default())
    }
}

/// Runs jobs. Dropping the engine drops its jobs where they are, as a crash would; [`Engine::shutdown`] ends them in order.
pub struct Engine {
    state: Arc<EngineState>,
    running: Mutex<RunningTasks>,
}

/// The state that all jobs share.
pub(crate) struct EngineState {
    ports: Ports,
    config: EngineConfig,
    workers: HostWorkers,
    latency_boosts: Arc<LatencyBoosts>,
    group_commit: GroupCommit,
    active_documents: Arc<ActiveDocuments>,
    active_jobs: Arc<ActiveJobs>,
    metrics: EngineMetrics,
    last_scheduling_group: AtomicU64,
}

impl EngineState {
    /// Returns a number for a job or a run of a document, whose work shares models fairly with that of others. Never 0.
    fn new_scheduling_group(&self) -> u64 {
        self.last_scheduling_group.fetch_add(1, Ordering::Relaxed) + 1
    }
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
    pub fn new(ports: Ports, config: EngineConfig) -> Self {
        let (journal, writing) = GroupCommit::new(
            Arc::clone(&ports.blobs),
            Arc::clone(&ports.vectors),
            Arc::clone(&ports.ledger),
            config.max_commit_delay,
            config.max_commit_entries,
        );
        let mut running = RunningTasks::default();
        running.commit_writer.spawn(writing);
        let drawing = ports.rasterizer.worker_count();
        let head_starts = Arc::new(LatencyBoosts::new(config.latency_boost));
        let reading = ports.reader.as_ref().map_or(1, |reader| reader.worker_count());
        let ocr = StageWorkers::new(Stage::Read, reading, &head_starts);
        let seats = HostWorkers {
            rasterize: StageWorkers::new(Stage::Rasterize, drawing, &head_starts),
            ocr_image_limiter: OcrImageLimiter::new(reading, drawing),
            store: StageWorkers::new(Stage::Store, config.store_workers, &head_starts),
            text_layer: ocr.new_sharing_queues("text-layer", drawing, &head_starts),
            vision: ocr.new_sharing_queues("vision", config.vision.workers, &head_starts),
            ocr,
            embed: StageWorkers::new(Stage::Embed, ports.embedder.worker_count(), &head_starts),
            upsert: StageWorkers::new(Stage::Upsert, config.upsert_workers, &head_starts),
        };
        Self {
            state: Arc::new(EngineState {
                ports,
                config,
                workers: seats,
                latency_boosts: head_starts,
                group_commit: journal,
                active_documents: Arc::default(),
                active_jobs: Arc::default(),
                metrics: EngineMetrics::new(),
                last_scheduling_group: AtomicU64::new(0),
            }),
            running: Mutex::new(running),
        }
    }

    /// Starts a job, or resumes one that the ledger knows: see [`JobSpec`]. If the job is already active, returns the handle of
    /// the active job.
    ///
    /// The job's spans become children of the current span, so the caller enters a span of the job first.
    pub fn start_job(&self, spec: JobSpec) -> JobHandle {
        let mut running = self.running.lock();
        while running.jobs.try_join_next().is_some() {}
        if let Some(handle) = self.state.active_jobs.get(&spec.id) {
            return handle;
        }
        let (handle, run) = job_run::prepare_job_run(Arc::clone(&self.state), spec);
        running.jobs.spawn(run.in_current_span());
        handle
    }

    /// Returns the handle of a job if it is active.
    pub fn active_job(&self, id: &JobId) -> Option<JobHandle> {
        self.state.active_jobs.get(id)
    }

    /// Checks that results of jobs can be stored now: commits the pending ledger entries and flushes the index.
    pub async fn check_writable(&self) -> Result<(), StorageError> {
        self.state.group_commit.commit_pending().await?;
        self.state.ports.vectors.flush_points().await
    }

    /// Returns the ports that the engine works with.
    pub fn ports(&self) -> &Ports {
        &self.state.ports
    }

    /// Cancels every job and waits up to `grace` for their ends. Then drops the remaining jobs and commits the pending ledger
    /// entries. No task of the engine runs when this returns. An error means that the last entries could not be written.
    pub async fn shutdown(&self, grace: Duration) -> Result<(), StorageError> {
        self.stop_jobs_and_commit(grace, JobHandle::cancel_job).await
    }

    /// Like [`Self::shutdown`], but suspends the jobs. No further page is started and pages in flight get `grace` to finish.
    /// A job that has not ended by then stays in the ledger as running. The next engine resumes it under the same id.
    pub async fn suspend_all_jobs(&self, grace: Duration) -> Result<(), StorageError> {
        self.stop_jobs_and_commit(grace, |job| job.suspend_job(grace))
            .await
    }

    async fn stop_jobs_and_commit(
        &self,
        grace: Duration,
        stop: impl Fn(&JobHandle),
    ) -> Result<(), StorageError> {
        let RunningTasks {
            mut jobs,
            commit_writer: mut journal,
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
        while journal.join_next().await.is_some() {}
        written
    }
}
