//! The worker threads of a model and their shared state.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use weir_core::usage::Usage;
use weir_core::{InferenceError, TenantId};

use super::batcher::{Batcher, WorkerAction};
use super::fair_queue::FairQueueItem;
use super::model_metrics::ModelMetrics;
use super::request::{ActiveRequest, QueuedRequest};
use super::stop_signal::StopSignal;
use super::{BatchModel, ModelStats, SchedulerConfig};

pub(super) struct SchedulerState<I, O> {
    pub(super) batcher: Batcher<QueuedRequest<I, O>>,
    pub(super) stats: ModelStats,
    pub(super) is_closed: bool,
}

/// The requests that a worker takes at once.
struct Batch<'a, I, O> {
    requests: Vec<ActiveRequest<'a, I, O>>,
    /// Cost of the batch by tenant.
    tenant_costs: Vec<(TenantId, f64)>,
}

pub(super) type OpenModelFn<I, O> =
    dyn Fn(&Arc<StopSignal>) -> Result<Box<dyn BatchModel<I, O>>, InferenceError> + Send + Sync;

pub(super) struct SchedulerShared<I, O> {
    pub(super) config: SchedulerConfig,
    pub(super) open_model: Box<OpenModelFn<I, O>>,
    pub(super) state: Mutex<SchedulerState<I, O>>,
    pub(super) state_changed: Condvar,
    pub(super) stop_signal: Arc<StopSignal>,
    /// Whether workers open the model before their first batch.
    pub(super) opens_early: AtomicBool,
    pub(super) epoch: Instant,
    pub(super) metrics: ModelMetrics,
}

impl<I, O> SchedulerShared<I, O> {
    /// Runs batches until the scheduler is closed.
    pub(super) fn run_worker(&self) {
        let mut model = None;
        if self.opens_early.load(Ordering::Relaxed) {
            let nothing = Batch {
                requests: Vec::new(),
                tenant_costs: Vec::new(),
            };
            self.run_batch_catching_panics(&mut model, nothing);
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
        model: &mut Option<Box<dyn BatchModel<I, O>>>,
        batch: Batch<'_, I, O>,
    ) {
        if std::panic::catch_unwind(AssertUnwindSafe(|| self.run_batch(model, batch))).is_err() {
            tracing::error!(
                model = self.config.model_name,
                "the model panicked; it will be reopened"
            );
            self.metrics.failed_requests.increment(1);
            *model = None;
        }
    }

    /// Opens the model if necessary, and runs the batch.
    fn run_batch(&self, model: &mut Option<Box<dyn BatchModel<I, O>>>, batch: Batch<'_, I, O>) {
        let opened = match model.take() {
            Some(open) => Ok(open),
            None => self.open_model_and_log(),
        };
        match opened {
            Ok(mut opened) => {
                let began = Instant::now();
                opened.run_batch(batch.requests);
                self.meter_usage(&batch.tenant_costs, began.elapsed());
                *model = Some(opened);
            }
            // The next batch retries: the missing file may have been installed.
            Err(error) => batch
                .requests
                .into_iter()
                .for_each(|job| job.complete(Err(error.clone()))),
        }
    }

    fn open_model_and_log(&self) -> Result<Box<dyn BatchModel<I, O>>, InferenceError> {
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
            match state.batcher.next_action(self.epoch.elapsed()) {
                WorkerAction::RunBatch(batch) => {
                    let waited: u64 = batch
                        .iter()
                        .map(|r| u64::try_from(r.item.queued_at.elapsed().as_millis()).unwrap_or(u64::MAX))
                        .sum();
                    let stats = &mut state.stats;
                    stats.batches += 1;
                    stats.requests += batch.len() as u64;
                    stats.largest_batch = stats.largest_batch.max(batch.len() as u64);
                    stats.busy_workers += 1;
                    stats.queue_wait_millis += waited;
                    self.metrics.batch_size.record(batch.len() as f64);
                    self.update_queue_gauge(&state);
                    return Some(Batch {
                        tenant_costs: costs_by_tenant(&batch),
                        requests: batch.into_iter().map(|r| self.activate_request(r.item)).collect(),
                    });
                }
                WorkerAction::WaitUntil(due) => {
                    let left = due.saturating_sub(self.epoch.elapsed());
                    self.state_changed.wait_for(&mut state, left);
                }
                WorkerAction::WaitForRequest => self.state_changed.wait(&mut state),
            }
        }
    }

    fn activate_request(&self, waiting: QueuedRequest<I, O>) -> ActiveRequest<'_, I, O> {
        ActiveRequest {
            item: waiting.item,
            reply: waiting.reply,
            origin: waiting.origin,
            shared: self,
        }
    }

    /// Records the duration of a batch and divides it among tenants by cost.
    fn meter_usage(&self, costs: &[(TenantId, f64)], took: Duration) {
        if costs.is_empty() {
            return;
        }
        self.metrics.batch_seconds.record(took);
        let Some(meter) = &self.config.usage_meter else {
            return;
        };
        let all: f64 = costs.iter().map(|(_, cost)| cost).sum();
        for (tenant, cost) in costs {
            let part = if all > 0.0 {
                cost / all
            } else {
                1.0 / costs.len() as f64
            };
            let usage = Usage {
                inference_micros: u64::try_from(took.mul_f64(part).as_micros()).unwrap_or(u64::MAX),
                ..Usage::default()
            };
            meter.record_usage(tenant, &usage);
        }
    }

    pub(super) fn update_queue_gauge(&self, state: &SchedulerState<I, O>) {
        self.metrics
            .queued_requests
            .set(state.batcher.queued_requests() as f64);
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

/// Sums the costs of a batch by tenant. Batches are small and mostly of one tenant.
fn costs_by_tenant<I, O>(batch: &[FairQueueItem<QueuedRequest<I, O>>]) -> Vec<(TenantId, f64)> {
    let mut costs: Vec<(TenantId, f64)> = Vec::with_capacity(1);
    for request in batch {
        let tenant = &request.item.origin.tenant;
        match costs.iter_mut().find(|(known, _)| known == tenant) {
            Some((_, cost)) => *cost += request.cost,
            None => costs.push((tenant.clone(), request.cost)),
        }
    }
    costs
}
