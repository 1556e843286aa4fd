//! The routes of the API, and the security headers of every response.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::{Router, middleware};
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http_input::ReadTimeoutBody;
use crate::openapi::{self, ApiDescription};
use crate::problem::Problem;
use crate::state::AppState;
use crate::{
    documents, events, health, intake, jobs, metrics, nodes, pipelines, request_middleware, search, tenants,
    usage, web_page,
};

/// Security headers of responses whose handler has not set them. Browsers must not guess the content type, must not cache a response
/// unless its handler allows it, and must not show it in a frame of another site.
const DEFAULT_HEADERS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
];

/// Builds the router of a node that only runs jobs.
pub(crate) fn build_router_of_worker(app: AppState) -> Router {
    let (router, _description) = OpenApiRouter::<AppState>::new()
        .routes(routes!(health::get_liveness))
        .routes(routes!(health::get_readiness))
        .routes(routes!(metrics::get_metrics))
        .split_for_parts();
    let router = router
        .fallback(|| async {
            Problem::not_found(
                "this node only runs jobs (cluster.role = worker): send the request to a node with another role",
            )
        })
        .with_state(app);
    request_middleware::add_request_middleware(add_security_headers(router))
}

/// Builds the router with all routes, and the OpenAPI description of them.
pub(crate) fn build_router_and_openapi(app: AppState) -> (Router, utoipa::openapi::OpenApi) {
    let (router, description) = OpenApiRouter::with_openapi(ApiDescription::openapi())
        .routes(routes!(health::get_liveness))
        .routes(routes!(health::get_readiness))
        .routes(routes!(nodes::list_nodes))
        .routes(routes!(intake::create_job, jobs::list_jobs))
        .routes(routes!(jobs::get_job, jobs::cancel_job))
        .routes(routes!(jobs::remove_job_history))
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
        .routes(routes!(tenants::get_own_key))
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
        .routes(routes!(documents::get_signed_image))
        .routes(routes!(documents::get_signed_lines))
        .split_for_parts();
    let description = openapi::complete_description(description);
    let read_timeout = Duration::from_secs(app.control.settings.server_transfer_idle_timeout_seconds.into());
    let tasks = app.control.background_tasks.clone();
    let add_read_timeout = move |request: Request| {
        let request = request
            .map(|body| axum::body::Body::new(ReadTimeoutBody::new(body, read_timeout, tasks.clone())));
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
        .layer(middleware::map_request(add_read_timeout))
        .with_state(app);
    (
        request_middleware::add_request_middleware(add_security_headers(router)),
        description,
    )
}

/// Adds the default security headers to all responses of a router.
fn add_security_headers(router: Router) -> Router {
    DEFAULT_HEADERS.into_iter().fold(router, |router, (name, value)| {
        router.layer(SetResponseHeaderLayer::if_not_present(
            name,
            HeaderValue::from_static(value),
        ))
    })
}
