//! A host over all of this.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use weir_core::ledger::JobState;
use weir_core::ports::Ledger as _;
use weir_core::settings::Settings;
use weir_core::{JobId, TenantId};
use weir_engine::{Engine, EngineConfig, Ports};

use super::{Blobs, Components, Counting, Files, Memory, Vectors, Works};
use crate::admission::dispatch;
use crate::app::{App, Server, ServerParts};
use crate::hub::Announced;
use crate::signed::SigningKey;
use crate::usage::Metering;

/// Longer than anything here takes: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host in memory, but for its files.
pub(crate) struct Host {
    pub(crate) app: Arc<App>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) vectors: Arc<Vectors>,
    pub(crate) embedder: Arc<Counting>,
    pub(crate) works: Arc<Works>,
    pub(crate) files: Arc<Files>,
    pub(crate) components: Arc<Components>,
    data: Arc<tempfile::TempDir>,
}

impl Host {
    /// A host with the settings' defaults.
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        Self::serving(settings).1
    }

    /// With a server that does not listen yet.
    pub(crate) fn serving(settings: Settings) -> (Server, Self) {
        let data = tempfile::tempdir().unwrap();
        Self::over(Arc::default(), Arc::new(data), settings)
    }

    /// The next process, over what this one has written down.
    pub(crate) fn again(&self) -> Self {
        let (memory, data) = (Arc::clone(&self.memory), Arc::clone(&self.data));
        Self::over(memory, data, self.app.settings.clone()).1
    }

    fn over(memory: Arc<Memory>, data: Arc<tempfile::TempDir>, settings: Settings) -> (Server, Self) {
        let (blobs, vectors, embedder) = <(Arc<Blobs>, Arc<Vectors>, Arc<Counting>)>::default();
        let ledger = Announced::new(memory.clone());
        let works = Arc::new(Works::default());
        let metering = Metering::new();
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
        let files = Files::new(&data.path().join("originals"), memory.clone());
        let components = Components::new(&data.path().join("components"));
        let server = Server::new(ServerParts {
            engine: Engine::new(ports, EngineConfig::from_settings(&settings)),
            ledger,
            registry: memory.clone(),
            orders: memory.clone(),
            removals: memory.clone(),
            usage: memory.clone(),
            metering,
            pipelines: memory.clone(),
            shadows: memory.clone(),
            components: components.clone(),
            gate: works.clone(),
            replays: works.clone(),
            defaults: works.clone(),
            originals: files.clone(),
            signing: SigningKey::open(data.path()).unwrap(),
            settings,
        });
        let host = Self {
            app: server.app(),
            memory,
            blobs,
            vectors,
            embedder,
            works,
            files,
            components,
            data,
        };
        (server, host)
    }

    /// Starts jobs until this is dropped.
    pub(crate) fn dispatching(&self) -> JoinSet<()> {
        let mut dispatching = JoinSet::new();
        dispatching.spawn(dispatch(Arc::clone(&self.app), self.app.stopping.clone()));
        dispatching
    }

    /// Waits until a job is in this state.
    pub(crate) async fn until(&self, tenant: &TenantId, job: JobId, state: JobState) {
        let is_it = async || {
            let record = self.memory.job(tenant, &job).await.unwrap();
            record.is_some_and(|record| record.state == state)
        };
        eventually(self.app.ledger.bell(tenant), is_it).await;
    }

    /// Waits until so many jobs of a tenant wait and so many are in work.
    pub(crate) async fn until_counts(&self, tenant: &TenantId, waiting: usize, in_work: usize) {
        let are_so = async || self.app.admission.counts(tenant) == (waiting, in_work);
        eventually(self.app.admission.moves(), are_so).await;
    }
}

/// Waits until `holds`, which can only change when `moved` says so.
pub(crate) async fn eventually(mut moved: watch::Receiver<()>, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        moved.mark_unchanged();
        while !holds().await {
            moved.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("it never came to hold");
}

/// What handlers share on a host in memory.
pub(crate) fn app() -> Arc<App> {
    Host::new().app
}
