//! The configuration of a model's scheduler.

use std::sync::Arc;
use std::time::Duration;

use weir_core::usage::UsageMeter;

/// How much cheaper a batch is than its requests one by one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum MaxUsefulBatchCost {
    /// A batch is cheaper only up to this cost. Requests are spread over the idle workers; each takes one, or several small
    /// requests up to this cost.
    UpToCost(f64),
    /// A batch of any size is cheaper: batches are filled.
    AnySize,
}

/// Configuration of a model's scheduler.
#[derive(Debug, Clone)]
pub(crate) struct SchedulerConfig {
    /// The model's name in errors, logs and thread names.
    pub(crate) model_name: &'static str,
    /// Number of threads that run the model, at least 1.
    pub(crate) workers: usize,
    /// Maximum number of requests in a batch, at least 1.
    pub(crate) max_batch: usize,
    /// Maximum number of queued requests of a tenant in each lane.
    pub(crate) max_queued_per_tenant: usize,
    /// The gain of a batch over single requests.
    pub(crate) max_useful_batch_cost: MaxUsefulBatchCost,
    /// Maximum credit of a tenant or document that was idle: the time of the model, for each worker and at weight 1, that it gets
    /// before the others. It is not repaid.
    pub(crate) latency_boost: Duration,
    /// Niceness of the threads, 0 to 19; higher values leave more CPU time to other threads of the host.
    pub(crate) niceness: i32,
    /// Records how long the model worked for each tenant.
    pub(crate) usage_meter: Option<Arc<dyn UsageMeter>>,
}
