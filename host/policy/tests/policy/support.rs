//! Test helpers: components, pipelines, a host, sample inputs, and fake ports that count calls.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use weir_core::component_log::ComponentLogRecord;
use weir_core::component_state_limits::{StateChange, StateSizes};
use weir_core::decision::{BatchContext, DocumentFacts, ObservedEvent, PageStageFailure, PageTextToSplit};
use weir_core::event::ErrorInfo;
use weir_core::manifest::{Manifest, ResolvedComponentFile, ResolvedPipeline, Role};
use weir_core::memory_component_state::MemoryComponentState;
use weir_core::page::PageFacts;
use weir_core::ports::{ComponentStateStore, HostCapabilities, OpenPolicyRequest};
use weir_core::{DocumentId, JobId, PageNumber, PolicyError, Rect, Stage, TenantId};
use weir_policy::{PolicyHost, PolicyHostConfig, Retention, WasmJobPolicy};

/// Returns a built component by name.
pub(crate) fn built_component(name: &str) -> ResolvedComponentFile {
    let folder = std::env::var_os("WEIR_PATHS_DEFAULT_COMPONENTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/components"),
        PathBuf::from,
    );
    let path = folder.join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} is missing: run components/build",
        path.display()
    );
    component_file(&path)
}

/// Returns any file as a component.
pub(crate) fn component_file(path: &Path) -> ResolvedComponentFile {
    ResolvedComponentFile {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        file: path.to_owned().into(),
        digest: Sha256::digest(std::fs::read(path).unwrap()).into(),
    }
}

/// Returns the default component of each role.
pub(crate) fn default_components() -> BTreeMap<Role, ResolvedComponentFile> {
    Role::ALL.map(|role| (role, built_component(role.name()))).into()
}

/// Returns a pipeline of the default components, with these manifest lines and with the components in `own` instead of defaults.
pub(crate) fn pipeline_with_components(manifest: &str, own: &[(Role, &str)]) -> ResolvedPipeline {
    let mut components = default_components();
    components.extend(own.iter().map(|(role, name)| (*role, built_component(name))));
    parse_pipeline(manifest, components)
}

pub(crate) fn parse_pipeline(
    manifest: &str,
    components: BTreeMap<Role, ResolvedComponentFile>,
) -> ResolvedPipeline {
    let text = format!("name = 'test'\n{manifest}");
    let manifest = Manifest::parse(Path::new("pipeline.toml"), &text).unwrap();
    ResolvedPipeline::new(manifest, components, default_components())
}

/// Returns a pipeline of one component in these roles, without fallbacks.
pub(crate) fn single_component_pipeline(
    roles: &[Role],
    component: &ResolvedComponentFile,
) -> ResolvedPipeline {
    let components = roles.iter().map(|role| (*role, component.clone())).collect();
    let mut pipeline = parse_pipeline("on-component-failure = 'fail'", components);
    pipeline.default_components.clear();
    pipeline
}

/// Returns the configuration of a host with 16 instances. All tests share its folder of compiled components.
pub(crate) fn test_config() -> PolicyHostConfig {
    PolicyHostConfig {
        max_instances: 16,
        call_timeout_millis: 50,
        max_memory_bytes: 32 << 20,
        max_output_bytes: 1 << 20,
        max_compile_cpu_seconds: 60,
        max_compile_memory_bytes: 2 << 30,
        compile_command: vec![env!("CARGO_BIN_EXE_weir-compile").into()],
        cache_folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"),
        max_cache_bytes: 8 << 30,
        max_loaded_components: 1000,
        recordings: None,
        record_calls: true,
        retention: Retention::default(),
        state: Arc::new(FakeComponentState::default()),
        usage_meter: None,
    }
}

pub(crate) fn new_host() -> Arc<PolicyHost> {
    PolicyHost::new(test_config()).unwrap()
}

/// Opens a new job of the single tenant.
pub(crate) async fn open_job(
    host: &PolicyHost,
    pipeline: &ResolvedPipeline,
    port: &Arc<FakeCapabilities>,
) -> Result<Arc<WasmJobPolicy>, PolicyError> {
    host.open_job(OpenPolicyRequest {
        tenant: &TenantId::default_tenant(),
        job: JobId::new(),
        pipeline,
        capabilities: Arc::clone(port) as Arc<dyn HostCapabilities>,
    })
    .await
}

/// Capabilities that return fixed responses and keep what components reported.
#[derive(Default)]
pub(crate) struct FakeCapabilities {
    pub(crate) policy_errors: Mutex<Vec<PolicyError>>,
    pub(crate) log_records: Mutex<Vec<ComponentLogRecord>>,
    pub(crate) generate_calls: AtomicUsize,
}

