//! The claims of a node without other nodes.

use std::sync::Arc;
use std::time::Duration;

use weir_core::node::{NodeInfo, NodeRole};

use super::FakeStore;
use crate::job_claims::NodeClaims;
use crate::node_messages::NodeMessages;

/// The lease of the claims.
pub(crate) const TEST_LEASE: Duration = Duration::from_secs(30);

/// Returns the claims of a new node named `test`.
pub(crate) fn new_test_claims(store: Arc<FakeStore>) -> Arc<NodeClaims> {
    Arc::new(NodeClaims::new(
        store.clone(),
        store,
        NodeMessages::new(None),
        NodeInfo::new_unique("test", NodeRole::Both),
        TEST_LEASE,
    ))
}
