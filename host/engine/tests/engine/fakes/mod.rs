//! Ports that count and delay, and fail when they are told to. They stand for time and faults only: no test of what the
//! engine makes of a real PDF or a real model is here.

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
use weir_core::language::LanguageModel;
use weir_core::manifest::{Manifest, Pipeline};
use weir_core::ports::Ledger;
use weir_engine::{DocumentSpec, Engine, EngineConfig, JobSpec, Ports};

pub use models::{FakeEmbedder, FakeRasterizer, FakeReader};
pub use policy::{FakePolicies, PLAN, Script, everything};
pub use stores::{FakeBlobs, FakeLedger, FakeVectors};

/// What a stage does with a page, if not its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This page fails.
    Page,
    /// Whatever it needs is not there.
    Unavailable,
    /// No room.
    Full,
    /// The port panics.
    Panic,
    /// It never answers.
    Hang,
}

/// Which fault a page meets in a stage; the attempt counts from 1.
pub type Faults = dyn Fn(Stage, u32, u32) -> Option<Fault> + Send + Sync;

/// How often a stage was called, and how many calls were under way at once.
#[derive(Default)]
pub struct Meter {
    pub calls: AtomicU64,
    now: AtomicU32,
    most: AtomicU32,
}

impl Meter {
    pub fn enter(self: &Arc<Self>) -> Inside {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Inside(Arc::clone(self))
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn now(&self) -> u32 {
        self.now.load(Ordering::SeqCst)
    }

    pub fn most(&self) -> u32 {
        self.most.load(Ordering::SeqCst)
    }
}

/// A call under way.
pub struct Inside(Arc<Meter>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Time and trouble of every stage, shared by all fakes of a host.
pub struct Stages {
    /// Time a page takes in a stage.
    pub cost: Mutex<HashMap<Stage, Duration>>,
    /// Time that reading a text layer takes; `None`: as long as OCR.
    pub text_layer: Mutex<Option<Duration>>,
    /// Whether pages take from 60 to 140 % of that, as real ones do. Where all take the same, a busy host falls into step.
    pub uneven: AtomicBool,
    /// Cores that all stages share, so that what is under way at once gets slower; 0: none of them lacks any.
    pub cores: AtomicU32,
    busy: AtomicU32,
    pub faults: Mutex<Arc<Faults>>,
    attempts: Mutex<HashMap<(Stage, u32), u32>>,
    pub meters: HashMap<Stage, Arc<Meter>>,
    /// Page images with pixels that exist.
    pub images: Arc<Meter>,
    /// Memory for page images, in pages, for all tenants together.
    pub image_memory: Mutex<Arc<Semaphore>>,
    /// Page images that were encoded.
    pub encoded: Mutex<Vec<Weak<[u8]>>>,
    /// The page whose lines cannot be kept; 0: none.
    pub lost_lines: AtomicU32,
    /// Fetches of page facts.
    pub facts: Arc<Meter>,
    /// Flushes and removals after which one hangs, when it has done what it was asked; 0: none does.
    pub hang_after: AtomicU32,
    /// Whether each page of a document is a chapter.
    pub outlined: AtomicBool,
}

impl Default for Stages {
    fn default() -> Self {
        Self {
            cost: Mutex::default(),
            text_layer: Mutex::default(),
            uneven: AtomicBool::new(false),
            cores: AtomicU32::new(0),
            busy: AtomicU32::new(0),
            faults: Mutex::new(Arc::new(|_, _, _| None)),
            attempts: Mutex::default(),
            meters: Stage::ALL.map(|s| (s, Arc::default())).into(),
            images: Arc::default(),
            image_memory: Mutex::new(Arc::new(Semaphore::new(Semaphore::MAX_PERMITS))),
            encoded: Mutex::default(),
            lost_lines: AtomicU32::new(0),
            facts: Arc::default(),
            hang_after: AtomicU32::new(0),
            outlined: AtomicBool::new(false),
        }
    }
}

impl Stages {
    pub fn meter(&self, stage: Stage) -> &Arc<Meter> {
        &self.meters[&stage]
    }

    /// An encoded image of a page.
    fn encode(&self, page: u32) -> Arc<[u8]> {
        let bytes: Arc<[u8]> = page.to_be_bytes().into();
        self.encoded.lock().push(Arc::downgrade(&bytes));
        bytes
    }

    /// Encoded images that exist.
    pub fn encoded_now(&self) -> usize {
        let mut encoded = self.encoded.lock();
        encoded.retain(|image| image.strong_count() > 0);
        encoded.len()
    }

    pub fn calls(&self) -> u64 {
        self.meters.values().map(|m| m.calls()).sum()
    }

    /// A flush or a removal has been done.
    pub async fn flushed_or_removed(&self) {
        let left = |n: u32| n.checked_sub(1);
        if self
            .hang_after
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, left)
            == Ok(1)
        {
            std::future::pending::<()>().await;
        }
    }

    /// Work that takes so long with a core to itself.
    async fn compute(&self, mut work: Duration) {
        const SLICE: Duration = Duration::from_millis(1);
        let cores = self.cores.load(Ordering::SeqCst);
        if cores == 0 {
            return tokio::time::sleep(work).await;
        }
        self.busy.fetch_add(1, Ordering::SeqCst);
        // Steps that are dropped stay counted; nobody cancels where cores are counted.
        while !work.is_zero() {
            let slice = work.min(SLICE);
            let crowd = f64::from(self.busy.load(Ordering::SeqCst)) / f64::from(cores);
            tokio::time::sleep(slice.mul_f64(crowd.max(1.0))).await;
            work -= slice;
        }
        self.busy.fetch_sub(1, Ordering::SeqCst);
    }

    /// The work of a stage on a page, and the fault it meets there.
    pub async fn work(&self, stage: Stage, pages: &[u32]) -> Option<Fault> {
        let cost = self.cost.lock().get(&stage).copied().unwrap_or_default();
        self.work_for(stage, pages, cost).await
    }

    pub async fn read_text(&self, page: u32) -> Option<Fault> {
        let cost = *self.text_layer.lock();
        match cost {
            Some(cost) => self.work_for(Stage::Read, &[page], cost).await,
            None => self.work(Stage::Read, &[page]).await,
        }
    }

    async fn work_for(&self, stage: Stage, pages: &[u32], mut cost: Duration) -> Option<Fault> {
        let meter = self.meter(stage);
        let _inside = meter.enter();
        if self.uneven.load(Ordering::SeqCst) {
            // Spread evenly, and the same in every run: multiples of the golden ratio.
            let share = (meter.calls() as f64 * 0.618_033_988_749_895).fract();
            cost = cost.mul_f64(0.6 + 0.8 * share);
        }
        self.compute(cost * u32::try_from(pages.len()).unwrap()).await;
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
            Some(Fault::Panic) => panic!("a fake of {stage} was told to panic"),
            Some(Fault::Hang) => std::future::pending().await,
            other => other,
        }
    }
}

