//! Liveness and readiness probes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use weir_control::Control;
use weir_core::{StorageError, TenantId};

use crate::problem::Problem;

/// Time that the ledger may take to respond to the readiness probe.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(2);

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
/// Fails as soon as the host begins to stop, and while the ledger does not respond.
#[utoipa::path(get, path = "/readyz", tag = "host", security(()), responses(
    (status = 200, description = "The host accepts requests", body = String, content_type = "text/plain"),
    (status = 503, description = "The host is stopping, or its ledger does not respond", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn get_readiness(State(control): State<Arc<Control>>) -> Result<&'static str, Problem> {
    if control.stop_signal.is_cancelled() {
        return Err(Problem::stopping("the host is stopping: use another host"));
    }
    // Any lookup shows whether the ledger responds.
    let tenant = TenantId::default_tenant();
    let lookup = control.tenant_store.find_tenant(&tenant);
    match tokio::time::timeout(LEDGER_TIMEOUT, lookup).await {
        Ok(found) => found?,
        Err(_) => {
            return Err(StorageError::Unavailable {
                what: "the ledger".into(),
                reason: format!("no response within {} seconds", LEDGER_TIMEOUT.as_secs()),
            }
            .into());
        }
    };
    Ok("ok\n")
}
