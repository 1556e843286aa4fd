//! Whether a store has responded to its latest call.

use std::sync::atomic::{AtomicU64, Ordering};

/// The status of a store, shared by the calls to it and the readers.
#[derive(Debug)]
pub struct StoreStatus {
    name: &'static str,
    /// The time of the first failed call since the last successful one, in milliseconds since 1970; 0 if the latest call succeeded.
    failing_since_millis: AtomicU64,
}

impl StoreStatus {
    /// Creates the status of a store that has failed no call.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            failing_since_millis: AtomicU64::new(0),
        }
    }

    /// Returns the name of the store, such as `ledger`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Records a call that has failed.
    pub fn record_failure(&self, now_millis: u64) {
        let order = Ordering::Relaxed;
        // A later failure does not change the time of the first.
        let _ = self
            .failing_since_millis
            .compare_exchange(0, now_millis, order, order);
    }

    /// Records a call that has succeeded.
    pub fn record_success(&self) {
        // Calls are frequent and failures are rare, so the shared value is mostly only read.
        if self.failing_since_millis.load(Ordering::Relaxed) != 0 {
            self.failing_since_millis.store(0, Ordering::Relaxed);
        }
    }

    /// Returns since when the store fails, in milliseconds since 1970; `None` if its latest call succeeded.
    #[must_use]
    pub fn failing_since_millis(&self) -> Option<u64> {
        Some(self.failing_since_millis.load(Ordering::Relaxed)).filter(|millis| *millis != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_failure_since_the_last_success_counts() {
        let status = StoreStatus::new("ledger");
        assert_eq!(status.failing_since_millis(), None);
        status.record_failure(5);
        status.record_failure(9);
        assert_eq!(status.failing_since_millis(), Some(5));
        status.record_success();
        assert_eq!(status.failing_since_millis(), None);
        status.record_failure(12);
        assert_eq!(status.failing_since_millis(), Some(12));
    }
}