#[async_trait]
impl HostCapabilities for FakeCapabilities {
    async fn render_preview(
        &self,
        _: &DocumentId,
        _: PageNumber,
        side: u32,
    ) -> Result<(u32, u32, Vec<u8>), ErrorInfo> {
        Ok((side, 1, vec![255; side as usize]))
    }
    async fn read_page_text_layer(&self, _: &DocumentId, _: PageNumber) -> Result<String, ErrorInfo> {
        Ok("text".into())
    }
    async fn count_embedding_tokens(&self, text: &str) -> Result<u32, ErrorInfo> {
        Ok(text.split_whitespace().count() as u32)
    }
    async fn embed_texts(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, ErrorInfo> {
        Ok(texts.iter().map(|t| vec![t.len() as f32, 1.0]).collect())
    }
    async fn recognize_region(&self, _: &DocumentId, _: PageNumber, _: Rect) -> Result<String, ErrorInfo> {
        Ok("text".into())
    }
    async fn generate_text(&self, _: &str, _: u32) -> Result<String, ErrorInfo> {
        self.generate_calls.fetch_add(1, Ordering::Relaxed);
        Ok("the brass one".into())
    }
    fn report_policy_fallback(&self, error: &PolicyError) {
        self.policy_errors.lock().push(error.clone());
    }
    fn append_component_log(&self, record: ComponentLogRecord) {
        self.log_records.lock().push(record);
    }
}

/// Component state in memory. While `is_stuck` is set, reads never return.
#[derive(Default)]
pub(crate) struct FakeComponentState {
    pub(crate) values: MemoryComponentState,
    pub(crate) is_stuck: std::sync::atomic::AtomicBool,
    pub(crate) reads: AtomicUsize,
    /// Groups of changes that were applied.
    pub(crate) applied_groups: AtomicUsize,
}

#[async_trait]
impl ComponentStateStore for FakeComponentState {
    async fn get_component_state_value(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        key: &str,
    ) -> Result<Option<Vec<u8>>, ErrorInfo> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.is_stuck.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.values.get_component_state_value(tenant, pipeline, key).await
    }
    async fn list_component_state_value_sizes(
        &self,
        tenant: &TenantId,
        pipeline: &str,
    ) -> Result<StateSizes, ErrorInfo> {
        self.values
            .list_component_state_value_sizes(tenant, pipeline)
            .await
    }
    async fn apply_component_state_changes(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        changes: Vec<StateChange>,
    ) -> Result<(), ErrorInfo> {
        self.applied_groups.fetch_add(1, Ordering::Relaxed);
        self.values
            .apply_component_state_changes(tenant, pipeline, changes)
            .await
    }
}

pub(crate) fn sample_document_id() -> DocumentId {
    DocumentId::from_content(b"a document")
}

pub(crate) fn sample_page(number: u32) -> PageFacts {
    PageFacts {
        number,
        width: 612.0,
        height: 792.0,
        text_chars: 2400,
        image_coverage: 0.1,
        readable: true,
    }
}

pub(crate) fn sample_batch_context() -> BatchContext {
    BatchContext {
        document: sample_document_id(),
        total_pages: 10,
        remaining_pages: 10,
        next_pages: (1..=10).map(sample_page).collect(),
        queues: Vec::new(),
        stage_timings: Vec::new(),
        device: weir_core::decision::ComputeDevice {
            kind: weir_core::decision::DeviceKind::Cpu,
            memory_bytes: 8 << 30,
            cores: 2,
        },
        free_image_bytes: 128 << 20,
    }
}

pub(crate) fn sample_document_facts() -> DocumentFacts {
    DocumentFacts {
        document: sample_document_id(),
        name: "report.pdf".into(),
        bytes: 100_000,
        pages: 10,
        title: Some("A report".into()),
        outline_entries: 3,
        first_pages: (1..=8).map(sample_page).collect(),
    }
}

pub(crate) fn sample_failure() -> PageStageFailure {
    PageStageFailure {
        document: sample_document_id(),
        page: 3,
        stage: Stage::Read,
        attempt: 1,
        kind: "model-failed".into(),
        message: "the model failed".into(),
    }
}

pub(crate) fn sample_passage_source() -> PageTextToSplit {
    PageTextToSplit {
        document: sample_document_id(),
        page: 1,
        text: "Under the weir the wäter is calm. Above it, it is high.\nNobody remembers why.".into(),
        headings: Vec::new(),
        max_tokens: 256,
    }
}

pub(crate) fn sample_section() -> weir_core::decision::SectionToSummarize {
    weir_core::decision::SectionToSummarize {
        document: sample_document_id(),
        title: "Weirs".into(),
        level: 1,
        first_page: 1,
        last_page: 2,
        text: "Ünder the weir the water is calm. ".repeat(20),
    }
}

pub(crate) fn sample_document_started_event() -> ObservedEvent {
    ObservedEvent::DocumentStarted {
        document: sample_document_id(),
        name: "report.pdf".into(),
        pages: 10,
        already_done: 0,
    }
}
