//! The ports, the configuration and the shared state of the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weir_core::llm::LanguageModel;
use weir_core::ports::{BlobStore, Embedder, Ledger, OcrEngine, PolicyFactory, Rasterizer, VectorStore};
use weir_core::settings::Settings;
use weir_core::usage::{UsageMeter, UsageQuotaLimiter};

use crate::document_locks::DocumentLockMap;
use crate::engine_metrics::JobAndPageMetrics;
use crate::group_commit::GroupCommit;
use crate::job_handle::ActiveJobs;
use crate::latency_boost::LatencyBoosts;
use crate::stage_workers::HostWorkers;

/// The implementations that do the engine's work.
#[derive(Clone)]
pub struct PortImplementations {
    /// Rasterizes PDFs.
    pub rasterizer: Arc<dyn Rasterizer>,
    /// Recognizes text; `None` if no model is installed. A page that needs OCR then fails its document.
    pub ocr_engine: Option<Arc<dyn OcrEngine>>,
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
            max_commit_delay: Duration::from_millis(settings.engine_ledger_commit_interval_millis.into()),
            max_commit_entries: settings.engine_ledger_entries_per_commit as usize,
            cancel_grace: Duration::from_millis(settings.engine_cancel_timeout_millis.into()),
            latency_boost: Duration::from_millis(settings.engine_latency_boost_millis.into()),
            model_timeout: Duration::from_secs(settings.llm_request_deadline_seconds.into()),
            vision: VisionConfig::from_settings(settings),
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self::from_settings(&Settings::default())
    }
}

/// The limits and the prompt for reading pages by vision models; see the settings `vision.…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisionConfig {
    /// Pages that are at vision models at the same time, at least 1.
    pub workers: u32,
    /// The longest side of an image, in pixels. The default is the most that Anthropic's models use. GPT-4o uses 768 × 1086 pixels
    /// of an A4 page, and olmOCR was trained on 1288.
    pub longest_side: u32,
    /// The most tokens of a response.
    pub max_tokens: u32,
    /// The timeout for reading a page.
    pub timeout: Duration,
    /// The prompt; `None` for the default prompt, which asks for the page as Markdown.
    pub prompt: Option<String>,
}

impl VisionConfig {
    /// Takes the values from the settings.
    pub fn from_settings(settings: &Settings) -> Self {
        Self {
            workers: settings.vision_max_concurrent_pages,
            longest_side: settings.vision_max_image_side_pixels,
            max_tokens: settings.vision_max_page_tokens,
            timeout: Duration::from_secs(settings.vision_page_timeout_seconds.into()),
            prompt: Some(settings.vision_prompt.clone()).filter(|prompt| !prompt.trim().is_empty()),
        }
    }
}

/// The state that all jobs share.
pub(crate) struct EngineState {
    pub(crate) ports: PortImplementations,
    pub(crate) config: EngineConfig,
    pub(crate) workers: HostWorkers,
    pub(crate) latency_boosts: Arc<LatencyBoosts>,
    pub(crate) group_commit: GroupCommit,
    pub(crate) document_locks: Arc<DocumentLockMap>,
    pub(crate) active_jobs: Arc<ActiveJobs>,
    pub(crate) metrics: JobAndPageMetrics,
    pub(crate) last_scheduling_group: AtomicU64,
}

impl EngineState {
    /// Returns a number for a job or a run of a document, whose work shares models fairly with that of others. Never 0.
    pub(crate) fn new_scheduling_group_id(&self) -> u64 {
        self.last_scheduling_group.fetch_add(1, Ordering::Relaxed) + 1
    }
}
