//! The server, the state that all handlers share, and the routes.

use std::sync::Arc;
use std::time::Duration;

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
use weir_core::component::{ComponentStore, ComponentValidator};
use weir_core::document_removal::DocumentRemovalStore;
use weir_core::job_request::JobRequestStore;
use weir_core::replay::JobReplayer;
use weir_core::revision::PipelineStore;
use weir_core::settings::Settings;
use weir_core::shadow::ShadowStore;
use weir_core::tenancy::TenantStore;
use weir_core::uploads::UploadStore;
use weir_core::usage::UsageStore;
use weir_engine::Engine;

use crate::admission::{self, Admission};
use crate::commit_notifier::CommitNotifier;
use crate::documents::{self, MarkdownRenderLimit};
use crate::events::{self, EventFeeds};
use crate::http_input::ReadTimeoutBody;
use crate::jobs::ProgressCache;
use crate::listener::Listener;
use crate::metrics::{self, Metrics};
use crate::openapi::{self, ApiDescription};
use crate::outbound_client::OutboundClient;
use crate::pipelines::{self, DefaultComponents, TenantPipelines};
use crate::problem::Problem;
use crate::quota_limiter::QuotaLimiter;
use crate::search::{self, SearchBuffer};
use crate::signed_links::{self, LinkSigner, SigningKey};
use crate::stream_limiter::StreamLimiter;
use crate::upload_reservations::UploadReservations;
use crate::usage::{HostQuotas, QuotaSources, UsageRecorder};
use crate::webhook::{WebhookDelivery, WebhookSender};
use crate::{health, intake, jobs, request_middleware, security_headers, tenants, usage, web_page};

/// The stores and services that a server is built from.
pub struct ServerParts {
    /// Runs the jobs. It uses `ledger`.
    pub engine: Engine,
    /// The engine's ledger.
    pub ledger: Arc<CommitNotifier>,
    /// Tenants and keys.
    pub tenant_store: Arc<dyn TenantStore>,
    /// Job requests of clients.
    pub job_requests: Arc<dyn JobRequestStore>,
    /// Document removals that have begun and not ended.
    pub document_removals: Arc<dyn DocumentRemovalStore>,
    /// Recorded usage of tenants.
    pub usage_store: Arc<dyn UsageStore>,
    /// Collects the usage that the host causes on behalf of tenants.
    pub usage_recorder: Arc<UsageRecorder>,
    /// Pipelines of tenants and their revisions.
    pub pipelines: Arc<dyn PipelineStore>,
    /// Results of shadow revisions.
    pub shadows: Arc<dyn ShadowStore>,
    /// Component binaries.
    pub components: Arc<dyn ComponentStore>,
    /// Validates a component before it is stored.
    pub component_validator: Arc<dyn ComponentValidator>,
    /// Replays a job's decisions.
    pub job_replayer: Arc<dyn JobReplayer>,
    /// The default components of the host.
    pub default_components: Arc<dyn DefaultComponents>,
    /// Uploaded files.
    pub upload_store: Arc<dyn UploadStore>,
    /// Signs links to page images and page lines.
    pub signing_key: SigningKey,
    /// The host's settings.
    pub settings: Settings,
}

/// State that all handlers share.
pub struct AppState {
    pub(crate) engine: Engine,
    pub(crate) ledger: Arc<CommitNotifier>,
    pub(crate) tenant_store: Arc<dyn TenantStore>,
    pub(crate) job_requests: Arc<dyn JobRequestStore>,
    pub(crate) document_removals: Arc<dyn DocumentRemovalStore>,
    pub(crate) usage_store: Arc<dyn UsageStore>,
    pub(crate) usage_recorder: Arc<UsageRecorder>,
    pub(crate) tenant_pipelines: TenantPipelines,
    pub(crate) upload_store: Arc<dyn UploadStore>,
    pub(crate) upload_reservations: Arc<UploadReservations>,
    pub(crate) settings: Settings,
    pub(crate) quota_limiter: QuotaLimiter,
    pub(crate) admission: Arc<Admission>,
    pub(crate) progress_cache: ProgressCache,
    pub(crate) outbound_client: Arc<OutboundClient>,
    /// Held while a tenant's keys are counted and a key is added, so that the limit of keys holds.
    pub(crate) key_creation_lock: tokio::sync::Mutex<()>,
    /// Tasks that run to completion even if their client disconnects.
    background_tasks: TaskTracker,
    pub(crate) metrics: Metrics,
    /// Limits the number of open event streams.
    pub(crate) event_stream_limiter: Arc<StreamLimiter>,
    /// Limits the number of open search streams.
    pub(crate) search_stream_limiter: Arc<StreamLimiter>,
    pub(crate) event_feeds: EventFeeds,
    pub(crate) search_buffer: Arc<SearchBuffer>,
    pub(crate) link_signer: LinkSigner,
    pub(crate) markdown_render_limit: MarkdownRenderLimit,
    /// Cancelled when the server begins to stop. It accepts no new work from then on.
    pub(crate) stop_signal: CancellationToken,
}