/// A host made of fakes. The stores outlive engines, as files outlive processes.
pub struct Fakes {
    pub stages: Arc<Stages>,
    pub blobs: Arc<FakeBlobs>,
    pub vectors: Arc<FakeVectors>,
    pub ledger: Arc<FakeLedger>,
    pub script: Script,
    pub workers: HashMap<Stage, u32>,
    pub config: EngineConfig,
    pub meter: Option<Arc<dyn weir_core::usage::Meter>>,
    pub quotas: Option<Arc<dyn weir_core::usage::UsageQuotas>>,
    pub files: tempfile::TempDir,
    pub language: Option<Arc<dyn LanguageModel>>,
}

impl Fakes {
    pub fn new() -> Self {
        let stages = Arc::new(Stages::default());
        Self {
            blobs: Arc::new(FakeBlobs::new(Arc::clone(&stages))),
            vectors: Arc::new(FakeVectors::new(Arc::clone(&stages))),
            ledger: Arc::default(),
            stages,
            script: Script::default(),
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
            language: None,
            files: tempfile::tempdir().unwrap(),
        }
    }

    /// Milliseconds a page takes in a stage.
    pub fn cost(self, stage: Stage, millis: u64) -> Self {
        self.stages
            .cost
            .lock()
            .insert(stage, Duration::from_millis(millis));
        self
    }

