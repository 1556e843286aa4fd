//! Shares a model among many callers. Requests wait in a queue that is fair by tenant; workers take batches across jobs and
//! tenants and send each result as soon as it is ready.
//!
//! A run of ONNX Runtime blocks for milliseconds to seconds. Each worker is therefore a thread that owns a model, and the
//! callers are futures. The first request starts the threads, and each thread opens its model then or, after
//! [`Scheduler::open_model_in_background`], earlier. A host that only reads text layers thus never opens the OCR models.
//! Dropping a future removes its queued requests, and a model can check between two steps whether its result is still awaited.
//!
//! A request can be split into several: see [`ActiveRequest::replace_with_queued_parts`].
//!
//! Lanes, tenants and documents share the model's time ([`FairQueue`](weir_core::fair_queue::FairQueue)). A tenant or document
//! that was idle is served before the others until it has used its credit ([`SchedulerConfig::latency_boost`]), so a search or
//! a short scan does not wait among long ones.
//!
//! Backpressure applies to each tenant and lane. At most `max_queued_per_tenant` requests of a tenant are queued in a lane; its
//! further requests wait for a slot. If too many requests of a tenant are pending in a lane, its calls in that lane fail with
//! [`InferenceError::QueueFull`]. The calls of other tenants and the tenant's calls in the other lane do not fail. So its
//! searches, which are interactive, continue while its bulk requests are too many; they fail if the interactive lane itself is
//! overloaded, for example by an interactive job. There is no limit for all tenants together, since one tenant could exhaust
//! it; the callers of a tenant are limited where its jobs and searches are admitted.

mod batcher;
mod model_metrics;
mod request;
mod worker;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, oneshot};
use weir_core::fair_queue::Flow;
use weir_core::ports::SchedulingContext;
use weir_core::{InferenceError, PriorityLane, TenantId};

use batcher::{Batcher, CallId};
use model_metrics::ModelMetrics;
use request::{QueuedRequest, RequestOrigin, SharedReplySender};
use worker::{SchedulerSharedState, SharedBatcherAndModelStats};

pub(crate) use batcher::{MaxUsefulBatchCost, SchedulerConfig};
pub use model_metrics::ModelStats;
pub(crate) use request::{ActiveRequest, BatchRunningModel};
pub(crate) use worker::ModelRunStopper;

/// A lane refuses calls of a tenant when its pending requests exceed the queue limit by this factor.
const MAX_PENDING_TO_QUEUE_RATIO: usize = 16;

/// A tenant's share of the queue in one lane.
struct TenantQueueSlots {
    /// Free slots for queued requests.
    queue_slots: Arc<Semaphore>,
    /// Requests of calls that are not finished, queued or not.
    pending_requests: AtomicUsize,
}

/// The queue and the workers of one model.
pub(crate) struct Scheduler<I, O> {
    shared: Arc<SchedulerSharedState<I, O>>,
    worker_threads: Mutex<Vec<JoinHandle<()>>>,
    slots_by_tenant: Mutex<HashMap<(TenantId, PriorityLane), Weak<TenantQueueSlots>>>,
    next_call_id: AtomicU64,
}

impl<I: Send + 'static, O: Send + 'static> Scheduler<I, O> {
    /// Creates the scheduler. The first request starts the threads. Each calls `open` when it gets its first batch, or at its
    /// start after [`Scheduler::open_model_in_background`].
    pub(crate) fn new(
        scheduler_config: SchedulerConfig,
        open: impl Fn(&Arc<ModelRunStopper>) -> Result<Box<dyn BatchRunningModel<I, O>>, InferenceError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let model_metrics = ModelMetrics::register_model_metrics(scheduler_config.model_name);
        let state = SharedBatcherAndModelStats {
            batcher: Batcher::new(&scheduler_config),
            stats: ModelStats::default(),
            is_closed: false,
        };
        Self {
            shared: Arc::new(SchedulerSharedState {
                config: scheduler_config,
                open_model: Box::new(open),
                state: Mutex::new(state),
                state_changed: Condvar::new(),
                stop_signal: Arc::new(ModelRunStopper::default()),
                open_model_at_thread_start: AtomicBool::new(false),
                epoch: Instant::now(),
                metrics: model_metrics,
            }),
            worker_threads: Mutex::new(Vec::new()),
            slots_by_tenant: Mutex::default(),
            next_call_id: AtomicU64::new(0),
        }
    }

    /// Runs `items`, each given with its cost. Returns their results in the same order, or the first error.
    pub(crate) async fn submit_and_await_results(
        &self,
        scheduling: &SchedulingContext,
        items: Vec<(I, f64)>,
    ) -> Result<Vec<O>, InferenceError> {
        let count = items.len();
        let call = self.admit_call(scheduling, count)?;
        self.start_workers()?;
        let mut replies = Vec::with_capacity(count);
        let mut items = items.into_iter();
        // Items are queued in groups, so that a batch can be taken whole and a call larger than the queue limit proceeds step
        // by step.
        let group = self
            .shared
            .config
            .max_batch
            .min(self.shared.config.max_queued_per_tenant)
            .max(1);
        while items.len() > 0 {
            let size = group.min(items.len());
            let mut permits = Arc::clone(&call.tenant_slots.queue_slots)
                .acquire_many_owned(u32::try_from(size).unwrap_or(u32::MAX))
                .await
                .map_err(|_closed| self.stopped_error())?;
            let mut state = self.shared.state.lock();
            if state.is_closed {
                return Err(self.stopped_error());
            }
            let now = Instant::now();
            let origin = Arc::new(RequestOrigin {
                call_id: call.id,
                flow: call.flow.clone(),
                dispatch_deadline: self.shared.epoch.elapsed() + scheduling.batch_linger,
            });
            for (item, cost) in items.by_ref().take(size) {
                let Some(slot) = permits.split(1) else { break };
                let (sender, receiver) = oneshot::channel();
                replies.push(receiver);
                let queued_request = QueuedRequest {
                    item,
                    reply: SharedReplySender::new(sender),
                    origin: Arc::clone(&origin),
                    queued_at: now,
                    _queue_slot: Some(slot),
                };
                queued_request.push_to_batcher(&mut state.batcher, cost);
            }
            self.shared.update_queue_gauge(&state);
            drop(state);
            self.shared.state_changed.notify_all();
        }
        let mut results = Vec::with_capacity(count);
        for reply in replies {
            results.push(reply.await.map_err(|_dropped| self.stopped_error())??);
        }
        Ok(results)
    }

