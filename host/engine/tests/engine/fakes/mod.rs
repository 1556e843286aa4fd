//! Fake ports that count calls, take time and fail on demand. They simulate time and faults only. Real PDFs and models are tested
//! elsewhere.

#![allow(dead_code, unused_imports)] // the benchmark uses a part of it

mod models;
mod policy;
mod stores;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use weir_core::Stage;
use weir_core::id::{DocumentId, TenantId};
use weir_core::llm::LanguageModel;
use weir_core::manifest::{Manifest, ResolvedPipeline};
use weir_core::ports::Ledger;
use weir_engine::{DocumentSpec, Engine, EngineConfig, JobSpec, PortImplementations};

pub use models::{FakeEmbedder, FakeRasterizer, FakeReader};
pub use policy::{DEFAULT_PLAN, FakePolicies, PolicyScript, route_with_all_steps};
pub use stores::{FakeBlobs, FakeLedger, FakeVectors};

/// A fault that a stage meets with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectedFault {
    /// The page fails.
    Page,
    /// The model or the rasterizer is not installed.
    Unavailable,
    /// The store is full.
    Full,
    /// The port panics.
    Panic,
    /// The call never returns.
    Hang,
}

/// Returns the fault of a stage, page and attempt, which counts from 1.
pub type FaultInjector = dyn Fn(Stage, u32, u32) -> Option<InjectedFault> + Send + Sync;

/// Counts the calls of a stage, and its concurrent calls.
#[derive(Default)]
pub struct CallCounter {
    pub call_count: AtomicU64,
    in_flight: AtomicU32,
    max_in_flight: AtomicU32,
}

impl CallCounter {
    pub fn start_call(self: &Arc<Self>) -> CallGuard {
        self.call_count.fetch_add(1, Ordering::SeqCst);
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.max_in_flight.fetch_max(now, Ordering::SeqCst);
        CallGuard(Arc::clone(self))
    }

    pub fn call_count(&self) -> u64 {
        self.call_count.load(Ordering::SeqCst)
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub fn max_in_flight(&self) -> u32 {
        self.max_in_flight.load(Ordering::SeqCst)
    }
}

/// Counts a call as in flight until it is dropped.
pub struct CallGuard(Arc<CallCounter>);

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The costs, faults and call counts of every stage, shared by all fakes of a host.
pub struct FakeStages {
    /// The time that a page takes in a stage.
    pub page_costs: Mutex<HashMap<Stage, Duration>>,
    /// The time that reading a text layer takes; `None` for the time of OCR.
    pub text_layer_cost: Mutex<Option<Duration>>,
    /// Whether pages take from 60 to 140 % of their cost, as real ones do. With equal times a busy host would run in lockstep.
    pub varies_costs: AtomicBool,
    /// The number of cores that all stages share, so that concurrent work gets slower; 0 for no limit.
    pub cores: AtomicU32,
    busy: AtomicU32,
    pub faults: Mutex<Arc<FaultInjector>>,
    attempts: Mutex<HashMap<(Stage, u32), u32>>,
    pub call_counters: HashMap<Stage, Arc<CallCounter>>,
    /// Page images with pixels in memory.
    pub live_images: Arc<CallCounter>,
    /// The memory for page images of all tenants, in pages.
    pub image_memory: Mutex<Arc<Semaphore>>,
    /// All encoded page images.
    pub encoded: Mutex<Vec<Weak<[u8]>>>,
    /// The page whose lines cannot be stored; 0 for none.
    pub page_with_unstorable_lines: AtomicU32,
    /// Calls that fetch page facts.
    pub facts_calls: Arc<CallCounter>,
    /// The number of the flush or removal that hangs after it has done its work; 0 for none.
    pub steps_until_hang: AtomicU32,
    /// Whether documents have an outline in which each page is a chapter.
    pub has_outline: AtomicBool,
}

impl Default for FakeStages {
    fn default() -> Self {
        Self {
            page_costs: Mutex::default(),
            text_layer_cost: Mutex::default(),
            varies_costs: AtomicBool::new(false),
            cores: AtomicU32::new(0),
            busy: AtomicU32::new(0),
            faults: Mutex::new(Arc::new(|_, _, _| None)),
            attempts: Mutex::default(),
            call_counters: Stage::ALL.map(|s| (s, Arc::default())).into(),
            live_images: Arc::default(),
            image_memory: Mutex::new(Arc::new(Semaphore::new(Semaphore::MAX_PERMITS))),
            encoded: Mutex::default(),
            page_with_unstorable_lines: AtomicU32::new(0),
            facts_calls: Arc::default(),
            steps_until_hang: AtomicU32::new(0),
            has_outline: AtomicBool::new(false),
        }
    }
}

impl FakeStages {
    pub fn call_counter(&self, stage: Stage) -> &Arc<CallCounter> {
        &self.call_counters[&stage]
    }

