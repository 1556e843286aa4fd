//! A pool of worker processes that implements the port `Rasterizer`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use weir_core::error::RasterError;
use weir_core::ports::{OpenedPdf, PdfFileToOpen, Rasterizer};
use weir_core::settings::SandboxMode;

use crate::config::RasterConfig;
use crate::dispatcher::Dispatcher;
use crate::document::{self, WorkerDocumentHandle};
use crate::pool_state::{PoolCounters, PoolState};
use crate::protocol::{SandboxProbe, SandboxStatus};
use crate::task::{TaskOutput, WorkerTask};
use crate::worker_process::WorkerProcess;
use crate::worker_spawner::WorkerSpawner;
use crate::worker_supervisor::WorkerSupervisor;

/// Counts since the pool started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RasterCounters {
    /// Worker processes started.
    pub workers_started: u64,
    /// Worker processes that died or hung.
    pub workers_lost: u64,
    /// Worker processes replaced after their maximum number of pages.
    pub workers_recycled: u64,
    /// Pages drawn, read or measured.
    pub pages_processed: u64,
    /// Requests that wait for a worker or for memory.
    pub queued_requests: u64,
    /// The most bytes that page images and cached segments ever took together.
    pub peak_image_bytes: u64,
}

/// Draws and reads PDFs in worker processes that run PDFium.
///
/// Dropping it kills and reaps all workers and blocks until the kernel has ended them. Pending requests fail with
/// [`RasterError::Unavailable`]. Page images outlive the pool.
#[derive(Debug)]
pub struct RasterPool {
    state: Arc<PoolState>,
    supervisors: Mutex<JoinSet<()>>,
}

impl RasterPool {
    /// Creates a pool; must be called inside a tokio runtime. Worker processes start when they are first needed.
    pub fn new(config: RasterConfig) -> Result<Self, RasterError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = match config.workers {
            0 => u32::try_from(cores).unwrap_or(1),
            workers => workers,
        };
        let spawner =
            WorkerSpawner::new(config.worker_command.clone()).map_err(|error| RasterError::Unavailable {
                what: "the thread that starts PDF workers".into(),
                remedy: error.to_string(),
            })?;
        let (spawner, config, counters) = (
            Arc::new(spawner),
            Arc::new(config),
            Arc::new(PoolCounters::default()),
        );
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let dispatcher = Dispatcher::new(config.max_image_bytes, senders);
        let mut supervisors = JoinSet::new();
        for (slot, commands) in receivers.into_iter().enumerate() {
            let supervisor = WorkerSupervisor {
                slot,
                config: Arc::clone(&config),
                dispatcher: Arc::clone(&dispatcher),
                spawner: Arc::clone(&spawner),
                counters: Arc::clone(&counters),
            };
            supervisors.spawn(supervisor.run_commands(commands));
        }
        Ok(Self {
            state: Arc::new(PoolState {
                config,
                dispatcher,
                workers,
                spawner,
                counters,
            }),
            supervisors: Mutex::new(supervisors),
        })
    }

    /// Starts a worker and ends it again. Fails with [`RasterError::Unavailable`] if no worker starts, or if its sandbox is weaker
    /// than [`RasterConfig::sandbox_mode`] requires.
    pub async fn check_worker_starts(&self) -> Result<(), RasterError> {
        let state = &self.state;
        let mut process = WorkerProcess::start(&state.config, &state.dispatcher, &state.spawner).await?;
        process.kill_and_reap().await;
        Ok(())
    }

    /// Returns the counts since the pool started.
    pub fn snapshot_counters(&self) -> RasterCounters {
        let tally = &self.state.counters;
        RasterCounters {
            workers_started: tally.workers_started.load(Ordering::Relaxed),
            workers_lost: tally.workers_lost.load(Ordering::Relaxed),
            workers_recycled: tally.workers_recycled.load(Ordering::Relaxed),
            pages_processed: tally.pages_processed.load(Ordering::Relaxed),
            queued_requests: self.state.dispatcher.queued_request_count() as u64,
            peak_image_bytes: self.state.dispatcher.peak_image_bytes(),
        }
    }

    /// Closes the pool and waits for its supervisors. Pending requests fail with [`RasterError::Unavailable`].
    pub async fn close(&self) {
        self.state.dispatcher.close();
        self.state.spawner.close();
        let mut supervisors = std::mem::take(&mut *self.supervisors.lock());
        while supervisors.join_next().await.is_some() {}
    }
}

impl Drop for RasterPool {
    fn drop(&mut self) {
        self.state.dispatcher.close();
        self.state.spawner.close();
    }
}

#[async_trait]
impl Rasterizer for RasterPool {
    async fn open_document(&self, source: &PdfFileToOpen) -> Result<Arc<dyn OpenedPdf>, RasterError> {
        let opened =
            document::open_and_check_source_file(source, self.state.dispatcher.allocate_unique_key()).await?;
        let handle = WorkerDocumentHandle::new(opened, Arc::clone(&self.state));
        Ok(Arc::new(document::open_document_in_worker(handle).await?))
    }

    fn worker_count(&self) -> u32 {
        self.state.workers
    }

    fn available_image_bytes(&self) -> u64 {
        self.state.dispatcher.available_image_bytes()
    }
}

/// The sandbox of a worker, as measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxReport {
    /// The mechanisms that the worker could enable.
    pub status: SandboxStatus,
    /// Forbidden operations that the sandbox did not block; empty if it works.
    pub unblocked_probes: Vec<SandboxProbe>,
}

/// Starts a worker and lets it try each operation that the sandbox must block.
pub async fn probe_sandbox(config: &RasterConfig) -> Result<SandboxReport, RasterError> {
    let pool = RasterPool::new(RasterConfig {
        workers: 1,
        // The report has to show what is missing, so nothing is required.
        sandbox_mode: SandboxMode::BestEffort,
        ..config.clone()
    })?;
    let PoolState {
        config,
        dispatcher,
        spawner,
        ..
    } = &*pool.state;
    let sandbox = {
        let mut process = WorkerProcess::start(config, dispatcher, spawner).await?;
        process.kill_and_reap().await;
        process.sandbox
    };
    let no_document = Arc::new(document::placeholder_document_file(
        dispatcher.allocate_unique_key(),
    )?);
    let mut unblocked_probes = Vec::new();
    for probe in SandboxProbe::ALL {
        match pool
            .state
            .run_task_in_worker(&no_document, WorkerTask::RunProbe(probe), None)
            .await
        {
            // The sandbox blocked the operation with an error or killed the process.
            Ok(TaskOutput::ProbeFinished(false)) | Err(RasterError::WorkerDied { .. }) => {}
            Ok(_) => unblocked_probes.push(probe),
            Err(error) => return Err(error),
        }
    }
    pool.close().await;
    Ok(SandboxReport {
        status: sandbox,
        unblocked_probes,
    })
}
