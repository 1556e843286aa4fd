//! Liveness and readiness probes.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use weir_control::Control;
use weir_core::node::NodeRole;
use weir_core::store_status::StoreStatus;
use weir_core::{StorageError, TenantId};

use crate::nodes::NodeRoleName;
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

/// The state of a node that is ready.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// The name of the node.
    node: String,
    /// What the node does.
    #[schema(value_type = NodeRoleName)]
    role: NodeRole,
    /// The stores of the node. Only the ledger decides whether it is ready: without another store, requests that need it fail and jobs wait.
    stores: Vec<StoreState>,
}

/// The state of a store, by its latest call.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StoreState {
    /// Its name: `ledger`, `blobs`, `vectors` or `redis`.
    store: &'static str,
    /// Whether its latest call succeeded.
    available: bool,
    /// Since when its calls fail, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_since_millis: Option<u64>,
}

impl From<&StoreStatus> for StoreState {
    fn from(status: &StoreStatus) -> Self {
        let failing_since_millis = status.failing_since_millis();
        Self {
            store: status.name(),
            available: failing_since_millis.is_none(),
            failing_since_millis,
        }
    }
}

/// Readiness probe.
///
/// Fails as soon as the host begins to stop, and while the ledger does not respond.
#[utoipa::path(get, path = "/readyz", tag = "host", security(()), responses(
    (status = 200, description = "The host accepts requests", body = Readiness),
    (status = 503, description = "The host is stopping, or its ledger does not respond", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn get_readiness(State(control): State<Arc<Control>>) -> Result<Json<Readiness>, Problem> {
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
    let node = control.claims.node();
    Ok(Json(Readiness {
        node: node.id.host().to_owned(),
        role: node.role,
        stores: control
            .store_statuses
            .iter()
            .map(|status| StoreState::from(status.as_ref()))
            .collect(),
    }))
}
