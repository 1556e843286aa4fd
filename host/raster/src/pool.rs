//! The pool: worker processes behind the port.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use weir_core::error::RasterError;
use weir_core::ports::{OpenDocument, Rasterizer, Source};
use weir_core::settings::{SandboxMode, Settings};

use crate::desk::{Desk, Hold};
use crate::document::{self, Lease};
use crate::keeper::{Keeper, Tally};
use crate::nursery::Nursery;
use crate::process::Process;
use crate::protocol::{Probe, Sandbox};
use crate::work::{Opened, Outcome, Served, Ticket, Work};

/// How PDFs are drawn.
#[derive(Debug, Clone)]
pub struct RasterConfig {
    /// Program and arguments that end in [`crate::worker_main`].
    pub worker_command: Vec<OsString>,
    /// The PDFium library.
    pub pdfium: PathBuf,
    /// Processes; 0: one for each core.
    pub workers: u32,
    /// Bytes of page images on the whole host.
    pub image_bytes: u64,
    /// Bytes of one page image.
    pub page_bytes: u64,
    /// Deadline of a page, from its start in a worker.
    pub page_seconds: u32,
    /// Deadline without progress.
    pub stall_seconds: u32,
    /// Pages after which a worker is replaced.
    pub recycle_pages: u32,
    /// Bytes of private memory of a worker.
    pub worker_bytes: u64,
    /// Pages a document may have.
    pub max_pages: u32,
    /// Quality of encoded images, 1 to 100.
    pub jpeg_quality: u32,
    /// Whether a worker must be locked in.
    pub sandbox: SandboxMode,
}

impl RasterConfig {
    /// What `settings` say.
    pub fn new(settings: &Settings, worker_command: Vec<OsString>, pdfium: PathBuf) -> Self {
        Self {
            worker_command,
            pdfium,
            workers: settings.raster_workers,
            image_bytes: settings.raster_image_bytes,
            page_bytes: settings.raster_page_bytes,
            page_seconds: settings.raster_page_seconds,
            stall_seconds: settings.raster_stall_seconds,
            recycle_pages: settings.raster_recycle_pages,
            worker_bytes: settings.raster_worker_bytes,
            max_pages: settings.raster_max_pages,
            jpeg_quality: settings.raster_jpeg_quality,
            sandbox: settings.raster_sandbox,
        }
    }

    /// Bytes of the largest image that is drawn.
    pub(crate) fn largest_image(&self) -> u64 {
        self.page_bytes.min(self.image_bytes)
    }
}

/// What has happened in a pool since it began, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RasterCounters {
    /// Processes started.
    pub started: u64,
    /// Processes that died or were stuck.
    pub lost: u64,
    /// Processes replaced for their age.
    pub recycled: u64,
    /// Pages drawn, read or measured.
    pub pages: u64,
    /// Requests waiting for a worker or for memory.
    pub queued: u64,
    /// The most bytes that page images ever took, images kept for reuse included.
    pub peak_image_bytes: u64,
}

/// PDFium in worker processes.
///
/// Dropping it kills and reaps them all, blocking for as long as the kernel takes; requests under way end in
/// [`RasterError::Unavailable`]. Page images outlive it.
#[derive(Debug)]
pub struct RasterPool {
    shared: Arc<Shared>,
    keepers: Mutex<JoinSet<()>>,
}

/// What open documents keep of their pool.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Arc<RasterConfig>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) workers: u32,
    nursery: Arc<Nursery>,
    tally: Arc<Tally>,
}

impl Shared {
    /// Has something done by a worker, and drawing with the memory that was reserved for it.
    pub(crate) async fn request(&self, document: &Arc<Opened>, work: Work, hold: Option<Hold>) -> Served {
        self.desk
            .request(|reply| Ticket {
                document: Arc::clone(document),
                work,
                hold,
                reply,
            })
            .await
    }
}

