//! What every handler shares, and the routes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use weir_core::manifest::Pipeline;
use weir_core::order::{OrderOptions, Orders};
use weir_core::settings::Settings;
use weir_core::tenancy::Registry;
use weir_core::usage::UsageBook;
use weir_core::{StorageError, TenantId};
use weir_engine::Engine;

use crate::documents::{self, Renderers};
use crate::events::{self, Feeds};
use crate::headers;
use crate::health;
use crate::hub::Announced;
use crate::listen::Listener;
use crate::metrics::{self, Metrics};
use crate::openapi::Description;
use crate::places::Places;
use crate::problem::Problem;
use crate::search::{self, SearchBuffer};
use crate::signed::{self, Links, SigningKey};
use crate::{page, requests};

/// Finds the pipeline a job runs.
#[async_trait::async_trait]
pub trait Pipelines: Send + Sync {
    /// The tenant's pipeline of this name with a job's options over its settings.
    async fn resolve(
        &self,
        tenant: &TenantId,
        name: &str,
        options: &OrderOptions,
    ) -> Result<Arc<Pipeline>, PipelineError>;
}

/// A pipeline that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    /// The tenant has none of that name.
    #[error("there is no pipeline '{0}'")]
    Unknown(String),
    /// It exists and cannot be loaded.
    #[error("pipeline '{name}' cannot be used: {reason}")]
    Unusable {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
}

/// What a server is made of.
pub struct ServerParts {
    /// Runs the jobs, over `ledger`.
    pub engine: Engine,
    /// The engine's ledger.
    pub ledger: Arc<Announced>,
    /// Tenants and keys.
    pub registry: Arc<dyn Registry>,
    /// What clients asked for.
    pub orders: Arc<dyn Orders>,
    /// What tenants used.
    pub usage: Arc<dyn UsageBook>,
    /// Pipelines by name.
    pub pipelines: Arc<dyn Pipelines>,
    /// Folder for uploads: `<originals>/<tenant>/<document>`.
    pub originals: PathBuf,
    /// Signs links to page images and lines.
    pub signing: SigningKey,
    /// The host's settings.
    pub settings: Settings,
}

/// What every handler shares.
pub struct App {
    pub(crate) engine: Engine,
    pub(crate) ledger: Arc<Announced>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) orders: Arc<dyn Orders>,
    pub(crate) usage: Arc<dyn UsageBook>,
    pub(crate) pipelines: Arc<dyn Pipelines>,
    pub(crate) originals: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) metrics: Metrics,
    /// Event streams.
    pub(crate) streams: Arc<Places>,
    /// Streams of hits.
    pub(crate) query_streams: Arc<Places>,
    pub(crate) feeds: Feeds,
    pub(crate) searches: Arc<SearchBuffer>,
    pub(crate) links: Links,
    pub(crate) renderers: Renderers,
    /// Cancelled once: no new work is taken from then on.
    pub(crate) stopping: CancellationToken,
}

/// Answers HTTP requests until it is told to stop.
pub struct Server {
    app: Arc<App>,
}

impl Server {
    /// A server that does not listen yet.
    pub fn new(parts: ServerParts) -> Self {
        let ServerParts {
            engine,
            ledger,
            registry,
            orders,
            usage,
            pipelines,
            originals,
            signing,
            settings,
        } = parts;
        Self {
            app: Arc::new(App {
                streams: Places::new("event", settings.server_streams, settings.server_tenant_streams),
                query_streams: Places::new("query", settings.stream_streams, settings.stream_tenant_streams),
                feeds: Feeds::new(Arc::clone(&ledger)),
                searches: SearchBuffer::new(&settings),
                links: Links::new(signing, settings.server_link_seconds.into()),
                renderers: Renderers::default(),
                engine,
                ledger,
                registry,
                orders,
                usage,
                pipelines,
                originals,
                metrics: Metrics::new(&settings),
                settings,
                stopping: CancellationToken::new(),
            }),
        }
    }

    /// What its handlers share.
    #[cfg(test)]
    pub(crate) fn app(&self) -> Arc<App> {
        Arc::clone(&self.app)
    }

    /// Serves connections of `listener` until `stop` ends, then takes no more work, gives requests under way and running jobs
    /// the grace time of the settings, and returns when all is written down.
    pub async fn serve(self, listener: Listener, stop: impl Future<Output = ()>) -> Result<(), StorageError> {
        let stopping = self.app.stopping.clone();
        let (router, _description) = routes(Arc::clone(&self.app));
        let mut tasks = JoinSet::new();
        let at_once = self.app.engine.ports().embedder.workers() as usize;
        tasks.spawn(Arc::clone(&self.app.searches).run(Arc::clone(&self.app) as _, at_once));
        let app = Arc::clone(&self.app);
        tasks.spawn(async move { app.metrics.upkeep().await });
        let serving = listener.serve(router, stopping.clone());
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => {}
            () = stop => {
                tracing::info!("stopping: no more work is taken");
                stopping.cancel();
                serving.await;
            }
        }
        self.app.streams.ended().await;
        self.app.query_streams.ended().await;
        tasks.shutdown().await;
        let grace = Duration::from_secs(self.app.settings.server_grace_seconds.into());
        self.app.engine.shutdown(grace).await
    }
}

/// All routes, and their description.
pub(crate) fn routes(app: Arc<App>) -> (Router, utoipa::openapi::OpenApi) {
    let (router, description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(events::job_events))
        .routes(routes!(events::job_events_ws))
        .routes(routes!(events::tenant_events))
        .routes(routes!(search::search))
        .routes(routes!(search::search_batch))
        .routes(routes!(search::stream_query))
        .routes(routes!(documents::list_documents))
        .routes(routes!(documents::document))
        .routes(routes!(documents::document_markdown))
        .routes(routes!(documents::page))
        .routes(routes!(documents::page_image))
        .routes(routes!(documents::page_lines))
        .routes(routes!(signed::signed_image))
        .routes(routes!(signed::signed_lines))
        .split_for_parts();
    let router = router
        .merge(page::router(&description))
        .fallback(|| async { Problem::not_found("there is nothing at this path: see /docs") })
        .method_not_allowed_fallback(|| async { Problem::method("see /docs for the methods of this path") })
        .with_state(app);
    (requests::around(headers::secured(router)), description)
}

/// The time in milliseconds since 1970.
pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
