//! The record of a node that stops.

use std::time::Duration;

use tokio::time::timeout;
use weir_core::job_claim::NodeId;
use weir_core::node::NodeRegistry;

/// Renewals of a node's record and of its claims in the time of a lease.
pub const RENEWALS_PER_LEASE: u32 = 4;

/// Removes the record of a node that stops. Waits at most for `max_wait`.
pub async fn remove_node_record(nodes: &dyn NodeRegistry, node: &NodeId, max_wait: Duration) {
    if !matches!(timeout(max_wait, nodes.remove_node(node)).await, Ok(Ok(()))) {
        tracing::warn!(
            "this node could not be removed from the list of nodes: it is listed as lost for an hour"
        );
    }
}