/// An HTTP server that runs until it receives a stop signal.
pub struct Server {
    app: Arc<AppState>,
}

impl Server {
    /// Builds a server. [`Server::serve`] starts it.
    pub fn new(parts: ServerParts) -> Self {
        let ServerParts {
            engine,
            ledger,
            tenant_store: registry,
            job_requests: orders,
            document_removals: removals,
            usage_store: usage,
            usage_recorder: metering,
            pipelines,
            shadows,
            components,
            component_validator: gate,
            job_replayer: replays,
            default_components: defaults,
            upload_store: uploads,
            signing_key: signing,
            settings,
        } = parts;
        let metrics = Metrics::new(&settings);
        metering.set_quota_sources(QuotaSources {
            tenants: Arc::clone(&registry),
            usage_store: Arc::clone(&usage),
            host_quotas: HostQuotas::new(&settings),
            tenant_labels: metrics.tenant_labels(),
        });
        Self {
            app: Arc::new(AppState {
                event_stream_limiter: StreamLimiter::new(
                    "event",
                    settings.server_max_event_streams,
                    settings.server_max_event_streams_per_tenant,
                ),
                search_stream_limiter: StreamLimiter::new(
                    "query",
                    settings.query_stream_max_streams,
                    settings.query_stream_max_streams_per_tenant,
                ),
                event_feeds: EventFeeds::new(Arc::clone(&ledger)),
                search_buffer: SearchBuffer::new(&settings),
                link_signer: LinkSigner::new(signing, settings.server_signed_link_lifetime_seconds.into()),
                markdown_render_limit: MarkdownRenderLimit::default(),
                engine,
                ledger,
                tenant_store: registry,
                job_requests: orders,
                document_removals: removals,
                usage_store: usage,
                usage_recorder: metering,
                tenant_pipelines: TenantPipelines::new(
                    pipelines, components, gate, replays, shadows, defaults,
                ),
                upload_store: uploads,
                upload_reservations: UploadReservations::new(&settings),
                quota_limiter: QuotaLimiter::new(&settings),
                admission: Admission::new(&settings),
                progress_cache: ProgressCache::default(),
                outbound_client: Arc::new(OutboundClient::new(&settings)),
                key_creation_lock: tokio::sync::Mutex::default(),
                background_tasks: TaskTracker::new(),
                metrics,
                settings,
                stop_signal: CancellationToken::new(),
            }),
        }
    }

    #[cfg(test)]
    pub(crate) fn app_state(&self) -> Arc<AppState> {
        Arc::clone(&self.app)
    }

    /// Serves the connections of `listener` until `stop` completes.
    ///
    /// The server then accepts no more work, waits up to the grace period of the settings for active requests and running
    /// jobs, and returns when all state is stored. Jobs that have not ended by then resume at the next start.
    pub async fn serve(self, listener: Listener, stop: impl Future<Output = ()>) -> Result<(), StorageError> {
        let app = self.app;
        intake::recover_staged_files(app.upload_store.as_ref(), app.job_requests.as_ref()).await?;
        documents::resume_removals(&app).await?;
        admission::requeue_unfinished_jobs(&app).await?;
        let (router, _description) = build_router(Arc::clone(&app));
        let stopping = app.stop_signal.clone();
        let mut tasks = JoinSet::new();
        let at_once = app.engine.ports().embedder.worker_count() as usize;
        tasks.spawn(Arc::clone(&app.search_buffer).dispatch_batches(Arc::clone(&app) as _, at_once));
        let measured = Arc::clone(&app);
        tasks.spawn(async move { measured.metrics.run_upkeep_loop().await });
        let post: Arc<dyn WebhookSender> = app.outbound_client.clone();
        tasks.spawn(
            WebhookDelivery::new(
                Arc::clone(&app.ledger),
                Arc::clone(&app.job_requests),
                post,
                &app.settings,
            )
            .run_delivery_loop(),
        );
        // Usage is collected until the last job and the last request have ended.
        let used = CancellationToken::new();
        let serving = async {
            let told = async {
                stop.await;
                tracing::info!("stopping: the server accepts no more work");
                stopping.cancel();
            };
            tokio::join!(listener.serve_connections(router, stopping.clone()), told);
        };
        let ending = async {
            stopping.cancelled().await;
            let grace = Duration::from_secs(app.settings.server_shutdown_grace_seconds.into());
            app.engine.suspend_all_jobs(grace).await
        };
        let working = async {
            let dispatching = admission::run_dispatcher(Arc::clone(&app), stopping.clone());
            let ((), ended, ()) = tokio::join!(serving, ending, dispatching);
            app.event_stream_limiter.wait_until_closed().await;
            app.search_stream_limiter.wait_until_closed().await;
            app.background_tasks.close();
            app.background_tasks.wait().await;
            tasks.shutdown().await;
            used.cancel();
            ended
        };
        let (ended, ()) = tokio::join!(
            working,
            app.usage_recorder
                .flush_periodically(app.usage_store.as_ref(), used.clone())
        );
        ended
    }
}

