//! The worker threads of a model, their shared state, and the signal that stops their runs.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ort::session::{NoSelectedOutputs, RunOptions};
use parking_lot::{Condvar, Mutex};
use weir_core::InferenceError;
use weir_core::usage::Usage;

use super::batcher::{Batcher, FlowBatchCharge, QueuedItem, SchedulerConfig, WorkerAction};
use super::model_metrics::{ModelMetrics, ModelStats};
use super::request::{
    ActiveRequest, BatchRunningModel, QueuedRequest, RequestOrigin, SchedulerForActiveRequests,
    SharedReplySender,
};

/// Stops runs of ONNX Runtime from another thread: every run made with its options, active runs between two operators and later runs
/// at once. It cannot be reset.
#[derive(Default)]
pub(crate) struct ModelRunStopper {
    is_stopped: AtomicBool,
    run_options: Mutex<Vec<Arc<RunOptions<NoSelectedOutputs>>>>,
}

impl ModelRunStopper {
    /// Creates options for a run that this signal can stop.
    pub(crate) fn new_stoppable_run_options(&self) -> ort::Result<Arc<RunOptions<NoSelectedOutputs>>> {
        let options = Arc::new(RunOptions::new()?);
        let mut runs = self.run_options.lock();
        if self.is_stopped() {
            options.terminate()?;
        }
        runs.push(Arc::clone(&options));
        Ok(options)
    }

    /// Returns whether the runs were stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Stops all active runs, and makes later runs stop at once.
    pub(crate) fn stop_all_runs(&self) {
        let runs = self.run_options.lock();
        self.is_stopped.store(true, Ordering::Relaxed);
        for options in runs.iter() {
            if let Err(error) = options.terminate() {
                tracing::warn!(%error, "cannot stop a run early");
            }
        }
    }
}

pub(super) struct SharedBatcherAndModelStats<I, O> {
    pub(super) batcher: Batcher<QueuedRequest<I, O>>,
    pub(super) stats: ModelStats,
    pub(super) is_closed: bool,
}

/// The requests that a worker takes at once.
struct Batch<'a, I, O> {
    requests: Vec<ActiveRequest<'a, I, O>>,
    charges: Vec<FlowBatchCharge>,
}

pub(super) type OpenModelFn<I, O> =
    dyn Fn(&Arc<ModelRunStopper>) -> Result<Box<dyn BatchRunningModel<I, O>>, InferenceError> + Send + Sync;

pub(super) struct SchedulerSharedState<I, O> {
    pub(super) config: SchedulerConfig,
    pub(super) open_model: Box<OpenModelFn<I, O>>,
    pub(super) state: Mutex<SharedBatcherAndModelStats<I, O>>,
    pub(super) state_changed: Condvar,
    pub(super) stop_signal: Arc<ModelRunStopper>,
    /// Whether workers open the model before their first batch.
    pub(super) open_model_at_thread_start: AtomicBool,
    pub(super) epoch: Instant,
    pub(super) metrics: ModelMetrics,
}

impl<I, O> SchedulerSharedState<I, O> {
    /// Runs batches until the scheduler is closed.
    pub(super) fn run_worker(&self) {
        set_thread_niceness(self.config.model_name, self.config.niceness);
        let mut model = None;
        if self.open_model_at_thread_start.load(Ordering::Relaxed) {
            let empty_batch = Batch {
                requests: Vec::new(),
                charges: Vec::new(),
            };
            self.run_batch_catching_panics(&mut model, empty_batch);
        }
        while let Some(batch) = self.wait_for_batch() {
            let began = Instant::now();
            self.run_batch_catching_panics(&mut model, batch);
            self.finish_batch(began);
        }
    }

    /// Runs a batch. If the model panics, the worker survives and reopens the model, whose state is no longer trusted.
    fn run_batch_catching_panics(
        &self,
        model: &mut Option<Box<dyn BatchRunningModel<I, O>>>,
        batch: Batch<'_, I, O>,
    ) {
        if std::panic::catch_unwind(AssertUnwindSafe(|| self.open_model_and_run_batch(model, batch))).is_err()
        {
            tracing::error!(
                model = self.config.model_name,
                "the model panicked; it will be reopened"
            );
            self.metrics.failed_requests.increment(1);
            *model = None;
        }
    }

    /// Opens the model if necessary, and runs the batch.
    fn open_model_and_run_batch(
        &self,
        model: &mut Option<Box<dyn BatchRunningModel<I, O>>>,
        batch: Batch<'_, I, O>,
    ) {
        let opened = match model.take() {
            Some(open) => Ok(open),
            None => self.open_model_and_log(),
        };
        match opened {
            Ok(mut opened) => {
                let began = Instant::now();
                opened.run_batch(batch.requests);
                self.record_and_charge_batch_time(&batch.charges, began.elapsed());
                *model = Some(opened);
            }
            // The next batch retries: the missing file may have been installed.
            Err(error) => batch
                .requests
                .into_iter()
                .for_each(|request| request.send_result(Err(error.clone()))),
        }
    }

    fn open_model_and_log(&self) -> Result<Box<dyn BatchRunningModel<I, O>>, InferenceError> {
        let began = Instant::now();
        let opened = (self.open_model)(&self.stop_signal)?;
        let millis = began.elapsed().as_millis();
        tracing::debug!(model = self.config.model_name, millis, "model opened");
        Ok(opened)
    }

