//! Components, pipelines, a host, and ports that count.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use weir_core::decision::{DocumentFacts, Failure, Observation, PassageSource, Situation};
use weir_core::event::ErrorNote;
use weir_core::manifest::{ComponentFile, Manifest, Pipeline, Role};
use weir_core::page::PageFacts;
use weir_core::ports::{Capabilities, PolicyRequest, PolicyState};
use weir_core::said::Remark;
use weir_core::state::{StateChange, StateSizes};
use weir_core::{DocumentId, JobId, PageNumber, PolicyError, Rect, Stage, TenantId};
use weir_policy::{Job, PolicyConfig, PolicyHost, Retention};

/// A built component.
pub(crate) fn component(name: &str) -> ComponentFile {
    let folder = std::env::var_os("WEIR_PATHS_COMPONENTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/components"),
        PathBuf::from,
    );
    let path = folder.join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} is missing: run components/build",
        path.display()
    );
    file(&path)
}

/// Any file as a component.
pub(crate) fn file(path: &Path) -> ComponentFile {
    ComponentFile {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        path: path.to_owned(),
        digest: Sha256::digest(std::fs::read(path).unwrap()).into(),
    }
}

/// The default component of each role.
pub(crate) fn defaults() -> BTreeMap<Role, ComponentFile> {
    Role::ALL.map(|role| (role, component(role.name()))).into()
}

/// A pipeline of the defaults, with some components and lines of the manifest of its own.
pub(crate) fn pipeline(manifest: &str, own: &[(Role, &str)]) -> Pipeline {
    let mut components = defaults();
    components.extend(own.iter().map(|(role, name)| (*role, component(name))));
    pipeline_of(manifest, components)
}

pub(crate) fn pipeline_of(manifest: &str, components: BTreeMap<Role, ComponentFile>) -> Pipeline {
    let text = format!("name = 'test'\n{manifest}");
    let manifest = Manifest::parse(Path::new("pipeline.toml"), &text).unwrap();
    Pipeline::new(manifest, components, defaults())
}

/// A pipeline of one component, for the roles given, where nobody stands in.
pub(crate) fn only(roles: &[Role], component: &ComponentFile) -> Pipeline {
    let components = roles.iter().map(|role| (*role, component.clone())).collect();
    let mut pipeline = pipeline_of("on-trap = 'fail'", components);
    pipeline.defaults.clear();
    pipeline
}

/// Settings of a host with few places, whose compiled components are shared by all tests.
pub(crate) fn config() -> PolicyConfig {
    PolicyConfig {
        instances: 16,
        call_millis: 50,
        memory_bytes: 32 << 20,
        output_bytes: 1 << 20,
        compile_seconds: 60,
        compile_bytes: 2 << 30,
        compile_command: vec![env!("CARGO_BIN_EXE_weir-compile").into()],
        cache: Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"),
        cache_bytes: 8 << 30,
        loaded_components: 1000,
        recordings: None,
        record: true,
        retention: Retention::default(),
        state: Arc::new(MemoryState::default()),
        meter: None,
    }
}

pub(crate) fn host() -> Arc<PolicyHost> {
    PolicyHost::new(config()).unwrap()
}

/// Opens a job of the only tenant.
pub(crate) async fn open(
    host: &PolicyHost,
    pipeline: &Pipeline,
    port: &Arc<Port>,
) -> Result<Arc<Job>, PolicyError> {
    host.open_job(PolicyRequest {
        tenant: &TenantId::single(),
        job: JobId::new(),
        pipeline,
        capabilities: Arc::clone(port) as Arc<dyn Capabilities>,
    })
    .await
}

/// What a job may ask, with what it was told.
#[derive(Default)]
pub(crate) struct Port {
    pub(crate) failed: Mutex<Vec<PolicyError>>,
    pub(crate) said: Mutex<Vec<Remark>>,
    pub(crate) generated: AtomicUsize,
}

