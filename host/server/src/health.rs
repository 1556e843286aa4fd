//! Whether the process lives, and whether it takes work.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use crate::app::App;
use crate::problem::Problem;

/// Lives.
#[utoipa::path(get, path = "/healthz", tag = "host", security(()), responses((status = 200, description = "the process lives")))]
pub(crate) async fn healthz() -> StatusCode {
    StatusCode::OK
}

/// Takes work.
#[utoipa::path(get, path = "/readyz", tag = "host", security(()), responses(
    (status = 200, description = "the host takes work"),
    (status = 503, description = "it is stopping", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<StatusCode, Problem> {
    if app.stopping.is_cancelled() {
        return Err(Problem::stopping("the host is stopping: ask another one"));
    }
    Ok(StatusCode::OK)
}