    /// Waits for the next batch; `None` when the scheduler is closed.
    fn wait_for_batch(&self) -> Option<Batch<'_, I, O>> {
        let mut state = self.state.lock();
        loop {
            if state.is_closed {
                return None;
            }
            match state.batcher.take_next_worker_action(self.epoch.elapsed()) {
                WorkerAction::RunBatch(batch) => {
                    let queue_wait_millis_sum: u64 = batch
                        .iter()
                        .map(|r| u64::try_from(r.item.queued_at.elapsed().as_millis()).unwrap_or(u64::MAX))
                        .sum();
                    let stats = &mut state.stats;
                    stats.batches += 1;
                    stats.requests += batch.len() as u64;
                    stats.largest_batch = stats.largest_batch.max(batch.len() as u64);
                    stats.busy_workers += 1;
                    stats.queue_wait_millis += queue_wait_millis_sum;
                    self.metrics.batch_size.record(batch.len() as f64);
                    self.update_queue_gauge(&state);
                    return Some(Batch {
                        charges: charges_by_flow(&batch),
                        requests: batch
                            .into_iter()
                            .map(|r| self.to_active_request(r.item))
                            .collect(),
                    });
                }
                WorkerAction::WaitUntil(due) => {
                    let remaining = due.saturating_sub(self.epoch.elapsed());
                    self.state_changed.wait_for(&mut state, remaining);
                }
                WorkerAction::WaitForRequest => self.state_changed.wait(&mut state),
            }
        }
    }

    fn to_active_request(&self, queued: QueuedRequest<I, O>) -> ActiveRequest<'_, I, O> {
        ActiveRequest {
            item: queued.item,
            reply: queued.reply,
            origin: queued.origin,
            scheduler: self,
        }
    }

    /// Records the duration of a batch, and charges it to its flows and their tenants by cost.
    fn record_and_charge_batch_time(&self, charges: &[FlowBatchCharge], took: Duration) {
        if charges.is_empty() {
            return;
        }
        self.metrics.batch_seconds.record(took);
        let seconds = self.state.lock().batcher.charge_actual_batch_time(charges, took);
        let Some(meter) = &self.config.usage_meter else {
            return;
        };
        for (charge, seconds) in charges.iter().zip(seconds) {
            let usage = Usage {
                inference_micros: (seconds * 1e6) as u64,
                ..Usage::default()
            };
            meter.record_usage(&charge.flow.tenant, &usage);
        }
    }

    pub(super) fn update_queue_gauge(&self, state: &SharedBatcherAndModelStats<I, O>) {
        self.metrics
            .queued_requests
            .set(state.batcher.queued_request_count() as f64);
    }

    fn finish_batch(&self, began: Instant) {
        let mut state = self.state.lock();
        state.batcher.mark_batch_done();
        state.stats.busy_workers = state.stats.busy_workers.saturating_sub(1);
        state.stats.busy_millis += u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        drop(state);
        // Wakes a worker that lingers because this one was busy.
        self.state_changed.notify_all();
    }
}

impl<I, O> SchedulerForActiveRequests<I, O> for SchedulerSharedState<I, O> {
    fn queue_parts(
        &self,
        origin: &Arc<RequestOrigin>,
        reply: &Arc<SharedReplySender<O>>,
        parts: Vec<(I, f64)>,
    ) {
        let mut state = self.state.lock();
        // Checked under the lock of the queue. A dropped call closes its reply channel before it removes its requests from the
        // queue, so no part can be queued after the removal.
        if state.is_closed || !reply.is_awaited() {
            return;
        }
        let now = Instant::now();
        for (item, cost) in parts {
            let part = QueuedRequest {
                item,
                reply: Arc::clone(reply),
                origin: Arc::clone(origin),
                queued_at: now,
                _queue_slot: None,
            };
            part.push_to_batcher(&mut state.batcher, cost);
        }
        self.update_queue_gauge(&state);
        drop(state);
        self.state_changed.notify_all();
    }

    fn count_failed_request(&self) {
        self.metrics.failed_requests.increment(1);
    }
}

/// Sums the costs of a batch by flow. Batches are small and mostly of one flow.
fn charges_by_flow<I, O>(batch: &[QueuedItem<QueuedRequest<I, O>>]) -> Vec<FlowBatchCharge> {
    let mut charges: Vec<FlowBatchCharge> = Vec::with_capacity(1);
    for request in batch {
        let flow = &request.item.origin.flow;
        let index = charges.iter().position(|charge| charge.flow == *flow);
        match index.and_then(|index| charges.get_mut(index)) {
            Some(charge) => {
                charge.cost += request.cost;
                charge.charged_seconds += request.charged_seconds;
            }
            None => charges.push(FlowBatchCharge {
                flow: flow.clone(),
                cost: request.cost,
                charged_seconds: request.charged_seconds,
            }),
        }
    }
    charges
}

/// Sets the niceness of this thread and of the threads that it starts. Only Linux has a niceness for single threads.
fn set_thread_niceness(model: &str, niceness: i32) {
    #[cfg(target_os = "linux")]
    if niceness > 0
        && let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), niceness)
    {
        tracing::warn!(%error, model, "cannot lower the priority of the model's thread");
    }
}
