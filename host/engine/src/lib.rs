//! A job from plan to done, on ports alone.
//!
//! ```text
//!  job ─► document ─► plan ─► page ─┬─ draw ─┬─ store image
//!                                   │        └─ read ─┬─ store lines
//!                                   │                 └─ passages ─ embed ─ upsert
//!                                   └─► event log ─► journal ─► ledger
//! ```
//!
//! Nothing here draws, recognizes, embeds or stores: the engine only knows who does ([`Ports`]) and in what order, how much
//! may be under way at once, what follows a failure and when something may be called done. Which pages, how finely, read
//! by what, cut where: the tenant's components decide that, through a port like any other. All waiting is on tokio's clock
//! and all state in the ports, so the same engine runs against fakes in virtual time, and can be killed at any moment.

mod batch;
mod capabilities;
mod delete;
mod diagnosis;
mod document;
mod draw;
mod events;
mod failure;
mod gate;
mod halt;
mod handle;
mod head_start;
mod history;
mod identity;
mod in_work;
mod job;
mod jobs;
mod journal;
mod line;
mod lineup;
mod measures;
mod model_requests;
mod ocr_images;
mod outcome;
mod page;
mod pages;
mod past;
mod plan;
mod read;
mod rooms;
mod run;
mod search;
mod spans;
mod spec;
mod spent;
mod stage;
mod summaries;
mod text;
mod upsert;
mod verdict;
mod vision;
mod work;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Instrument as _;
use weir_core::language::LanguageModel;
use weir_core::ports::{BlobStore, Embedder, Ledger, Policies, Rasterizer, Reader, VectorStore};
use weir_core::settings::Settings;
use weir_core::usage::{Meter, UsageQuotas};
use weir_core::{JobId, Stage, StorageError};

use crate::head_start::HeadStarts;
use crate::in_work::InWork;
use crate::jobs::Jobs;
use crate::journal::Journal;
use crate::measures::JobMeasures;
use crate::ocr_images::OcrImages;
use crate::rooms::HostSeats;
use crate::stage::Seats;

pub use delete::DeleteError;
pub use failure::FAILURES;
pub use handle::JobHandle;
pub use outcome::{DocumentEnd, DocumentOutcome, JobOutcome};
pub use search::{SearchError, SearchRequest};
pub use spec::{DocumentSpec, JobSpec};
pub use vision::VisionConfig;

/// Who does the work.
#[derive(Clone)]
pub struct Ports {
    /// Draws PDFs.
    pub rasterizer: Arc<dyn Rasterizer>,
    /// Recognizes text, if a model is installed. A page that needs it without one fails its document.
    pub reader: Option<Arc<dyn Reader>>,
    /// Makes vectors.
    pub embedder: Arc<dyn Embedder>,
    /// Reads pages that are routed to a vision model, summarizes, and answers components' questions, if a model is installed.
    pub language_model: Option<Arc<dyn LanguageModel>>,
    /// Keeps page images and lines.
    pub blobs: Arc<dyn BlobStore>,
    /// Finds passages.
    pub vectors: Arc<dyn VectorStore>,
    /// Writes down what is done.
    pub ledger: Arc<dyn Ledger>,
    /// Opens tenants' components.
    pub policies: Arc<dyn Policies>,
    /// Hears of pages that ended, if tenants' usage is metered.
    pub meter: Option<Arc<dyn Meter>>,
    /// Reserves pages before they are worked on, if tenants have quotas.
    pub quotas: Option<Arc<dyn UsageQuotas>>,
}

/// How the engine works; see the settings `engine.…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Documents of one job in work at the same time, at least 1.
    pub documents: usize,
    /// Blobs written at once, at least 1.
    pub store_workers: u32,
    /// Writes to the index at once, at least 1. One document never has more than one under way.
    pub upsert_workers: u32,
    /// Longest wait of a ledger entry for others.
    pub commit_every: Duration,
    /// Ledger entries that are written without waiting further, at least 1.
    pub commit_entries: usize,
    /// Time that pages in flight have when their job is cancelled.
    pub cancel_grace: Duration,
    /// How long a job that someone waits for, of a tenant with nothing else in work, may go ahead of other tenants'.
    pub head_start: Duration,
    /// How long a question to a language model may take, with all waiting and all tries.
    pub patience: Duration,
    /// How pages are read by vision models.
    pub vision: VisionConfig,
}