impl RasterPool {
    /// A pool. Processes start when they are first needed. To be called inside a tokio runtime.
    pub fn new(config: RasterConfig) -> Result<Self, RasterError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = match config.workers {
            0 => u32::try_from(cores).unwrap_or(1),
            workers => workers,
        };
        let nursery =
            Nursery::new(config.worker_command.clone()).map_err(|error| RasterError::Unavailable {
                what: "the thread that starts PDF workers".into(),
                remedy: error.to_string(),
            })?;
        let (nursery, config, tally) = (Arc::new(nursery), Arc::new(config), Arc::new(Tally::default()));
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let desk = Desk::new(config.image_bytes, senders);
        let mut keepers = JoinSet::new();
        for (slot, errands) in receivers.into_iter().enumerate() {
            let keeper = Keeper {
                slot,
                config: Arc::clone(&config),
                desk: Arc::clone(&desk),
                nursery: Arc::clone(&nursery),
                tally: Arc::clone(&tally),
            };
            keepers.spawn(keeper.keep(errands));
        }
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                desk,
                workers,
                nursery,
                tally,
            }),
            keepers: Mutex::new(keepers),
        })
    }

    /// Starts a worker and ends it: [`RasterError::Unavailable`] if none can be had, or none that is locked in as
    /// [`RasterConfig::sandbox`] asks.
    pub async fn check(&self) -> Result<(), RasterError> {
        let shared = &self.shared;
        let mut process = Process::start(&shared.config, &shared.desk, &shared.nursery).await?;
        process.bury().await;
        Ok(())
    }

    /// What has happened so far.
    pub fn counters(&self) -> RasterCounters {
        let tally = &self.shared.tally;
        RasterCounters {
            started: tally.started.load(Ordering::Relaxed),
            lost: tally.lost.load(Ordering::Relaxed),
            recycled: tally.recycled.load(Ordering::Relaxed),
            pages: tally.pages.load(Ordering::Relaxed),
            queued: self.shared.desk.queued() as u64,
            peak_image_bytes: self.shared.desk.peak_image_bytes(),
        }
    }

    /// Ends the pool and waits for its tasks. Requests under way end in [`RasterError::Unavailable`].
    pub async fn close(&self) {
        self.shared.desk.close();
        self.shared.nursery.close();
        let mut keepers = std::mem::take(&mut *self.keepers.lock());
        while keepers.join_next().await.is_some() {}
    }
}

impl Drop for RasterPool {
    fn drop(&mut self) {
        self.shared.desk.close();
        self.shared.nursery.close();
    }
}

#[async_trait]
impl Rasterizer for RasterPool {
    async fn open(&self, source: &Source) -> Result<Arc<dyn OpenDocument>, RasterError> {
        let opened = document::look(source, self.shared.desk.key()).await?;
        let lease = Lease::new(opened, Arc::clone(&self.shared));
        Ok(Arc::new(document::open(lease).await?))
    }

    fn workers(&self) -> u32 {
        self.shared.workers
    }

    fn free_image_bytes(&self) -> u64 {
        self.shared.desk.free_image_bytes()
    }
}

/// What the kernel does to lock a worker in, tried and seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxReport {
    /// What the worker could set up.
    pub sandbox: Sandbox,
    /// What a worker got away with that it must not; empty if all is well.
    pub leaks: Vec<Probe>,
}

/// Starts workers, one for each probe, and lets them try what they must not be able to do.
pub async fn sandbox_report(config: &RasterConfig) -> Result<SandboxReport, RasterError> {
    let shared = RasterPool::new(RasterConfig {
        workers: 1,
        // What is missing is what the report is for.
        sandbox: SandboxMode::BestEffort,
        ..config.clone()
    })?;
    let Shared {
        config,
        desk,
        nursery,
        ..
    } = &*shared.shared;
    let sandbox = {
        let mut process = Process::start(config, desk, nursery).await?;
        process.bury().await;
        process.sandbox
    };
    let nothing = Arc::new(document::nothing(desk.key())?);
    let mut leaks = Vec::new();
    for probe in Probe::ALL {
        match shared.shared.request(&nothing, Work::Probe(probe), None).await {
            // Refused by an error, or by the end of the process.
            Ok(Outcome::Probed(false)) | Err(RasterError::WorkerDied { .. }) => {}
            Ok(_) => leaks.push(probe),
            Err(error) => return Err(error),
        }
    }
    shared.close().await;
    Ok(SandboxReport { sandbox, leaks })
}
