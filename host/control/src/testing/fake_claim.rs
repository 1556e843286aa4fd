//! The claims of a job in memory.

use tokio::time::Instant;
use weir_core::job_claim::NodeId;

/// The claims of one job.
#[derive(Default)]
pub(crate) struct FakeClaim {
    /// The node that holds the claim, and the end of its lease.
    pub(crate) owner: Option<(NodeId, Instant)>,
    pub(crate) epoch: u64,
    pub(crate) lost_claims: u32,
    pub(crate) cancel_requested: bool,
}
