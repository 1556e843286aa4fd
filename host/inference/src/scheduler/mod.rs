//! Many callers, few models: requests wait in a queue that is fair by tenant, workers take batches across jobs and
//! tenants, and each answer goes out the moment it is there.
//!
//! A run of ONNX Runtime blocks for milliseconds to seconds, so each worker is a thread with a model in its hands and the
//! callers are futures. The first request starts the threads and each thread opens its model then, unless it has been
//! told to beforehand: a run that reads text layers only never pays for OCR. A future that is dropped takes its waiting requests with it, and a model can see
//! between two steps that nobody waits for the rest.
//!
//! A caller's request may become several: see [`Job::split`].
//!
//! Backpressure is by tenant and lane: `room` requests of a tenant may wait in each lane and its further calls wait for room
//! among themselves. A tenant whose callers pile up without end gets [`InferenceError::Full`], in that lane alone: neither
//! another tenant's calls nor its own searches are refused for it. There is no limit for all tenants together, since it would
//! be the first tenant's to use up; the callers of a tenant are bounded where they come from.

mod batch;
mod job;
mod measures;
mod queue;
mod stop;
mod worker;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};
use weir_core::ports::Account;
use weir_core::usage::Meter;
use weir_core::{InferenceError, Lane, TenantId};

use batch::Batcher;
use job::{Place, Reply, Waiting};
use measures::Measures;
use queue::{CallId, FairQueue};
use worker::{Shared, State};

pub(crate) use batch::Gain;
pub(crate) use job::Job;
pub(crate) use stop::Stop;

/// The calls of a tenant may pile up in a lane to this many times its room before they are refused.
const FULL_AT_ROOMS: usize = 16;

/// What runs batches.
pub(crate) trait Model<I, O> {
    /// Answers each job as soon as its own answer is there, or splits it. A job dropped unanswered fails.
    fn run(&mut self, batch: Vec<Job<'_, I, O>>);
}

/// How a model is shared.
#[derive(Debug, Clone)]
pub(crate) struct Sharing {
    /// The model's name in errors, logs and thread names.
    pub(crate) name: &'static str,
    /// Threads that run the model, at least 1.
    pub(crate) workers: usize,
    /// Requests in a batch, at least 1.
    pub(crate) batch: usize,
    /// Requests of one tenant that may wait, in each lane.
    pub(crate) room: usize,
    /// What a batch gains.
    pub(crate) gain: Gain,
    /// Niceness of the threads, 0 to 19: how far they leave the processor to other threads of the host.
    pub(crate) niceness: i32,
    /// Hears how long the model worked for each tenant.
    pub(crate) meter: Option<Arc<dyn Meter>>,
}

/// Gives this thread, and the threads that it starts, a niceness. Elsewhere than on Linux a single thread has none.
fn lower_priority(model: &str, niceness: i32) {
    #[cfg(target_os = "linux")]
    if niceness > 0
        && let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), niceness)
    {
        tracing::warn!(%error, model, "the model runs at the priority of the host");
    }
}

/// What a model has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStats {
    /// Batches run.
    pub batches: u64,
    /// Requests in them, parts counted one by one.
    pub requests: u64,
    /// Requests in the largest of them.
    pub largest_batch: u64,
    /// Requests waiting now.
    pub waiting: u64,
    /// Workers with a batch now.
    pub running: u64,
    /// Milliseconds that workers have spent with batches, summed over workers.
    pub busy_millis: u64,
    /// Milliseconds that requests have waited before their batch, summed over requests.
    pub waited_millis: u64,
}

/// A tenant's part of the queue, in one lane.
struct Share {
    /// Room for requests that wait.
    room: Arc<Semaphore>,
    /// Requests of calls that have not been answered.
    under_way: AtomicUsize,
}

/// The queue and the workers of one model.
pub(crate) struct Scheduler<I, O> {
    shared: Arc<Shared<I, O>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    shares: Mutex<HashMap<(TenantId, Lane), Weak<Share>>>,
    next_call: AtomicU64,
}

impl<I: Send + 'static, O: Send + 'static> Scheduler<I, O> {
    /// Starts nothing yet; `open` is called by each worker when it gets its first batch.
    pub(crate) fn new(
        sharing: Sharing,
        open: impl Fn(&Arc<Stop>) -> Result<Box<dyn Model<I, O>>, InferenceError> + Send + Sync + 'static,
    ) -> Self {
        let measures = Measures::of(sharing.name);
        let state = State {
            batcher: Batcher::new(FairQueue::new(), sharing.workers, sharing.batch, sharing.gain),
            stats: ModelStats::default(),
            closed: false,
        };
        Self {
            shared: Arc::new(Shared {
                sharing,
                open: Box::new(open),
                state: Mutex::new(state),
                changed: Condvar::new(),
                stop: Arc::new(Stop::default()),
                warm: AtomicBool::new(false),
                epoch: Instant::now(),
                measures,
            }),
            threads: Mutex::new(Vec::new()),
            shares: Mutex::default(),
            next_call: AtomicU64::new(0),
        }
    }

