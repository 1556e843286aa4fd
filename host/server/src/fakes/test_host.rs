//! A whole host over the fake ports.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use weir_core::ledger::JobState;
use weir_core::ports::Ledger as _;
use weir_core::settings::Settings;
use weir_core::{JobId, TenantId};
use weir_engine::{Engine, EngineConfig, Ports};

use super::{
    CountingEmbedder, FakeBlobStore, FakeComponentStore, FakeProcessing, FakeStore, FakeUploadStore,
    FakeVectorStore,
};
use crate::admission::run_dispatcher;
use crate::app::{AppState, Server, ServerParts};
use crate::commit_notifier::CommitNotifier;
use crate::signed_links::SigningKey;
use crate::usage::UsageRecorder;

/// The timeout of waiting tests, longer than any test should take.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A host with fake ports in memory. Only its files are on disk, in a temporary folder.
pub(crate) struct TestHost {
    pub(crate) app: Arc<AppState>,
    pub(crate) store: Arc<FakeStore>,
    pub(crate) blobs: Arc<FakeBlobStore>,
    pub(crate) vectors: Arc<FakeVectorStore>,
    pub(crate) embedder: Arc<CountingEmbedder>,
    pub(crate) processing: Arc<FakeProcessing>,
    pub(crate) uploads: Arc<FakeUploadStore>,
    pub(crate) components: Arc<FakeComponentStore>,
    data: Arc<tempfile::TempDir>,
}

impl TestHost {
    /// Creates a host with default settings.
    pub(crate) fn new() -> Self {
        Self::with_settings(Settings::default())
    }

    pub(crate) fn with_settings(settings: Settings) -> Self {
        Self::with_server(settings).1
    }

    /// Creates a host and its server, which does not listen yet.
    pub(crate) fn with_server(settings: Settings) -> (Server, Self) {
        let data = tempfile::tempdir().unwrap();
        Self::build(Arc::default(), Arc::new(data), settings)
    }

    /// Creates the next process of the host, with the same stored data and settings.
    pub(crate) fn restart(&self) -> Self {
        let (memory, data) = (Arc::clone(&self.store), Arc::clone(&self.data));
        Self::build(memory, data, self.app.settings.clone()).1
    }

    fn build(memory: Arc<FakeStore>, data: Arc<tempfile::TempDir>, settings: Settings) -> (Server, Self) {
        let (blobs, vectors, embedder) =
            <(Arc<FakeBlobStore>, Arc<FakeVectorStore>, Arc<CountingEmbedder>)>::default();
        let ledger = CommitNotifier::new(memory.clone());
        let works = Arc::new(FakeProcessing::default());
        let metering = UsageRecorder::new();
        let ports = Ports {
            rasterizer: works.clone(),
            reader: None,
            embedder: embedder.clone(),
            language_model: None,
            blobs: blobs.clone(),
            vectors: vectors.clone(),
            ledger: ledger.clone(),
            policies: works.clone(),
            meter: Some(metering.clone()),
            quotas: Some(metering.clone()),
        };
        let files = FakeUploadStore::new(&data.path().join("uploads"), memory.clone());
        let components = FakeComponentStore::new(&data.path().join("components"));
        let server = Server::new(ServerParts {
            engine: Engine::new(ports, EngineConfig::from_settings(&settings)),
            ledger,
            tenant_store: memory.clone(),
            job_requests: memory.clone(),
            document_removals: memory.clone(),
            usage_store: memory.clone(),
            usage_recorder: metering,
            pipelines: memory.clone(),
            shadows: memory.clone(),
            components: components.clone(),
            component_validator: works.clone(),
            job_replayer: works.clone(),
            default_components: works.clone(),
            upload_store: files.clone(),
            signing_key: SigningKey::load_or_create(data.path()).unwrap(),
            settings,
        });
        let host = Self {
            app: server.app_state(),
            store: memory,
            blobs,
            vectors,
            embedder,
            processing: works,
            uploads: files,
            components,
            data,
        };
        (server, host)
    }

    /// Runs the dispatcher until the returned set is dropped.
    pub(crate) fn spawn_dispatcher(&self) -> JoinSet<()> {
        let mut dispatching = JoinSet::new();
        dispatching.spawn(run_dispatcher(
            Arc::clone(&self.app),
            self.app.stop_signal.clone(),
        ));
        dispatching
    }

    /// Waits until a job is in this state.
    pub(crate) async fn wait_for_job_state(&self, tenant: &TenantId, job: JobId, state: JobState) {
        let is_it = async || {
            let record = self.store.find_job(tenant, &job).await.unwrap();
            record.is_some_and(|record| record.state == state)
        };
        wait_until(self.app.ledger.subscribe(tenant), is_it).await;
    }

    /// Waits until a tenant has `waiting` queued jobs and `in_work` running jobs.
    pub(crate) async fn wait_for_job_counts(&self, tenant: &TenantId, waiting: usize, in_work: usize) {
        let are_so = async || self.app.admission.queued_and_running_jobs(tenant) == (waiting, in_work);
        wait_until(self.app.admission.subscribe_to_changes(), are_so).await;
    }
}

/// Waits until `holds` returns true. It is checked again whenever `moved` changes.
pub(crate) async fn wait_until(mut moved: watch::Receiver<()>, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        moved.mark_unchanged();
        while !holds().await {
            moved.changed().await.unwrap();
        }
    };
    tokio::time::timeout(WAIT_TIMEOUT, waiting)
        .await
        .expect("the condition was not met before the timeout");
}

/// Returns the shared state of a new host with fake ports.
pub(crate) fn test_app() -> Arc<AppState> {
    TestHost::new().app
}