#[async_trait]
impl Capabilities for Port {
    async fn preview(
        &self,
        _: &DocumentId,
        _: PageNumber,
        side: u32,
    ) -> Result<(u32, u32, Vec<u8>), ErrorNote> {
        Ok((side, 1, vec![255; side as usize]))
    }
    async fn page_text(&self, _: &DocumentId, _: PageNumber) -> Result<String, ErrorNote> {
        Ok("text".into())
    }
    async fn count_tokens(&self, text: &str) -> Result<u32, ErrorNote> {
        Ok(text.split_whitespace().count() as u32)
    }
    async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, ErrorNote> {
        Ok(texts.iter().map(|t| vec![t.len() as f32, 1.0]).collect())
    }
    async fn recognize(&self, _: &DocumentId, _: PageNumber, _: Rect) -> Result<String, ErrorNote> {
        Ok("text".into())
    }
    async fn generate(&self, _: &str, _: u32) -> Result<String, ErrorNote> {
        self.generated.fetch_add(1, Ordering::Relaxed);
        Ok("the brass one".into())
    }
    fn policy_failed(&self, error: &PolicyError) {
        self.failed.lock().push(error.clone());
    }
    fn said(&self, remark: Remark) {
        self.said.lock().push(remark);
    }
}

type Key = (TenantId, String, String);

/// State in memory. While `stuck`, it does not answer.
#[derive(Default)]
pub(crate) struct MemoryState {
    pub(crate) values: Mutex<HashMap<Key, Vec<u8>>>,
    pub(crate) stuck: std::sync::atomic::AtomicBool,
    pub(crate) asked: AtomicUsize,
    /// Groups of changes that were applied.
    pub(crate) applied: AtomicUsize,
}

#[async_trait]
impl PolicyState for MemoryState {
    async fn get(&self, tenant: &TenantId, pipeline: &str, key: &str) -> Result<Option<Vec<u8>>, ErrorNote> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.stuck.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let key = (tenant.clone(), pipeline.to_owned(), key.to_owned());
        Ok(self.values.lock().get(&key).cloned())
    }
    async fn sizes(&self, tenant: &TenantId, pipeline: &str) -> Result<StateSizes, ErrorNote> {
        let values = self.values.lock();
        let of_pipeline = values
            .iter()
            .filter(|((t, p, _), _)| t == tenant && p == pipeline);
        Ok(of_pipeline
            .map(|((_, _, key), value)| (key.clone(), value.len()))
            .collect())
    }
    async fn apply(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        changes: Vec<StateChange>,
    ) -> Result<(), ErrorNote> {
        self.applied.fetch_add(1, Ordering::Relaxed);
        let mut sizes = self.sizes(tenant, pipeline).await?;
        sizes.change_all(&changes)?;
        let mut values = self.values.lock();
        for StateChange { key, value } in changes {
            let key = (tenant.clone(), pipeline.to_owned(), key);
            match value {
                Some(value) => values.insert(key, value),
                None => values.remove(&key),
            };
        }
        Ok(())
    }
}

pub(crate) fn document() -> DocumentId {
    DocumentId::of(b"a document")
}

pub(crate) fn page(number: u32) -> PageFacts {
    PageFacts {
        number,
        width: 612.0,
        height: 792.0,
        text_chars: 2400,
        image_coverage: 0.1,
        readable: true,
    }
}

pub(crate) fn situation() -> Situation {
    Situation {
        document: document(),
        total_pages: 10,
        remaining_pages: 10,
        next: (1..=10).map(page).collect(),
        queues: Vec::new(),
        times: Vec::new(),
        device: weir_core::decision::Device {
            gpu: false,
            memory_bytes: 8 << 30,
            cores: 2,
        },
        free_image_bytes: 128 << 20,
    }
}

pub(crate) fn facts() -> DocumentFacts {
    DocumentFacts {
        document: document(),
        name: "report.pdf".into(),
        bytes: 100_000,
        pages: 10,
        title: Some("A report".into()),
        outline_entries: 3,
        first_pages: (1..=8).map(page).collect(),
    }
}

pub(crate) fn failure() -> Failure {
    Failure {
        document: document(),
        page: 3,
        stage: Stage::Read,
        attempt: 1,
        kind: "model-failed".into(),
        message: "the model failed".into(),
    }
}

pub(crate) fn source() -> PassageSource {
    PassageSource {
        document: document(),
        page: 1,
        text: "Under the weir the wäter is calm. Above it, it is high.\nNobody remembers why.".into(),
        headings: Vec::new(),
        max_tokens: 256,
    }
}

pub(crate) fn section() -> weir_core::decision::Section {
    weir_core::decision::Section {
        document: document(),
        title: "Weirs".into(),
        level: 1,
        first_page: 1,
        last_page: 2,
        text: "Ünder the weir the water is calm. ".repeat(20),
    }
}

pub(crate) fn started() -> Observation {
    Observation::DocumentStarted {
        document: document(),
        name: "report.pdf".into(),
        pages: 10,
        already_done: 0,
    }
}