impl AppState {
    /// Runs `work` to completion even if the client disconnects, and returns its result.
    pub(crate) async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let worked = self.background_tasks.spawn(work.in_current_span()).await;
        worked.unwrap_or_else(|died| {
            Err(Problem::internal_error(format!(
                "a task of the host panicked: {died}"
            )))
        })
    }
}

/// Builds the router with all routes, and the OpenAPI description of them.
pub(crate) fn build_router(app: Arc<AppState>) -> (Router, utoipa::openapi::OpenApi) {
    let (router, description) = OpenApiRouter::with_openapi(ApiDescription::openapi())
        .routes(routes!(health::get_liveness))
        .routes(routes!(health::get_readiness))
        .routes(routes!(intake::create_job, jobs::list_jobs))
        .routes(routes!(jobs::get_job, jobs::cancel_job))
        .routes(routes!(jobs::get_job_page))
        .routes(routes!(jobs::get_job_log))
        .routes(routes!(jobs::retry_job))
        .routes(routes!(jobs::get_job_diagnosis))
        .routes(routes!(usage::get_usage))
        .routes(routes!(pipelines::push_component, pipelines::list_components))
        .routes(routes!(pipelines::get_component, pipelines::remove_component))
        .routes(routes!(pipelines::list_pipelines))
        .routes(routes!(pipelines::get_pipeline))
        .routes(routes!(pipelines::push_revision, pipelines::list_revisions))
        .routes(routes!(pipelines::get_revision))
        .routes(routes!(pipelines::get_rollout, pipelines::change_rollout))
        .routes(routes!(pipelines::list_audit_log))
        .routes(routes!(pipelines::replay_job))
        .routes(routes!(tenants::create_tenant, tenants::list_tenants))
        .routes(routes!(
            tenants::get_tenant,
            tenants::change_tenant,
            tenants::remove_tenant
        ))
        .routes(routes!(tenants::create_key, tenants::list_keys))
        .routes(routes!(tenants::revoke_key))
        .routes(routes!(tenants::rotate_key))
        .routes(routes!(metrics::get_metrics))
        .routes(routes!(events::stream_job_events))
        .routes(routes!(events::stream_tenant_events))
        .routes(routes!(search::search_passages))
        .routes(routes!(search::search_batch))
        .routes(routes!(search::stream_query))
        .routes(routes!(documents::list_documents))
        .routes(routes!(documents::get_document, documents::delete_document))
        .routes(routes!(documents::get_document_markdown))
        .routes(routes!(documents::get_document_summaries))
        .routes(routes!(documents::get_page))
        .routes(routes!(documents::get_page_image))
        .routes(routes!(documents::get_page_lines))
        .routes(routes!(signed_links::get_signed_image))
        .routes(routes!(signed_links::get_signed_lines))
        .split_for_parts();
    let description = openapi::complete_description(description);
    let wait = Duration::from_secs(app.settings.server_transfer_idle_timeout_seconds.into());
    let tasks = app.background_tasks.clone();
    let paced = move |request: Request| {
        let request =
            request.map(|body| axum::body::Body::new(ReadTimeoutBody::new(body, wait, tasks.clone())));
        std::future::ready(request)
    };
    let router = router
        // OpenAPI cannot describe a WebSocket. The operation for events over HTTP documents this path.
        .route(
            "/v1/jobs/{id}/events/ws",
            axum::routing::any(events::stream_job_events_ws),
        )
        .merge(web_page::build_static_router(&description))
        .fallback(|| async { Problem::not_found("this path does not exist: see /docs") })
        .method_not_allowed_fallback(|| async {
            Problem::method_not_allowed("this path does not support the method: see /docs")
        })
        .layer(middleware::map_request(paced))
        .with_state(app);
    (
        request_middleware::add_middleware(security_headers::add_security_headers(router)),
        description,
    )
}
