//! The metrics and the statistics of a model. The metrics are registered with the recorder once, when the scheduler is created.

use metrics::{Counter, Gauge, Histogram, Unit};
use serde::{Deserialize, Serialize};

/// Metrics of a model.
pub(super) struct ModelMetrics {
    /// Requests in a batch.
    pub(super) batch_size: Histogram,
    /// Duration of a batch in seconds.
    pub(super) batch_seconds: Histogram,
    /// Number of queued requests.
    pub(super) queued_requests: Gauge,
    /// Requests that the model failed to answer.
    pub(super) failed_requests: Counter,
}

impl ModelMetrics {
    pub(super) fn register_model_metrics(model: &'static str) -> Self {
        metrics::describe_histogram!(
            "weir_model_batch_size",
            Unit::Count,
            "Inputs in a batch, by model"
        );
        metrics::describe_histogram!(
            "weir_model_batch_duration_seconds",
            Unit::Seconds,
            "Time of a batch, by model"
        );
        metrics::describe_gauge!(
            "weir_model_requests_queued",
            Unit::Count,
            "Queued requests, by model"
        );
        metrics::describe_counter!(
            "weir_model_request_failures_total",
            Unit::Count,
            "Failed requests, by model"
        );
        Self {
            batch_size: metrics::histogram!("weir_model_batch_size", "model" => model),
            batch_seconds: metrics::histogram!("weir_model_batch_duration_seconds", "model" => model),
            queued_requests: metrics::gauge!("weir_model_requests_queued", "model" => model),
            failed_requests: metrics::counter!("weir_model_request_failures_total", "model" => model),
        }
    }
}

/// Statistics of a model since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStats {
    /// Batches run.
    pub batches: u64,
    /// Requests in all batches; the parts of a split request count one by one.
    pub requests: u64,
    /// Requests in the largest batch.
    pub largest_batch: u64,
    /// Requests that are queued now.
    pub queued_requests: u64,
    /// Workers that run a batch now.
    pub busy_workers: u64,
    /// Time that workers spent running batches, in milliseconds, summed over workers.
    pub busy_millis: u64,
    /// Time that requests waited before their batch, in milliseconds, summed over requests.
    pub queue_wait_millis: u64,
}