    /// Answers to `items` (each with what it costs), in their order, or the first error.
    pub(crate) async fn submit(
        &self,
        account: &Account,
        items: Vec<(I, f64)>,
    ) -> Result<Vec<O>, InferenceError> {
        let count = items.len();
        let call = self.admit(account, count)?;
        self.start()?;
        let mut replies = Vec::with_capacity(count);
        let mut items = items.into_iter();
        // In groups, so that a batch can be taken whole, and a call larger than the room gets through piece by piece.
        let group = self.shared.sharing.batch.min(self.shared.sharing.room).max(1);
        while items.len() > 0 {
            let size = group.min(items.len());
            let mut permits = Arc::clone(&call.share.room)
                .acquire_many_owned(u32::try_from(size).unwrap_or(u32::MAX))
                .await
                .map_err(|_closed| self.stopped())?;
            let mut state = self.shared.state.lock();
            if state.closed {
                return Err(self.stopped());
            }
            let since = Instant::now();
            let place = Arc::new(Place {
                call: call.id,
                tenant: account.tenant.clone(),
                lane: account.lane,
                due: self.shared.epoch.elapsed() + account.linger,
                weight: account.weight,
            });
            for (item, cost) in items.by_ref().take(size) {
                let Some(room) = permits.split(1) else { break };
                let (sender, answer) = oneshot::channel();
                replies.push(answer);
                let waiting = Waiting {
                    item,
                    reply: Reply::new(sender),
                    place: Arc::clone(&place),
                    since,
                    _room: Some(room),
                };
                let queue = state.batcher.queue();
                queue.push(&account.tenant, account.lane, waiting.request(cost));
            }
            self.shared.tell_waiting(&state);
            drop(state);
            self.shared.changed.notify_all();
        }
        let mut answers = Vec::with_capacity(count);
        for reply in replies {
            answers.push(reply.await.map_err(|_dropped| self.stopped())??);
        }
        Ok(answers)
    }

    /// Starts the workers and has them open the model, in the background. If that fails, the first requests try again
    /// and say why.
    pub(crate) fn warm(&self) -> Result<(), InferenceError> {
        self.shared.warm.store(true, Ordering::Relaxed);
        self.start()
    }

    /// What the model has done.
    pub(crate) fn stats(&self) -> ModelStats {
        let state = self.shared.state.lock();
        ModelStats {
            waiting: state.batcher.waiting() as u64,
            ..state.stats
        }
    }

    /// Ends what runs, fails what waits, and returns when no thread is left. Later calls fail.
    pub(crate) fn close(&self) {
        let abandoned = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            let queue = state.batcher.queue();
            let abandoned = std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>();
            self.shared.tell_waiting(&state);
            abandoned
        };
        drop(abandoned);
        self.shared.stop.now();
        self.shared.changed.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A worker that panicked has said so in the log; there is nobody else to tell.
            let _ = thread.join();
        }
    }

    fn admit(&self, account: &Account, count: usize) -> Result<Call<'_, I, O>, InferenceError> {
        let limit = self.shared.sharing.room.saturating_mul(FULL_AT_ROOMS);
        let share = self.share_of(account);
        let before = share.under_way.fetch_add(count, Ordering::Relaxed);
        let call = Call {
            scheduler: self,
            id: self.next_call.fetch_add(1, Ordering::Relaxed),
            share,
            count,
        };
        // A call that is larger than everything may still come alone: it is fed through piece by piece.
        if before > 0 && before.saturating_add(count) > limit {
            return Err(InferenceError::Full {
                model: self.shared.sharing.name.into(),
                waiting: before,
            });
        }
        Ok(call)
    }

    fn start(&self) -> Result<(), InferenceError> {
        let mut threads = self.threads.lock();
        if self.shared.state.lock().closed {
            return Err(self.stopped());
        }
        while threads.len() < self.shared.sharing.workers {
            let shared = Arc::clone(&self.shared);
            let name = format!("{}-{}", shared.sharing.name, threads.len());
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || {
                    lower_priority(shared.sharing.name, shared.sharing.niceness);
                    shared.work();
                })
                .map_err(|e| InferenceError::Failed {
                    model: self.shared.sharing.name.into(),
                    reason: format!("no thread could be started: {e}"),
                })?;
            threads.push(thread);
        }
        Ok(())
    }

    fn share_of(&self, account: &Account) -> Arc<Share> {
        let key = (account.tenant.clone(), account.lane);
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get(&key).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Share {
            room: Arc::new(Semaphore::new(self.shared.sharing.room.max(1))),
            under_way: AtomicUsize::new(0),
        });
        shares.insert(key, Arc::downgrade(&share));
        share
    }

    fn stopped(&self) -> InferenceError {
        InferenceError::Failed {
            model: self.shared.sharing.name.into(),
            reason: "it was stopped before it answered".into(),
        }
    }
}

impl<I, O> Drop for Scheduler<I, O> {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.stop.now();
        self.shared.changed.notify_all();
        for thread in self.threads.get_mut().drain(..) {
            let _ = thread.join();
        }
    }
}

/// A call under way. Dropping it, answered or not, withdraws what still waits.
struct Call<'a, I, O> {
    scheduler: &'a Scheduler<I, O>,
    id: CallId,
    share: Arc<Share>,
    count: usize,
}

impl<I, O> Drop for Call<'_, I, O> {
    fn drop(&mut self) {
        self.share.under_way.fetch_sub(self.count, Ordering::Relaxed);
        let shared = &self.scheduler.shared;
        let mut state = shared.state.lock();
        if state.batcher.queue().withdraw(self.id) > 0 {
            shared.tell_waiting(&state);
        }
    }
}

#[cfg(test)]
mod tests;