impl EngineConfig {
    /// What the settings say.
    pub fn from_settings(settings: &Settings) -> Self {
        Self {
            documents: settings.engine_documents as usize,
            store_workers: settings.engine_store_workers,
            upsert_workers: settings.engine_upsert_workers,
            commit_every: Duration::from_millis(settings.engine_commit_millis.into()),
            commit_entries: settings.engine_commit_entries as usize,
            cancel_grace: Duration::from_millis(settings.engine_cancel_millis.into()),
            head_start: Duration::from_millis(settings.engine_head_start_millis.into()),
            patience: Duration::from_secs(settings.llm_patience_seconds.into()),
            vision: VisionConfig::from_settings(settings),
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self::from_settings(&Settings::default())
    }
}

/// Runs jobs. Dropping it drops them where they are, as a crash would; [`Engine::shutdown`] ends them well.
pub struct Engine {
    host: Arc<Host>,
    running: Mutex<Running>,
}

/// What all jobs share.
pub(crate) struct Host {
    ports: Ports,
    config: EngineConfig,
    seats: HostSeats,
    head_starts: Arc<HeadStarts>,
    journal: Journal,
    in_work: Arc<InWork>,
    jobs: Arc<Jobs>,
    measures: JobMeasures,
}

#[derive(Default)]
struct Running {
    jobs: JoinSet<()>,
    journal: JoinSet<()>,
}

impl Engine {
    /// An engine without jobs. Must be called inside a tokio runtime, which its tasks run on, and after the recorder of
    /// metrics has been installed, if there is to be one.
    pub fn new(ports: Ports, config: EngineConfig) -> Self {
        let (journal, writing) = Journal::open(
            Arc::clone(&ports.blobs),
            Arc::clone(&ports.vectors),
            Arc::clone(&ports.ledger),
            config.commit_every,
            config.commit_entries,
        );
        let mut running = Running::default();
        running.journal.spawn(writing);
        let drawing = ports.rasterizer.workers();
        let head_starts = Arc::new(HeadStarts::new(config.head_start));
        let reading = ports.reader.as_ref().map_or(1, |reader| reader.workers());
        let ocr = Seats::new(Stage::Read, reading, &head_starts);
        let seats = HostSeats {
            rasterize: Seats::new(Stage::Rasterize, drawing, &head_starts),
            ocr_images: OcrImages::new(reading, drawing),
            store: Seats::new(Stage::Store, config.store_workers, &head_starts),
            text_layer: ocr.beside("text-layer", drawing, &head_starts),
            vision: ocr.beside("vision", config.vision.workers, &head_starts),
            ocr,
            embed: Seats::new(Stage::Embed, ports.embedder.workers(), &head_starts),
            upsert: Seats::new(Stage::Upsert, config.upsert_workers, &head_starts),
        };
        Self {
            host: Arc::new(Host {
                ports,
                config,
                seats,
                head_starts,
                journal,
                in_work: Arc::default(),
                jobs: Arc::default(),
                measures: JobMeasures::new(),
            }),
            running: Mutex::new(running),
        }
    }

    /// Starts a job, or goes on with one that the ledger knows: see [`JobSpec`]. One that is in work already is not started
    /// twice; the handle is then of that one.
    ///
    /// What the job does is traced below the span that is current now, which the caller makes one of the job.
    pub fn start(&self, spec: JobSpec) -> JobHandle {
        let mut running = self.running.lock();
        while running.jobs.try_join_next().is_some() {}
        if let Some(handle) = self.host.jobs.get(&spec.id) {
            return handle;
        }
        let (handle, run) = run::prepare(Arc::clone(&self.host), spec);
        running.jobs.spawn(run.in_current_span());
        handle
    }

    /// A job that is in work.
    pub fn job(&self, id: &JobId) -> Option<JobHandle> {
        self.host.jobs.get(id)
    }

    /// Whether what jobs make can be kept now. Writes down what waits for it, and asks the index whether it has room.
    pub async fn writable(&self) -> Result<(), StorageError> {
        self.host.journal.sync().await?;
        self.host.ports.vectors.flush().await
    }

    /// What the engine stands on.
    pub fn ports(&self) -> &Ports {
        &self.host.ports
    }

    /// Cancels every job, lets them end within `grace`, drops those that do not, and writes down what is done. Nothing of
    /// the engine runs when it returns. An error says that the last entries could not be written.
    pub async fn shutdown(&self, grace: Duration) -> Result<(), StorageError> {
        self.end(grace, JobHandle::cancel).await
    }

    /// As [`Self::shutdown`], but jobs are not cancelled: no further page is begun, pages in flight may end within `grace`, and
    /// a job that has not ended by then stays in the ledger as running, to be started again under its id by the next engine.
    pub async fn suspend(&self, grace: Duration) -> Result<(), StorageError> {
        self.end(grace, |job| job.suspend(grace)).await
    }

    async fn end(&self, grace: Duration, stop: impl Fn(&JobHandle)) -> Result<(), StorageError> {
        let Running {
            mut jobs,
            mut journal,
        } = std::mem::take(&mut *self.running.lock());
        self.host.jobs.all().iter().for_each(stop);
        if timeout(grace, async { while jobs.join_next().await.is_some() {} })
            .await
            .is_err()
        {
            tracing::warn!(jobs = jobs.len(), "jobs did not end in time and are dropped");
        }
        jobs.shutdown().await;
        let written = self.host.journal.close().await;
        while journal.join_next().await.is_some() {}
        written
    }
}