    /// Creates the encoded image of a page, which holds the page number.
    fn encode_page(&self, page: u32) -> Arc<[u8]> {
        let bytes: Arc<[u8]> = page.to_be_bytes().into();
        self.encoded.lock().push(Arc::downgrade(&bytes));
        bytes
    }

    /// Returns the number of encoded images in memory.
    pub fn live_encoded_images(&self) -> usize {
        let mut encoded = self.encoded.lock();
        encoded.retain(|image| image.strong_count() > 0);
        encoded.len()
    }

    pub fn total_calls(&self) -> u64 {
        self.call_counters.values().map(|m| m.call_count()).sum()
    }

    /// Called at the end of each flush and removal. Hangs if it is the one that should hang.
    pub async fn hang_after_countdown(&self) {
        let left = |n: u32| n.checked_sub(1);
        if self
            .steps_until_hang
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, left)
            == Ok(1)
        {
            std::future::pending::<()>().await;
        }
    }

    /// Simulates work that takes this long on a core of its own.
    async fn simulate_work(&self, mut work: Duration) {
        const CORE_TIME_SLICE: Duration = Duration::from_millis(1);
        let cores = self.cores.load(Ordering::SeqCst);
        if cores == 0 {
            return tokio::time::sleep(work).await;
        }
        self.busy.fetch_add(1, Ordering::SeqCst);
        // Dropped steps stay counted, which is fine: tests with cores do not cancel jobs.
        while !work.is_zero() {
            let slice = work.min(CORE_TIME_SLICE);
            let crowd = f64::from(self.busy.load(Ordering::SeqCst)) / f64::from(cores);
            tokio::time::sleep(slice.mul_f64(crowd.max(1.0))).await;
            work -= slice;
        }
        self.busy.fetch_sub(1, Ordering::SeqCst);
    }

    /// Simulates the work of a stage on pages. Returns the fault that it meets.
    pub async fn run_stage(&self, stage: Stage, pages: &[u32]) -> Option<InjectedFault> {
        let cost = self.page_costs.lock().get(&stage).copied().unwrap_or_default();
        self.run_stage_for(stage, pages, cost).await
    }

    pub async fn run_text_layer(&self, page: u32) -> Option<InjectedFault> {
        let cost = *self.text_layer_cost.lock();
        match cost {
            Some(cost) => self.run_stage_for(Stage::Read, &[page], cost).await,
            None => self.run_stage(Stage::Read, &[page]).await,
        }
    }

    async fn run_stage_for(&self, stage: Stage, pages: &[u32], mut cost: Duration) -> Option<InjectedFault> {
        let meter = self.call_counter(stage);
        let _inside = meter.start_call();
        if self.varies_costs.load(Ordering::SeqCst) {
            // Multiples of the golden ratio are spread evenly and are the same in every run.
            let share = (meter.call_count() as f64 * 0.618_033_988_749_895).fract();
            cost = cost.mul_f64(0.6 + 0.8 * share);
        }
        self.simulate_work(cost * u32::try_from(pages.len()).unwrap())
            .await;
        let mut met = None;
        for page in pages {
            let attempt = {
                let mut attempts = self.attempts.lock();
                let attempt = attempts.entry((stage, *page)).or_insert(0);
                *attempt += 1;
                *attempt
            };
            let faults = Arc::clone(&self.faults.lock());
            met = met.or(faults(stage, *page, attempt));
        }
        match met {
            Some(InjectedFault::Panic) => panic!("injected panic in {stage}"),
            Some(InjectedFault::Hang) => std::future::pending().await,
            other => other,
        }
    }
}

/// A host with fake ports. Its stores outlive engines, as files outlive processes.
pub struct FakeHost {
    pub stages: Arc<FakeStages>,
    pub blobs: Arc<FakeBlobs>,
    pub vectors: Arc<FakeVectors>,
    pub ledger: Arc<FakeLedger>,
    pub script: PolicyScript,
    pub workers: HashMap<Stage, u32>,
    pub config: EngineConfig,
    pub meter: Option<Arc<dyn weir_core::usage::UsageMeter>>,
    pub quotas: Option<Arc<dyn weir_core::usage::UsageQuotaLimiter>>,
    pub files: tempfile::TempDir,
    pub language_model: Option<Arc<dyn LanguageModel>>,
}

impl FakeHost {
    pub fn new() -> Self {
        let stages = Arc::new(FakeStages::default());
        Self {
            blobs: Arc::new(FakeBlobs::new(Arc::clone(&stages))),
            vectors: Arc::new(FakeVectors::new(Arc::clone(&stages))),
            ledger: Arc::default(),
            stages,
            script: PolicyScript::default(),
            workers: HashMap::from([
                (Stage::Rasterize, 1),
                (Stage::Read, 1),
                (Stage::Embed, 1),
                (Stage::Store, 8),
            ]),
            config: EngineConfig {
                upsert_workers: 1,
                ..EngineConfig::default()
            },
            meter: None,
            quotas: None,
            language_model: None,
            files: tempfile::tempdir().unwrap(),
        }
    }

