//! What the workers of a model share, and a worker's life.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use weir_core::usage::Usage;
use weir_core::{InferenceError, TenantId};

use super::batch::{Batcher, Next};
use super::job::{Job, Waiting};
use super::measures::Measures;
use super::queue::Request;
use super::stop::Stop;
use super::{Model, ModelStats, Sharing};

pub(super) struct State<I, O> {
    pub(super) batcher: Batcher<Waiting<I, O>>,
    pub(super) stats: ModelStats,
    pub(super) closed: bool,
}

/// What a worker takes.
struct Batch<'a, I, O> {
    jobs: Vec<Job<'a, I, O>>,
    /// What the batch costs, by tenant.
    costs: Vec<(TenantId, f64)>,
}

pub(super) type Open<I, O> = dyn Fn(&Arc<Stop>) -> Result<Box<dyn Model<I, O>>, InferenceError> + Send + Sync;

pub(super) struct Shared<I, O> {
    pub(super) sharing: Sharing,
    pub(super) open: Box<Open<I, O>>,
    pub(super) state: Mutex<State<I, O>>,
    pub(super) changed: Condvar,
    pub(super) stop: Arc<Stop>,
    /// Whether workers open the model before they have something to do.
    pub(super) warm: AtomicBool,
    pub(super) epoch: Instant,
    pub(super) measures: Measures,
}

impl<I, O> Shared<I, O> {
    /// A worker's life.
    pub(super) fn work(&self) {
        let mut model = None;
        if self.warm.load(Ordering::Relaxed) {
            let nothing = Batch {
                jobs: Vec::new(),
                costs: Vec::new(),
            };
            self.run_safely(&mut model, nothing);
        }
        while let Some(batch) = self.take() {
            let began = Instant::now();
            self.run_safely(&mut model, batch);
            self.done(began);
        }
    }

    /// A panic must not take the worker away from everyone else; the model it happened in is not trusted again.
    fn run_safely(&self, model: &mut Option<Box<dyn Model<I, O>>>, batch: Batch<'_, I, O>) {
        if std::panic::catch_unwind(AssertUnwindSafe(|| self.run(model, batch))).is_err() {
            tracing::error!(
                model = self.sharing.name,
                "the model panicked and is opened again"
            );
            self.measures.failures.increment(1);
            *model = None;
        }
    }

    /// Opens the model if it is not, and runs the batch.
    fn run(&self, model: &mut Option<Box<dyn Model<I, O>>>, batch: Batch<'_, I, O>) {
        let opened = match model.take() {
            Some(open) => Ok(open),
            None => self.open(),
        };
        match opened {
            Ok(mut opened) => {
                let began = Instant::now();
                opened.run(batch.jobs);
                self.meter(&batch.costs, began.elapsed());
                *model = Some(opened);
            }
            // The next batch tries again: what was missing may have been installed.
            Err(error) => batch
                .jobs
                .into_iter()
                .for_each(|job| job.answer(Err(error.clone()))),
        }
    }

    fn open(&self) -> Result<Box<dyn Model<I, O>>, InferenceError> {
        let began = Instant::now();
        let opened = (self.open)(&self.stop)?;
        let millis = began.elapsed().as_millis();
        tracing::debug!(model = self.sharing.name, millis, "model opened");
        Ok(opened)
    }

    /// The next batch; `None` when the scheduler closes.
    fn take(&self) -> Option<Batch<'_, I, O>> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            match state.batcher.next(self.epoch.elapsed()) {
                Next::Run(batch) => {
                    let waited: u64 = batch
                        .iter()
                        .map(|r| u64::try_from(r.item.since.elapsed().as_millis()).unwrap_or(u64::MAX))
                        .sum();
                    let stats = &mut state.stats;
                    stats.batches += 1;
                    stats.requests += batch.len() as u64;
                    stats.largest_batch = stats.largest_batch.max(batch.len() as u64);
                    stats.running += 1;
                    stats.waited_millis += waited;
                    self.measures.batch_size.record(batch.len() as f64);
                    self.tell_waiting(&state);
                    return Some(Batch {
                        costs: costs(&batch),
                        jobs: batch.into_iter().map(|r| self.job(r.item)).collect(),
                    });
                }
                Next::Wait(due) => {
                    let left = due.saturating_sub(self.epoch.elapsed());
                    self.changed.wait_for(&mut state, left);
                }
                Next::Idle => self.changed.wait(&mut state),
            }
        }
    }

    fn job(&self, waiting: Waiting<I, O>) -> Job<'_, I, O> {
        Job {
            item: waiting.item,
            reply: waiting.reply,
            place: waiting.place,
            shared: self,
        }
    }

    /// A batch took so long; each tenant's part of that is what it cost.
    fn meter(&self, costs: &[(TenantId, f64)], took: Duration) {
        if costs.is_empty() {
            return;
        }
        self.measures.seconds.record(took);
        let Some(meter) = &self.sharing.meter else { return };
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
            meter.used(tenant, &usage);
        }
    }

    pub(super) fn tell_waiting(&self, state: &State<I, O>) {
        self.measures.waiting.set(state.batcher.waiting() as f64);
    }

    fn done(&self, began: Instant) {
        let mut state = self.state.lock();
        state.batcher.done();
        state.stats.running = state.stats.running.saturating_sub(1);
        state.stats.busy_millis += u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        drop(state);
        // A worker that lingers because this one was busy looks again.
        self.changed.notify_all();
    }
}

/// What a batch costs, by tenant. Batches are small, and mostly of one.
fn costs<I, O>(batch: &[Request<Waiting<I, O>>]) -> Vec<(TenantId, f64)> {
    let mut costs: Vec<(TenantId, f64)> = Vec::with_capacity(1);
    for request in batch {
        let tenant = &request.item.place.tenant;
        match costs.iter_mut().find(|(known, _)| known == tenant) {
            Some((_, cost)) => *cost += request.cost,
            None => costs.push((tenant.clone(), request.cost)),
        }
    }
    costs
}
