//! Whether the process lives, and whether it takes work.

use std::sync::Arc;

use axum::extract::State;

use crate::app::App;
use crate::problem::Problem;

/// Lives.
#[utoipa::path(get, path = "/healthz", tag = "host", security(()), responses(
    (status = 200, description = "the process lives", body = String, content_type = "text/plain"),
))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Takes work.
#[utoipa::path(get, path = "/readyz", tag = "host", security(()), responses(
    (status = 200, description = "the host takes work", body = String, content_type = "text/plain"),
    (status = 503, description = "it is stopping", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    if app.stopping.is_cancelled() {
        return Err(Problem::stopping("the host is stopping: ask another one"));
    }
    Ok("ok\n")
}