    /// Sets the milliseconds that a page takes in a stage.
    pub fn with_cost(self, stage: Stage, millis: u64) -> Self {
        self.stages
            .page_costs
            .lock()
            .insert(stage, Duration::from_millis(millis));
        self
    }

    pub fn with_workers(mut self, stage: Stage, count: u32) -> Self {
        self.workers.insert(stage, count);
        self
    }

    pub fn with_faults(
        self,
        faults: impl Fn(Stage, u32, u32) -> Option<InjectedFault> + Send + Sync + 'static,
    ) -> Self {
        *self.stages.faults.lock() = Arc::new(faults);
        self
    }

    pub fn with_image_memory(self, pages: usize) -> Self {
        *self.stages.image_memory.lock() = Arc::new(Semaphore::new(pages));
        self
    }

    pub fn fake_ports(&self) -> PortImplementations {
        PortImplementations {
            rasterizer: Arc::new(FakeRasterizer {
                stages: Arc::clone(&self.stages),
                workers: self.workers[&Stage::Rasterize],
            }),
            ocr_engine: Some(Arc::new(FakeReader {
                stages: Arc::clone(&self.stages),
                workers: self.workers[&Stage::Read],
            })),
            embedder: Arc::new(FakeEmbedder {
                stages: Arc::clone(&self.stages),
                workers: self.workers[&Stage::Embed],
            }),
            language_model: self.language_model.clone(),
            blobs: Arc::clone(&self.blobs) as _,
            vectors: Arc::clone(&self.vectors) as _,
            ledger: Arc::clone(&self.ledger) as _,
            policies: Arc::new(FakePolicies(self.script.clone())),
            meter: self.meter.clone(),
            quotas: self.quotas.clone(),
        }
    }

    pub fn build_engine(&self) -> Engine {
        let config = EngineConfig {
            store_workers: self.workers[&Stage::Store],
            ..self.config.clone()
        };
        Engine::new(self.fake_ports(), config)
    }

    /// Writes a file that the fake rasterizer opens as a document of `pages` pages.
    pub fn write_document_file(&self, name: &str, pages: u32) -> PathBuf {
        let path = self.files.path().join(name);
        std::fs::write(&path, format!("{pages} pages {name}")).unwrap();
        path
    }

    pub fn document_spec(&self, name: &str, pages: u32) -> DocumentSpec {
        DocumentSpec::new(self.write_document_file(name, pages))
    }

    pub fn document_id(&self, name: &str) -> DocumentId {
        DocumentId::from_content(&std::fs::read(self.files.path().join(name)).unwrap())
    }

    /// Simulates a power cut: the stores lose all data that was not flushed.
    pub fn simulate_power_cut(&self) {
        self.blobs.revert_to_durable();
        self.vectors.revert_to_durable();
    }

    /// Simulates a killed process: the operating system still writes all data that it was given.
    pub fn simulate_process_kill(&self) {
        self.blobs.flush_all();
        self.vectors.flush_all();
    }

    /// Checks that blobs, index and ledger hold every page of a document exactly once.
    pub async fn assert_document_complete(&self, name: &str, pages: u32) {
        let (tenant, id) = (TenantId::default_tenant(), self.document_id(name));
        let recorded: Vec<_> = self
            .ledger
            .list_pages(&tenant, &id, Some(&test_pipeline(0).revision))
            .await
            .unwrap()
            .iter()
            .map(|r| r.page)
            .collect();
        assert_eq!(recorded, (1..=pages).collect::<Vec<_>>());
        let points = self.vectors.sorted_points();
        for page in 1..=pages {
            let passages: Vec<_> = points
                .iter()
                .filter(|p| p.document == id && p.page == page)
                .map(|p| p.passage)
                .collect();
            assert_eq!(passages, [0, 1], "passages of page {page}");
        }
        let keys = self.blobs.keys();
        assert_eq!(keys.len(), 2 * pages as usize, "{keys:?}");
        for page in 1..=pages {
            assert!(keys.contains(&format!("{id}/{page}/image/150.jpg")));
            assert!(keys.contains(&format!("{id}/{page}/ocr.json")));
        }
    }
}

/// Returns a pipeline. Each number gives another revision.
pub fn test_pipeline(number: u32) -> Arc<ResolvedPipeline> {
    let mut manifest = Manifest::default_pipeline_manifest();
    manifest
        .settings
        .insert("number".into(), i64::from(number).into());
    Arc::new(ResolvedPipeline::new(
        manifest,
        Default::default(),
        Default::default(),
    ))
}

/// Returns a job of the single tenant.
pub fn single_tenant_job(documents: impl IntoIterator<Item = DocumentSpec>) -> JobSpec {
    tenant_job(TenantId::default_tenant(), documents)
}

/// Returns a job of a tenant.
pub fn tenant_job(tenant: TenantId, documents: impl IntoIterator<Item = DocumentSpec>) -> JobSpec {
    JobSpec::new(tenant, test_pipeline(0), documents.into_iter().collect())
}
