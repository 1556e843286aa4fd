//! The record of a node in memory.

use tokio::time::Instant;
use weir_core::node::NodeInfo;

/// The record of a node.
pub(crate) struct FakeNode {
    pub(crate) node: NodeInfo,
    pub(crate) started_millis: u64,
    pub(crate) renewed_at: Instant,
    pub(crate) lease_until: Instant,
}
