//! What every handler shares, and the routes.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::{Router, middleware};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use weir_core::StorageError;
use weir_core::component::{ComponentStore, Gate};
use weir_core::order::Orders;
use weir_core::original::Originals;
use weir_core::removal::Removals;
use weir_core::replay::Replays;
use weir_core::revision::PipelineBook;
use weir_core::settings::Settings;
use weir_core::shadow::ShadowBook;
use weir_core::tenancy::Registry;
use weir_core::usage::UsageBook;
use weir_engine::Engine;

use crate::admission::{self, Admission};
use crate::documents::{self, Renderers};
use crate::events::{self, Feeds};
use crate::hub::Announced;
use crate::jobs::ProgressBook;
use crate::listen::Listener;
use crate::metrics::{self, Metrics};
use crate::openapi::{self, Description};
use crate::outbound::Outbound;
use crate::pipelines::{self, Defaults, Shelf};
use crate::places::Places;
use crate::problem::Problem;
use crate::quota::QuotaDesk;
use crate::search::{self, SearchBuffer};
use crate::signed::{self, Links, SigningKey};
use crate::uploads::UploadsInFlight;
use crate::usage::{HostQuotas, Metering, QuotaSources};
use crate::webhook::{Post, Webhooks};
use crate::wire::Paced;
use crate::{headers, health, intake, jobs, page, requests, tenants, usage};

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
    /// Documents that are being removed.
    pub removals: Arc<dyn Removals>,
    /// What tenants used.
    pub usage: Arc<dyn UsageBook>,
    /// Told of what tenants use, by whoever works for them.
    pub metering: Arc<Metering>,
    /// Revisions of tenants' pipelines.
    pub pipelines: Arc<dyn PipelineBook>,
    /// What their shadows would have decided.
    pub shadows: Arc<dyn ShadowBook>,
    /// The components they are made of.
    pub components: Arc<dyn ComponentStore>,
    /// Looks at components before they are let in.
    pub gate: Arc<dyn Gate>,
    /// Has the decisions of jobs again.
    pub replays: Arc<dyn Replays>,
    /// The host's own components.
    pub defaults: Arc<dyn Defaults>,
    /// The files that clients sent.
    pub originals: Arc<dyn Originals>,
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
    pub(crate) removals: Arc<dyn Removals>,
    pub(crate) usage: Arc<dyn UsageBook>,
    pub(crate) metering: Arc<Metering>,
    pub(crate) shelf: Shelf,
    pub(crate) originals: Arc<dyn Originals>,
    pub(crate) uploads: Arc<UploadsInFlight>,
    pub(crate) settings: Settings,
    pub(crate) quotas: QuotaDesk,
    pub(crate) admission: Arc<Admission>,
    pub(crate) progress: ProgressBook,
    pub(crate) outbound: Arc<Outbound>,
    /// Held while a tenant's keys are counted and one is added.
    pub(crate) registry_turn: tokio::sync::Mutex<()>,
    /// Work that goes on to its end although its client has gone.
    tasks: TaskTracker,
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
            removals,
            usage,
            metering,
            pipelines,
            shadows,
            components,
            gate,
            replays,
            defaults,
            originals,
            signing,
            settings,
        } = parts;
        let metrics = Metrics::new(&settings);
        metering.limit(QuotaSources {
            registry: Arc::clone(&registry),
            usage: Arc::clone(&usage),
            host: HostQuotas::new(&settings),
            labels: metrics.labels(),
        });
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
                removals,
                usage,
                metering,
                shelf: Shelf::new(pipelines, components, gate, replays, shadows, defaults),
                originals,
                uploads: UploadsInFlight::new(&settings),
                quotas: QuotaDesk::new(&settings),
                admission: Admission::new(&settings),
                progress: ProgressBook::default(),
                outbound: Arc::new(Outbound::new(&settings)),
                registry_turn: tokio::sync::Mutex::default(),
                tasks: TaskTracker::new(),
                metrics,
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
    /// the grace time of the settings, and returns when all is written down. Jobs that have not ended by then go on at the
    /// next start.
    pub async fn serve(self, listener: Listener, stop: impl Future<Output = ()>) -> Result<(), StorageError> {
        let app = self.app;
        intake::recover(app.originals.as_ref(), app.orders.as_ref()).await?;
        documents::resume_removals(&app).await?;
        admission::restore(&app).await?;
        let (router, _description) = routes(Arc::clone(&app));
        let stopping = app.stopping.clone();
        let mut tasks = JoinSet::new();
        let at_once = app.engine.ports().embedder.workers() as usize;
        tasks.spawn(Arc::clone(&app.searches).run(Arc::clone(&app) as _, at_once));
        let measured = Arc::clone(&app);
        tasks.spawn(async move { measured.metrics.upkeep().await });
        let post: Arc<dyn Post> = app.outbound.clone();
        tasks.spawn(
            Webhooks::new(
                Arc::clone(&app.ledger),
                Arc::clone(&app.orders),
                post,
                &app.settings,
            )
            .run(),
        );
        // Usage is gathered until the last job and request have ended.
        let used = CancellationToken::new();
        let serving = async {
            let told = async {
                stop.await;
                tracing::info!("stopping: no more work is taken");
                stopping.cancel();
            };
            tokio::join!(listener.serve(router, stopping.clone()), told);
        };
        let ending = async {
            stopping.cancelled().await;
            let grace = Duration::from_secs(app.settings.server_grace_seconds.into());
            app.engine.suspend(grace).await
        };
        let working = async {
            let dispatching = admission::dispatch(Arc::clone(&app), stopping.clone());
            let ((), ended, ()) = tokio::join!(serving, ending, dispatching);
            app.streams.ended().await;
            app.query_streams.ended().await;
            app.tasks.close();
            app.tasks.wait().await;
            tasks.shutdown().await;
            used.cancel();
            ended
        };
        let (ended, ()) = tokio::join!(
            working,
            app.metering.keep_writing(app.usage.as_ref(), used.clone())
        );
        ended
    }
}

