//! What a model tells whoever watches the host. The instruments are taken from the recorder once, when the model is set up.

use metrics::{Counter, Gauge, Histogram, Unit};

/// Instruments of a model.
pub(super) struct Measures {
    /// Requests in a batch.
    pub(super) batch_size: Histogram,
    /// Seconds of a batch.
    pub(super) seconds: Histogram,
    /// Requests that wait.
    pub(super) waiting: Gauge,
    /// Requests that it failed to answer.
    pub(super) failures: Counter,
}

impl Measures {
    pub(super) fn of(model: &'static str) -> Self {
        metrics::describe_histogram!(
            "weir_model_batch_size",
            Unit::Count,
            "Requests that ran together in a model"
        );
        metrics::describe_histogram!("weir_model_seconds", Unit::Seconds, "Time that a batch took");
        metrics::describe_gauge!(
            "weir_model_waiting",
            Unit::Count,
            "Requests that wait for a model"
        );
        metrics::describe_counter!(
            "weir_model_failures_total",
            Unit::Count,
            "Requests that a model failed to answer"
        );
        Self {
            batch_size: metrics::histogram!("weir_model_batch_size", "model" => model),
            seconds: metrics::histogram!("weir_model_seconds", "model" => model),
            waiting: metrics::gauge!("weir_model_waiting", "model" => model),
            failures: metrics::counter!("weir_model_failures_total", "model" => model),
        }
    }
}
