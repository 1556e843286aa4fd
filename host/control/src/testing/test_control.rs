//! A whole host without HTTP, over the fake ports.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use weir_core::ledger::JobState;
use weir_core::ports::Ledger as _;
use weir_core::settings::Settings;
use weir_core::store_status::StoreStatus;
use weir_core::{JobId, TenantId};
use weir_engine::{Engine, EngineConfig, PortImplementations};

use super::{
    CountingEmbedder, FakeBlobStore, FakeComponentStore, FakeProcessing, FakeStore, FakeUploadStore,
    FakeVectorStore, new_test_claims,
};
use crate::admission::run_dispatcher;
use crate::commit_notifier::CommitNotifier;
use crate::node_messages::NodeMessages;
use crate::state::{Control, ControlParts};
use crate::usage::UsageRecorder;

/// The timeout of waiting tests, longer than any test should take.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A host with fake ports in memory. Only its files are on disk, in a temporary folder.
pub struct TestControl {
    /// Its state.
    pub control: Arc<Control>,
    /// Its ledger and its other stores of records.
    pub store: Arc<FakeStore>,
    /// Its blobs.
    pub blobs: Arc<FakeBlobStore>,
    /// Its vectors.
    pub vectors: Arc<FakeVectorStore>,
    /// Its embedder.
    pub embedder: Arc<CountingEmbedder>,
    /// Its fake rasterizer, components and store of uploads.
    pub processing: Arc<FakeProcessing>,
    /// Its uploaded files.
    pub uploads: Arc<FakeUploadStore>,
    /// Its component binaries.
    pub components: Arc<FakeComponentStore>,
    /// The folder of its files.
    pub data: Arc<tempfile::TempDir>,
}

impl Default for TestControl {
    fn default() -> Self {
        Self::with_settings(Settings::default())
    }
}

impl TestControl {
    /// Creates a host with default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a host with these settings.
    pub fn with_settings(settings: Settings) -> Self {
        let data = tempfile::tempdir().unwrap();
        Self::build(Arc::default(), Arc::new(data), settings)
    }

    /// Creates the next process of the host, with the same stored data and settings.
    pub fn restart(&self) -> Self {
        let (store, data) = (Arc::clone(&self.store), Arc::clone(&self.data));
        store.release_all_claims();
        Self::build(store, data, self.control.settings.clone())
    }

    /// Creates another node on the same stores of records and files, with the same settings.
    pub fn add_node(&self) -> Self {
        let (store, data) = (Arc::clone(&self.store), Arc::clone(&self.data));
        Self::build(store, data, self.control.settings.clone())
    }

    fn build(store: Arc<FakeStore>, data: Arc<tempfile::TempDir>, settings: Settings) -> Self {
        let (blobs, vectors, embedder) =
            <(Arc<FakeBlobStore>, Arc<FakeVectorStore>, Arc<CountingEmbedder>)>::default();
        let ledger = CommitNotifier::new(store.clone());
        let processing = Arc::new(FakeProcessing::default());
        let usage_recorder = UsageRecorder::new();
        let ports = PortImplementations {
            rasterizer: processing.clone(),
            ocr_engine: None,
            embedder: embedder.clone(),
            language_model: None,
            blobs: blobs.clone(),
            vectors: vectors.clone(),
            ledger: ledger.clone(),
            policies: processing.clone(),
            meter: Some(usage_recorder.clone()),
            quotas: Some(usage_recorder.clone()),
        };
        let uploads = FakeUploadStore::new(&data.path().join("uploads"), store.clone());
        let components = FakeComponentStore::new(&data.path().join("components"));
        let control = Control::new(ControlParts {
            engine: Engine::new(ports, EngineConfig::from_settings(&settings)),
            ledger,
            tenant_store: store.clone(),
            job_requests: store.clone(),
            document_removals: store.clone(),
            retention_store: store.clone(),
            claims: new_test_claims(store.clone()),
            node_messages: NodeMessages::new(None),
            shared_limit_store: None,
            store_statuses: ["ledger", "vectors"]
                .map(|store| Arc::new(StoreStatus::new(store)))
                .to_vec(),
            usage_store: store.clone(),
            usage_recorder,
            pipelines: store.clone(),
            shadows: store.clone(),
            components: components.clone(),
            component_validator: processing.clone(),
            job_replayer: processing.clone(),
            pipeline_builder: processing.clone(),
            upload_store: uploads.clone(),
            settings,
        });
        Self {
            control,
            store,
            blobs,
            vectors,
            embedder,
            processing,
            uploads,
            components,
            data,
        }
    }

    /// Runs the dispatcher until the returned set is dropped.
    pub fn spawn_dispatcher(&self) -> JoinSet<()> {
        let mut dispatching = JoinSet::new();
        dispatching.spawn(run_dispatcher(
            Arc::clone(&self.control),
            self.control.stop_signal.clone(),
        ));
        dispatching
    }

    /// Waits until a job is in this state.
    pub async fn wait_for_job_state(&self, tenant: &TenantId, job: JobId, state: JobState) {
        let is_in_state = async || {
            let record = self.store.find_job(tenant, &job).await.unwrap();
            record.is_some_and(|record| record.state == state)
        };
        wait_until(
            self.control.ledger.subscribe_to_tenant_commits(tenant),
            is_in_state,
        )
        .await;
    }

    /// Waits until a tenant has `waiting` queued jobs and `running` running jobs.
    pub async fn wait_for_job_counts(&self, tenant: &TenantId, waiting: usize, running: usize) {
        let counts_match =
            async || self.control.admission.count_queued_and_running_jobs(tenant) == (waiting, running);
        wait_until(self.control.admission.subscribe_to_changes(), counts_match).await;
    }
}

/// Waits until `holds` returns true. It is checked again whenever `changes` has a new value.
pub async fn wait_until(mut changes: watch::Receiver<()>, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        changes.mark_unchanged();
        while !holds().await {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(WAIT_TIMEOUT, waiting)
        .await
        .expect("the condition was not met before the timeout");
}
