//! The port of limits that hold for all nodes together.
//!
//! The counts live in a store that may be emptied or be away at any time. The caller then applies its own share of a limit, so each
//! function fails fast.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::StorageError;

/// A number of requests that may be made in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests per second on average, at least 1.
    pub per_second: u32,
    /// Requests that may be made at once, at least 1.
    pub burst: u32,
}

/// Counts requests and open streams of all nodes.
#[async_trait]
pub trait SharedLimitStore: Send + Sync {
    /// Counts a request of `name`. Returns `None`, or the time after which a request is within the limit if this one is not.
    async fn count_request(&self, name: &str, limit: RateLimit) -> Result<Option<Duration>, StorageError>;

    /// Sets the number of streams of `name` that are open on the node `node` to `open`, unless all nodes together would have more than
    /// `max`. Returns whether it did. The number is forgotten after `lease`.
    async fn try_set_open_streams(
        &self,
        name: &str,
        node: &str,
        open: u32,
        max: u32,
        lease: Duration,
    ) -> Result<bool, StorageError>;
}
