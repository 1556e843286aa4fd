//! The nodes that share the ledger.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use weir_control::Control;
use weir_core::node::{NodeRecord, NodeRole};
use weir_core::tenancy::KeyScope;

use crate::auth::Caller;
use crate::problem::Problem;

/// What a node does.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code)] // only for the OpenAPI description
pub(crate) enum NodeRoleName {
    /// It serves the API.
    Api,
    /// It runs jobs.
    Worker,
    /// It serves the API and runs jobs.
    Both,
}

/// A process that shares the ledger with others.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeView {
    /// The name of the process. It begins with the name of the node.
    id: String,
    /// The name of the node: the setting `cluster.node`, or the name of its machine.
    name: String,
    /// What the node does.
    #[schema(value_type = NodeRoleName)]
    role: NodeRole,
    /// Its version of weir.
    version: String,
    /// Whether its lease is running. A node that is not alive was killed, is cut off from the ledger, or is frozen.
    alive: bool,
    /// When it started, in milliseconds since 1970.
    started_millis: u64,
    /// Milliseconds since it has renewed its lease.
    renewed_millis_ago: u64,
    /// The jobs that it runs.
    jobs: Vec<ClaimedJob>,
}

/// A job that a node runs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClaimedJob {
    /// The tenant of the job.
    tenant: String,
    /// The job.
    job: String,
    /// How often nodes have started the job so far.
    epoch: u64,
}

impl From<NodeRecord> for NodeView {
    fn from(record: NodeRecord) -> Self {
        let age = record.last_renewal_age.as_millis();
        let jobs = record.claims.into_iter().map(|claim| ClaimedJob {
            tenant: claim.tenant.to_string(),
            job: claim.job.to_string(),
            epoch: claim.epoch,
        });
        Self {
            id: record.node.id.to_string(),
            name: record.node.id.host().to_owned(),
            role: record.node.role,
            version: record.node.version,
            alive: record.is_alive,
            started_millis: record.started_millis,
            renewed_millis_ago: age.try_into().unwrap_or(u64::MAX),
            jobs: jobs.collect(),
        }
    }
}

/// All nodes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodeList {
    /// The nodes, by name. Nodes that have not stopped by themselves stay in the list for an hour.
    nodes: Vec<NodeView>,
}

/// List nodes.
///
/// The processes that share the ledger, and the jobs that each of them runs.
#[utoipa::path(get, path = "/v1/nodes", tag = "host", responses(
    (status = 200, description = "The nodes", body = NodeList),
    (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The ledger does not respond", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn list_nodes(
    State(control): State<Arc<Control>>,
    caller: Caller,
) -> Result<Json<NodeList>, Problem> {
    caller.require_scope(KeyScope::Admin)?;
    let records = control.claims.list_nodes().await?;
    Ok(Json(NodeList {
        nodes: records.into_iter().map(NodeView::from).collect(),
    }))
}