    pub fn workers(mut self, stage: Stage, count: u32) -> Self {
        self.workers.insert(stage, count);
        self
    }

    pub fn faults(self, faults: impl Fn(Stage, u32, u32) -> Option<Fault> + Send + Sync + 'static) -> Self {
        *self.stages.faults.lock() = Arc::new(faults);
        self
    }

    pub fn image_memory(self, pages: usize) -> Self {
        *self.stages.image_memory.lock() = Arc::new(Semaphore::new(pages));
        self
    }

    pub fn ports(&self) -> Ports {
        Ports {
            rasterizer: Arc::new(FakeRasterizer {
                stages: Arc::clone(&self.stages),
                workers: self.workers[&Stage::Rasterize],
            }),
            reader: Some(Arc::new(FakeReader {
                stages: Arc::clone(&self.stages),
                workers: self.workers[&Stage::Read],
            })),
            embedder: Arc::new(FakeEmbedder {
                stages: Arc::clone(&self.stages),
                workers: self.workers[&Stage::Embed],
            }),
            language_model: self.language.clone(),
            blobs: Arc::clone(&self.blobs) as _,
            vectors: Arc::clone(&self.vectors) as _,
            ledger: Arc::clone(&self.ledger) as _,
            policies: Arc::new(FakePolicies(self.script.clone())),
            meter: self.meter.clone(),
            quotas: self.quotas.clone(),
        }
    }

    pub fn engine(&self) -> Engine {
        let config = EngineConfig {
            store_workers: self.workers[&Stage::Store],
            ..self.config.clone()
        };
        Engine::new(self.ports(), config)
    }

    /// A file that the fake rasterizer takes for a document of so many pages.
    pub fn file(&self, name: &str, pages: u32) -> PathBuf {
        let path = self.files.path().join(name);
        std::fs::write(&path, format!("{pages} pages {name}")).unwrap();
        path
    }

    pub fn document(&self, name: &str, pages: u32) -> DocumentSpec {
        DocumentSpec::new(self.file(name, pages))
    }

    pub fn id(&self, name: &str) -> DocumentId {
        DocumentId::of(&std::fs::read(self.files.path().join(name)).unwrap())
    }

    /// What is left after the power went: stores as they were flushed.
    pub fn crash(&self) {
        self.blobs.crash();
        self.vectors.crash();
    }

    /// What is left after the process was killed: the system still writes what it was given.
    pub fn settle(&self) {
        self.blobs.settle();
        self.vectors.settle();
    }

    /// Checks that every page of a document is exactly once in blobs, index and ledger.
    pub async fn assert_whole(&self, name: &str, pages: u32) {
        let (tenant, id) = (TenantId::single(), self.id(name));
        let recorded: Vec<_> = self
            .ledger
            .pages(&tenant, &id, Some(&pipeline(0).revision))
            .await
            .unwrap()
            .iter()
            .map(|r| r.page)
            .collect();
        assert_eq!(recorded, (1..=pages).collect::<Vec<_>>());
        let points = self.vectors.points();
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

/// A pipeline; another number is another revision.
pub fn pipeline(number: u32) -> Arc<Pipeline> {
    let mut manifest = Manifest::embedded();
    manifest
        .settings
        .insert("number".into(), i64::from(number).into());
    Arc::new(Pipeline::new(manifest, Default::default(), Default::default()))
}

/// A job of the only tenant.
pub fn job(documents: impl IntoIterator<Item = DocumentSpec>) -> JobSpec {
    job_of(TenantId::single(), documents)
}

/// A job of some tenant.
pub fn job_of(tenant: TenantId, documents: impl IntoIterator<Item = DocumentSpec>) -> JobSpec {
    JobSpec::new(tenant, pipeline(0), documents.into_iter().collect())
}