    /// Starts the workers, which open the model in the background. If opening fails, the first requests retry it and report the
    /// error.
    pub(crate) fn open_model_in_background(&self) -> Result<(), InferenceError> {
        self.shared
            .open_model_at_thread_start
            .store(true, Ordering::Relaxed);
        self.start_workers()
    }

    /// Returns the statistics since the start.
    pub(crate) fn stats(&self) -> ModelStats {
        let state = self.shared.state.lock();
        ModelStats {
            queued_requests: state.batcher.queued_request_count() as u64,
            ..state.stats
        }
    }

    /// Stops all runs, fails queued requests and returns when no thread is left. Later calls fail.
    pub(crate) fn close(&self) {
        let abandoned = {
            let mut state = self.shared.state.lock();
            state.is_closed = true;
            let abandoned = state.batcher.remove_all_requests();
            self.shared.update_queue_gauge(&state);
            abandoned
        };
        drop(abandoned);
        self.shared.stop_signal.stop_all_runs();
        self.shared.state_changed.notify_all();
        let threads = std::mem::take(&mut *self.worker_threads.lock());
        for thread in threads {
            // A worker that panicked has logged it.
            let _ = thread.join();
        }
    }

    fn admit_call(
        &self,
        scheduling: &SchedulingContext,
        count: usize,
    ) -> Result<PendingCallGuard<'_, I, O>, InferenceError> {
        let limit = self
            .shared
            .config
            .max_queued_per_tenant
            .saturating_mul(MAX_PENDING_TO_QUEUE_RATIO);
        let slots = self.get_or_create_tenant_slots(scheduling);
        let pending_before = slots.pending_requests.fetch_add(count, Ordering::Relaxed);
        let call = PendingCallGuard {
            scheduler: self,
            id: self.next_call_id.fetch_add(1, Ordering::Relaxed),
            flow: scheduling.to_fair_queue_flow(),
            tenant_slots: slots,
            request_count: count,
        };
        // A call that exceeds the limit on its own is accepted if nothing else is pending; it proceeds step by step.
        if pending_before > 0 && pending_before.saturating_add(count) > limit {
            return Err(InferenceError::QueueFull {
                model: self.shared.config.model_name.into(),
                waiting: pending_before,
            });
        }
        Ok(call)
    }

    fn start_workers(&self) -> Result<(), InferenceError> {
        let mut threads = self.worker_threads.lock();
        if self.shared.state.lock().is_closed {
            return Err(self.stopped_error());
        }
        while threads.len() < self.shared.config.workers {
            let shared = Arc::clone(&self.shared);
            let name = format!("{}-{}", shared.config.model_name, threads.len());
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || shared.run_worker())
                .map_err(|e| InferenceError::Failed {
                    model: self.shared.config.model_name.into(),
                    reason: format!("cannot start a thread: {e}"),
                })?;
            threads.push(thread);
        }
        Ok(())
    }

    fn get_or_create_tenant_slots(&self, scheduling: &SchedulingContext) -> Arc<TenantQueueSlots> {
        let key = (scheduling.tenant.clone(), scheduling.lane);
        let mut shares = self.slots_by_tenant.lock();
        if let Some(existing) = shares.get(&key).and_then(Weak::upgrade) {
            return existing;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let new_slots = Arc::new(TenantQueueSlots {
            queue_slots: Arc::new(Semaphore::new(self.shared.config.max_queued_per_tenant.max(1))),
            pending_requests: AtomicUsize::new(0),
        });
        shares.insert(key, Arc::downgrade(&new_slots));
        new_slots
    }

    fn stopped_error(&self) -> InferenceError {
        InferenceError::Failed {
            model: self.shared.config.model_name.into(),
            reason: "it was stopped before it finished".into(),
        }
    }
}

impl<I, O> Drop for Scheduler<I, O> {
    fn drop(&mut self) {
        self.shared.state.lock().is_closed = true;
        self.shared.stop_signal.stop_all_runs();
        self.shared.state_changed.notify_all();
        for thread in self.worker_threads.get_mut().drain(..) {
            let _ = thread.join();
        }
    }
}

/// A pending call. Dropping it, finished or not, removes its queued requests.
struct PendingCallGuard<'a, I, O> {
    scheduler: &'a Scheduler<I, O>,
    id: CallId,
    flow: Flow,
    tenant_slots: Arc<TenantQueueSlots>,
    request_count: usize,
}

impl<I, O> Drop for PendingCallGuard<'_, I, O> {
    fn drop(&mut self) {
        self.tenant_slots
            .pending_requests
            .fetch_sub(self.request_count, Ordering::Relaxed);
        let shared = &self.scheduler.shared;
        let mut state = shared.state.lock();
        if state.batcher.remove_requests_of_call(&self.flow, self.id) > 0 {
            shared.update_queue_gauge(&state);
        }
    }
}

#[cfg(test)]
mod tests;
