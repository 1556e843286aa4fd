//! Decides when a batch starts and how many requests it takes. The time is an argument, as in the queue.
//!
//! The queue shares the model's time, in seconds. The time of a request is estimated from its cost and from the recent batches,
//! and corrected when its batch has run.
//!
//! On a GPU a batch costs less than its requests one by one. While another worker keeps the GPU busy, a free worker therefore
//! waits until its batch is full, for the linger time at most. If no worker is busy, it takes the queued requests at once.
//!
//! On a CPU a batch costs the sum of its requests, except for requests so small that the overhead of a run matters. A free worker
//! takes its share of the queue at once, but no more than benefits from a single run. The rest stays in the queue, so that an
//! older call or another tenant can go first. The linger time does not apply.

use std::sync::Arc;
use std::time::Duration;

use weir_core::fair_queue::{FairQueue, Flow};
use weir_core::usage::UsageMeter;

/// Identifies the requests of one call, so that they can be removed together. Later calls have greater numbers.
pub(crate) type CallId = u64;

/// The share of the earlier batches that each batch keeps in the estimate of time per cost: the last ten batches make up two
/// thirds.
const ESTIMATE_DECAY: f64 = 0.9;

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

/// A queued request.
pub(crate) struct QueuedItem<T> {
    /// The call it belongs to.
    pub(crate) call_id: CallId,
    /// Its cost for the model, in any unit that can be summed.
    pub(crate) cost: f64,
    /// The model's time that the queue charges for it; set by [`Batcher::push`].
    pub(crate) charged_seconds: f64,
    /// Latest start, even in a partial batch.
    pub(crate) dispatch_deadline: Duration,
    /// The request.
    pub(crate) item: T,
}

/// The part of a flow in a batch.
#[derive(Debug)]
pub(crate) struct FlowBatchCharge {
    pub(crate) flow: Flow,
    pub(crate) cost: f64,
    pub(crate) charged_seconds: f64,
}

/// Forms batches and decides what a free worker does.
pub(crate) struct Batcher<T> {
    queue: FairQueue<QueuedItem<T>>,
    workers: usize,
    busy_workers: usize,
    max_batch: usize,
    max_useful_batch_cost: MaxUsefulBatchCost,
    /// Time and cost of the recent batches; recent ones count more.
    recent_seconds: f64,
    recent_cost: f64,
}

/// The next action of a free worker.
pub(crate) enum WorkerAction<T> {
    /// Run these requests, then call [`Batcher::mark_batch_done`].
    RunBatch(Vec<QueuedItem<T>>),
    /// Ask again at this time, or when a request was added or a batch is done.
    WaitUntil(Duration),
    /// Ask again when a request was added.
    WaitForRequest,
}

impl<T> Batcher<T> {
    /// Creates a batcher without requests.
    pub(crate) fn new(config: &SchedulerConfig) -> Self {
        // A tenant that is alone uses all workers, so its time is the sum of theirs.
        let max_credit = config.latency_boost.as_secs_f64() * config.workers as f64;
        Self {
            queue: FairQueue::with_max_credit(max_credit),
            workers: config.workers,
            busy_workers: 0,
            max_batch: config.max_batch.max(1),
            max_useful_batch_cost: config.max_useful_batch_cost,
            recent_seconds: 0.0,
            recent_cost: 0.0,
        }
    }

    /// Adds a request behind those of its flow that belong to the same call or an older one.
    pub(crate) fn push(&mut self, flow: &Flow, mut item: QueuedItem<T>) {
        // Before the first batch the estimate is 0, and flows alternate.
        if self.recent_cost > 0.0 {
            item.charged_seconds = item.cost * self.recent_seconds / self.recent_cost;
        }
        self.queue.push(flow, item.call_id, item.charged_seconds, item);
    }

    /// Removes the queued requests of a call and returns their number.
    pub(crate) fn remove_requests_of_call(&mut self, flow: &Flow, call: CallId) -> usize {
        std::iter::from_fn(|| self.queue.withdraw_uncharged(flow, call)).count()
    }

    /// Removes all queued requests.
    pub(crate) fn remove_all_requests(&mut self) -> Vec<QueuedItem<T>> {
        self.queue.withdraw_matching_uncharged(|_| true)
    }

    /// Divides the time of a batch among its flows by cost, and charges it instead of the estimates. Returns the seconds of each.
    pub(crate) fn charge_actual_batch_time(
        &mut self,
        charges: &[FlowBatchCharge],
        took: Duration,
    ) -> Vec<f64> {
        let took = took.as_secs_f64();
        let cost: f64 = charges.iter().map(|charge| charge.cost).sum();
        self.recent_seconds = self.recent_seconds * ESTIMATE_DECAY + took;
        self.recent_cost = self.recent_cost * ESTIMATE_DECAY + cost;
        let mut seconds = Vec::with_capacity(charges.len());
        for charge in charges {
            let share = if cost > 0.0 {
                charge.cost / cost
            } else {
                1.0 / charges.len() as f64
            };
            self.queue
                .correct_charge_to_actual_cost(&charge.flow, charge.charged_seconds, took * share);
            seconds.push(took * share);
        }
        seconds
    }

    /// Returns the number of queued requests.
    pub(crate) fn queued_request_count(&self) -> usize {
        self.queue.len()
    }

    fn earliest_dispatch_deadline(&self) -> Option<Duration> {
        self.queue.iter().map(|request| request.dispatch_deadline).min()
    }

    /// Returns what a free worker does at time `now`.
    pub(crate) fn take_next_worker_action(&mut self, now: Duration) -> WorkerAction<T> {
        let waiting = self.queue.len();
        if waiting == 0 {
            return WorkerAction::WaitForRequest;
        }
        let (count, max_cost) = match self.max_useful_batch_cost {
            MaxUsefulBatchCost::UpToCost(cost) => (
                waiting.div_ceil(self.workers.saturating_sub(self.busy_workers).max(1)),
                cost,
            ),
            MaxUsefulBatchCost::AnySize => {
                if let Some(due) = self.earliest_dispatch_deadline()
                    && waiting < self.max_batch
                    && self.busy_workers > 0
                    && now < due
                {
                    return WorkerAction::WaitUntil(due);
                }
                (waiting, f64::INFINITY)
            }
        };
        self.busy_workers += 1;
        let (mut batch, mut cost) = (Vec::new(), 0.0);
        while batch.len() < count.min(self.max_batch)
            && (batch.is_empty() || cost < max_cost)
            && let Some(request) = self.queue.pop()
        {
            cost += request.cost;
            batch.push(request);
        }
        WorkerAction::RunBatch(batch)
    }

    /// Records that a worker has finished its batch.
    pub(crate) const fn mark_batch_done(&mut self) {
        self.busy_workers = self.busy_workers.saturating_sub(1);
    }
}

#[cfg(test)]
#[path = "batcher_tests.rs"]
mod tests;
