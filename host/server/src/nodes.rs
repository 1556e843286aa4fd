//! The nodes that share the ledger.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use weir_control::Control;
use weir_core::node::{NodeRecord, NodeRole};
use weir_core::tenancy::KeyScope;

use crate::auth::Caller;
use crate::problem::Problem;

/// The role of a node.
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
    /// Milliseconds since it started.
    uptime_millis: u64,
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
        let to_millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
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
            uptime_millis: to_millis(record.uptime),
            renewed_millis_ago: to_millis(record.last_renewal_age),
            jobs: jobs.collect(),
        }
    }
}

/// All nodes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodeList {
    /// The nodes, sorted by name. Nodes that have not stopped by themselves stay in the list for an hour.
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

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Response;
    use tower::ServiceExt as _;
    use weir_core::job_claim::NodeId;
    use weir_core::node::{NodeInfo, NodeRegistry as _};

    use super::*;
    use crate::fakes::{TestHost, parse_json, parse_problem};
    use crate::routes::build_router_of_worker;

    #[tokio::test]
    async fn admin_sees_the_nodes_and_their_state() {
        let host = TestHost::new();
        let lease = Duration::from_secs(60);
        let worker = NodeInfo {
            id: NodeId::new_unique("worker-1"),
            role: NodeRole::Worker,
            version: "1.2.3".into(),
        };
        host.store.renew_node(&worker, lease).await.unwrap();
        let (_, admin) = host.create_tenant("admin", &[KeyScope::Admin]).await;
        let list = parse_json(host.send_get("/v1/nodes", &admin).await).await;
        let [node] = list["nodes"].as_array().unwrap().as_slice() else {
            panic!("{list}");
        };
        assert_eq!(
            (&node["name"], &node["role"], &node["version"]),
            (&"worker-1".into(), &"worker".into(), &"1.2.3".into())
        );
        assert_eq!(
            (&node["alive"], &node["jobs"]),
            (&true.into(), &serde_json::json!([]))
        );
        let (_, reader) = host.create_tenant("reader", &[KeyScope::Read]).await;
        let refused = parse_problem(host.send_get("/v1/nodes", &reader).await).await;
        assert_eq!(refused.status, 403);
    }

    #[tokio::test]
    async fn any_key_shows_its_own_scopes() {
        let host = TestHost::new();
        let (_, key) = host
            .create_tenant("acme", &[KeyScope::Read, KeyScope::Ingest])
            .await;
        let own = parse_json(host.send_get("/v1/key", &key).await).await;
        assert_eq!(
            (&own["tenant"], &own["scopes"]),
            (&"acme".into(), &serde_json::json!(["ingest", "read"]))
        );
        assert!(key.contains(own["id"].as_str().unwrap()), "{own}");
    }

    #[tokio::test]
    async fn worker_serves_probes_and_metrics_only() {
        let host = TestHost::new();
        let (_, admin) = host.create_tenant("admin", &[KeyScope::Admin]).await;
        let get = async |path: &str| -> Response<Body> {
            let request = TestHost::build_request("GET", path, &admin, Body::empty());
            build_router_of_worker(host.app.clone())
                .oneshot(request)
                .await
                .unwrap()
        };
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(get(path).await.status(), 200, "{path}");
        }
        for path in ["/v1/jobs", "/v1/nodes", "/", "/openapi.json"] {
            let refused = parse_problem(get(path).await).await;
            assert_eq!(refused.status, 404, "{path}");
            assert!(refused.detail.contains("only runs jobs"), "{}", refused.detail);
        }
    }

    #[tokio::test]
    async fn readiness_names_the_stores_that_fail() {
        let host = TestHost::new();
        let ready = parse_json(host.send_get("/readyz", "").await).await;
        assert_eq!((&ready["role"], &ready["node"]), (&"both".into(), &"test".into()));
        let [ledger, vectors] = ready["stores"].as_array().unwrap().as_slice() else {
            panic!("{ready}");
        };
        assert_eq!(
            ledger,
            &serde_json::json!({ "store": "ledger", "available": true })
        );
        assert_eq!(vectors["available"], true);
        host.control.store_statuses[1].record_failure(7);
        let ready = parse_json(host.send_get("/readyz", "").await).await;
        assert_eq!(
            ready["stores"][1],
            serde_json::json!({ "store": "vectors", "available": false, "failing_since_millis": 7 })
        );
    }
}
