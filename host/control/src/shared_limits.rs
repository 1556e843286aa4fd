//! Limits that hold for all nodes together.
//!
//! A store that all nodes share counts exactly. While it is away, and in a cluster without one, each node applies its share: the limit
//! divided by the number of nodes that serve the API.

use std::sync::Arc;
use std::time::Duration;

use weir_core::shared_limits::{RateLimit, SharedLimitStore};

use crate::job_claims::NodeClaims;

/// Time for which the open streams of a node count after it has last reported them.
const STREAMS_LEASE: Duration = Duration::from_secs(30);

/// The limits of this node and the others.
pub struct SharedLimits {
    /// `None` if there is no store.
    store: Option<Arc<dyn SharedLimitStore>>,
    claims: Arc<NodeClaims>,
}

impl SharedLimits {
    /// Time within which a node reports its open streams again.
    pub const REPORT_INTERVAL: Duration = Duration::from_secs(10);

    /// Creates the limits of the node of `claims`.
    pub fn new(store: Option<Arc<dyn SharedLimitStore>>, claims: Arc<NodeClaims>) -> Arc<Self> {
        Arc::new(Self { store, claims })
    }

    /// Returns this node's share of a limit, at least 1.
    pub fn share_of(&self, limit: u32) -> u32 {
        (limit / self.claims.count_api_nodes()).max(1)
    }

    /// Counts a request of `name` on all nodes. Returns the time to wait if it is above the limit, or `None` if it is within it. The error
    /// says that this node has to apply its share.
    pub(crate) async fn count_request(
        &self,
        name: &str,
        limit: RateLimit,
    ) -> Result<Option<Duration>, ShareApplies> {
        let store = self.store.as_ref().ok_or(ShareApplies)?;
        store.count_request(name, limit).await.map_err(|_| ShareApplies)
    }

    /// Reports that this node has `open` streams of `name`, unless all nodes together would have more than `max`. Returns whether it may
    /// have them.
    pub async fn try_set_open_streams(&self, name: &str, open: u32, max: u32) -> bool {
        let is_within_share = || open <= self.share_of(max);
        let Some(store) = &self.store else {
            return is_within_share();
        };
        let node = self.claims.node().id.as_str();
        let reported = store
            .try_set_open_streams(name, node, open, max, STREAMS_LEASE)
            .await;
        reported.unwrap_or_else(|_| is_within_share())
    }

    /// Reports the open streams of this node, which it may have already.
    pub async fn report_open_streams(&self, name: &str, open: u32) {
        self.try_set_open_streams(name, open, u32::MAX).await;
    }
}

/// There is no store that counts for all nodes, or it is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShareApplies;