impl App {
    /// Does `work` to its end although the request's client may go away meanwhile, and waits for it.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let worked = self.tasks.spawn(work.in_current_span()).await;
        worked.unwrap_or_else(|died| Err(Problem::internal(format!("a task of the host died: {died}"))))
    }
}

/// All routes, and their description.
pub(crate) fn routes(app: Arc<App>) -> (Router, utoipa::openapi::OpenApi) {
    let (router, description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(intake::submit, jobs::jobs))
        .routes(routes!(jobs::job, jobs::cancel))
        .routes(routes!(jobs::job_page))
        .routes(routes!(jobs::job_log))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::job_diagnosis))
        .routes(routes!(usage::usage))
        .routes(routes!(pipelines::push_component, pipelines::components))
        .routes(routes!(pipelines::component, pipelines::remove_component))
        .routes(routes!(pipelines::pipelines))
        .routes(routes!(pipelines::pipeline))
        .routes(routes!(pipelines::push_revision, pipelines::revisions))
        .routes(routes!(pipelines::revision))
        .routes(routes!(pipelines::rollout, pipelines::change_rollout))
        .routes(routes!(pipelines::history))
        .routes(routes!(pipelines::replay))
        .routes(routes!(tenants::create_tenant, tenants::tenants))
        .routes(routes!(
            tenants::tenant,
            tenants::change_tenant,
            tenants::remove_tenant
        ))
        .routes(routes!(tenants::create_key, tenants::keys))
        .routes(routes!(tenants::revoke_key))
        .routes(routes!(tenants::rotate_key))
        .routes(routes!(metrics::metrics))
        .routes(routes!(events::job_events))
        .routes(routes!(events::tenant_events))
        .routes(routes!(search::search))
        .routes(routes!(search::search_batch))
        .routes(routes!(search::stream_query))
        .routes(routes!(documents::list_documents))
        .routes(routes!(documents::document, documents::delete_document))
        .routes(routes!(documents::document_markdown))
        .routes(routes!(documents::document_summary))
        .routes(routes!(documents::page))
        .routes(routes!(documents::page_image))
        .routes(routes!(documents::page_lines))
        .routes(routes!(signed::signed_image))
        .routes(routes!(signed::signed_lines))
        .split_for_parts();
    let description = openapi::finished(description);
    let wait = Duration::from_secs(app.settings.server_stall_seconds.into());
    let tasks = app.tasks.clone();
    let paced = move |request: Request| {
        let request = request.map(|body| axum::body::Body::new(Paced::new(body, wait, tasks.clone())));
        std::future::ready(request)
    };
    let router = router
        // No operation that OpenAPI could describe: what it does is said with the events over HTTP.
        .route(
            "/v1/jobs/{id}/events/ws",
            axum::routing::any(events::job_events_ws),
        )
        .merge(page::router(&description))
        .fallback(|| async { Problem::not_found("there is nothing at this path: see /docs") })
        .method_not_allowed_fallback(|| async { Problem::method("see /docs for the methods of this path") })
        .layer(middleware::map_request(paced))
        .with_state(app);
    (requests::around(headers::secured(router)), description)
}

/// The time in milliseconds since 1970.
pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
