//! Liveness and readiness probes.

use std::sync::Arc;

use axum::extract::State;
use weir_control::Control;

use crate::problem::Problem;

/// Liveness probe.
///
/// Succeeds as long as the process can serve requests.
#[utoipa::path(get, path = "/healthz", tag = "host", security(()), responses(
    (status = 200, description = "The process is alive", body = String, content_type = "text/plain"),
))]
pub(crate) async fn get_liveness() -> &'static str {
    "ok\n"
}

/// Readiness probe.
///
/// Fails as soon as the host begins to stop.
#[utoipa::path(get, path = "/readyz", tag = "host", security(()), responses(
    (status = 200, description = "The host accepts requests", body = String, content_type = "text/plain"),
    (status = 503, description = "The host is stopping", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn get_readiness(State(control): State<Arc<Control>>) -> Result<&'static str, Problem> {
    if control.stop_signal.is_cancelled() {
        return Err(Problem::stopping("the host is stopping: use another host"));
    }
    Ok("ok\n")
}
