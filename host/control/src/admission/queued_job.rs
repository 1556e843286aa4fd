//! A job that waits for its start.

use std::time::Duration;

use weir_core::{JobId, PriorityLane, TenantId};

/// A queued job.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedJob {
    /// Its id.
    pub job_id: JobId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its lane.
    pub lane: PriorityLane,
    /// Estimated pages, above 0.
    pub estimated_pages: f64,
    /// When it was queued, on the clock of the queue.
    pub queued_at: Duration,
    /// Whether it has run before and the claim of its node has ended.
    pub is_interrupted: bool,
}
