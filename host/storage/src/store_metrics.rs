//! Metrics and the state of a store, from the calls to it.

use std::sync::Arc;

use metrics::{counter, histogram};
use tokio::time::Instant;
use weir_core::StorageError;
use weir_core::clock::unix_time_millis;
use weir_core::store_status::StoreStatus;

/// Records the calls to one store.
pub(crate) struct StoreMetrics {
    status: Arc<StoreStatus>,
}

impl StoreMetrics {
    pub(crate) fn new(store: &'static str) -> Self {
        Self {
            status: Arc::new(StoreStatus::new(store)),
        }
    }

    /// Returns the status that the calls update.
    pub(crate) fn status(&self) -> Arc<StoreStatus> {
        Arc::clone(&self.status)
    }

    /// Records the time and the result of a call.
    pub(crate) async fn measure<T>(
        &self,
        call: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let began = Instant::now();
        let result = call.await;
        let store = self.status.name();
        histogram!("weir_store_request_duration_seconds", "store" => store).record(began.elapsed());
        match &result {
            Err(error) if error.is_store_failure() => {
                counter!("weir_store_request_failures_total", "store" => store).increment(1);
                self.status.record_failure(unix_time_millis());
            }
            _ => self.status.record_success(),
        }
        result
    }
}
