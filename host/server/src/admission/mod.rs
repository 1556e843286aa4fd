//! Which jobs are taken and when each begins.
//!
//! A job waits here between the moment it is accepted, which is when it is in the ledger, and the moment the engine starts it.
//! What may wait and what may run is bounded for every tenant and for the host, and the last quarter of the places in work
//! is for tenants who have nothing in work: whoever floods the host does not make another's three pages wait for the end
//! of one of his jobs. All of it can be lost: the ledger says at the next start which jobs had not ended.

mod conclude;
mod dispatcher;
mod guards;
mod queue;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_core::memory::SystemMemory;
use weir_core::order::Order;
use weir_core::settings::Settings;
use weir_core::{JobId, Lane, TenantId};

use crate::app::now_millis;

pub(crate) use conclude::conclude;
pub(crate) use dispatcher::{dispatch, restore};
use guards::Leaving;
pub(crate) use guards::{Place, Slot};
pub(crate) use queue::Waiting;
use state::{Running, State, Terms};

/// Bytes of a PDF that count as a page, where nothing else is known of it.
const PAGE_BYTES: f64 = 100_000.0;
/// How long what is known of a tenant's limits is relied on.
const AGREED: Duration = Duration::from_secs(1);
/// When a tenant whose jobs are held is looked at again.
pub(crate) const HELD: Duration = Duration::from_secs(5);

/// Jobs that wait and jobs in work.
pub(crate) struct Admission {
    began: Instant,
    slots: usize,
    most_waiting: usize,
    interactive_bytes: u64,
    max_wait: Option<Duration>,
    min_free: u64,
    state: Mutex<State>,
    wake: Notify,
    moved: watch::Sender<()>,
}

/// What the dispatcher does next.
pub(crate) enum Next {
    /// Start this job.
    Start(Slot),
    /// Ask what this tenant may do.
    Ask(TenantId),
    /// Nothing, until something changes.
    Wait,
}

/// Why a job cannot wait here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The tenant has as many waiting as it may.
    Tenant,
    /// The host has.
    Host,
    /// The tenant is being removed.
    Leaving,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It waits as the `position`th of its tenant's jobs, counted from 1; `held` says what keeps all of them.
    Waiting {
        position: usize,
        held: Option<&'static str>,
    },
    /// It has been in work since then, in milliseconds since 1970; `cancelling` says whether it has been told to stop.
    Running { since_millis: u64, cancelling: bool },
}

/// What a cancellation met.
#[derive(Debug, PartialEq)]
pub(crate) enum Cancelled {
    /// The job waited, and does not any more.
    Waiting(Waiting),
    /// It is in work, and has been told.
    Running,
    /// It is not here.
    Unknown,
}

impl Admission {
    /// With nothing waiting.
    pub(crate) fn new(settings: &Settings) -> Arc<Self> {
        let max_wait = settings.server_max_wait_seconds;
        Arc::new(Self {
            began: Instant::now(),
            slots: settings.server_jobs as usize,
            most_waiting: settings.server_queue as usize,
            interactive_bytes: settings.server_interactive_bytes,
            max_wait: (max_wait > 0).then(|| Duration::from_secs(max_wait.into())),
            min_free: settings.server_min_free_bytes,
            state: Mutex::default(),
            wake: Notify::new(),
            moved: watch::Sender::new(()),
        })
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Keeps a place in the queue for a submission, of at most `limit` for the tenant.
    pub(crate) fn reserve(self: &Arc<Self>, tenant: &TenantId, limit: Option<u64>) -> Result<Place, Refusal> {
        let mut state = self.state.lock();
        if state.leaving.contains(tenant) {
            return Err(Refusal::Leaving);
        }
        let own = state.queue.of(tenant) + state.reserved.get(tenant).copied().unwrap_or(0);
        if limit.is_some_and(|limit| own as u64 >= limit) {
            return Err(Refusal::Tenant);
        }
        if state.queue.len() + state.reserved.values().sum::<usize>() >= self.most_waiting {
            shed("places");
            return Err(Refusal::Host);
        }
        *state.reserved.entry(tenant.clone()).or_default() += 1;
        Ok(Place {
            admission: Arc::clone(self),
            tenant: tenant.clone(),
        })
    }

    /// Puts a job in that was accepted before.
    pub(crate) fn put(&self, job: Waiting) {
        let mut state = self.state.lock();
        if !state.leaving.contains(&job.tenant) {
            state.queue.push(job);
        }
        self.changed(&state);
    }

    /// How an order waits, since `since` on the queue's clock.
    pub(crate) fn waiting(&self, order: &Order, since: Duration) -> Waiting {
        let bytes = order
            .files
            .iter()
            .map(|file| file.bytes)
            .fold(0_u64, u64::saturating_add);
        let wanted = order.options.pages.map_or(f64::INFINITY, |(first, last)| {
            f64::from(last.saturating_sub(first)) + 1.0
        });
        let pages = |bytes: u64| (1.0 + bytes as f64 / PAGE_BYTES).min(wanted);
        Waiting {
            job: order.job,
            tenant: order.tenant.clone(),
            lane: order.lane.unwrap_or(if bytes <= self.interactive_bytes {
                Lane::Interactive
            } else {
                Lane::Bulk
            }),
            cost: order
                .files
                .iter()
                .map(|file| pages(file.bytes))
                .sum::<f64>()
                .max(1.0),
            since,
        }
    }

    /// What the dispatcher does next. A job that is to be started counts as in work from here on.
    pub(crate) fn next(self: &Arc<Self>) -> Next {
        let now = self.now();
        let mut state = self.state.lock();
        let Some(tenant) = state
            .queue
            .turn(|tenant| state.may(tenant, self.slots, now))
            .cloned()
        else {
            return Next::Wait;
        };
        let Some(terms) = state
            .terms
            .get(&tenant)
            .copied()
            .filter(|terms| now < terms.until)
        else {
            return Next::Ask(tenant);
        };
        let Some(job) = state.queue.pop(&tenant, terms.weight, now) else {
            return Next::Wait;
        };
        let cancel = CancellationToken::new();
        let running = Running {
            tenant,
            cancel: cancel.clone(),
            since_millis: now_millis(),
        };
        state.running.insert(job.job, running);
        self.changed(&state);
        Next::Start(Slot {
            admission: Arc::clone(self),
            job,
            weight: terms.weight,
            cancel,
        })
    }

    /// Says what a tenant may do.
    pub(crate) fn agree(
        &self,
        tenant: TenantId,
        weight: f64,
        concurrent: Option<u64>,
        held: Option<&'static str>,
    ) {
        let until = self.now() + if held.is_some() { HELD } else { AGREED };
        let concurrent = concurrent.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let terms = Terms {
            weight,
            concurrent,
            held,
            until,
        };
        let mut state = self.state.lock();
        state.terms.insert(tenant, terms);
        let State {
            terms,
            queue,
            running,
            ..
        } = &mut *state;
        let alive = |t: &TenantId| queue.of(t) > 0 || running.values().any(|r| r.tenant == *t);
        terms.retain(|tenant, terms| terms.until == until || alive(tenant));
    }

    /// The tenant's limits have changed.
    pub(crate) fn reconsider(&self, tenant: &TenantId) {
        self.state.lock().terms.remove(tenant);
        self.wake.notify_one();
    }

    /// A job has failed for want of room. The next would fail as well, and soon all that wait would have: none begins before
    /// its tenant's terms have been asked for again.
    pub(crate) fn lacks_room(&self) {
        let mut state = self.state.lock();
        state.full = true;
        state.terms.clear();
    }

    /// Whether there has been no room, as far as is known.
    pub(crate) fn is_full(&self) -> bool {
        self.state.lock().full
    }

    /// There is room again.
    pub(crate) fn has_room(&self) {
        self.state.lock().full = false;
    }

    /// Where a job of this tenant stands.
    pub(crate) fn standing(&self, tenant: &TenantId, job: JobId) -> Option<Standing> {
        let state = self.state.lock();
        if let Some(running) = state
            .running
            .get(&job)
            .filter(|running| running.tenant == *tenant)
        {
            return Some(Standing::Running {
                since_millis: running.since_millis,
                cancelling: running.cancel.is_cancelled(),
            });
        }
        let position = state.queue.position(tenant, job, self.now())?;
        let held = state.terms.get(tenant).and_then(|terms| terms.held);
        Some(Standing::Waiting { position, held })
    }

    /// A tenant's jobs that wait, and those in work.
    pub(crate) fn counts(&self, tenant: &TenantId) -> (usize, usize) {
        let state = self.state.lock();
        (state.queue.of(tenant), state.in_work(tenant))
    }

    /// Cancels a job of this tenant.
    pub(crate) fn cancel(&self, tenant: &TenantId, job: JobId) -> Cancelled {
        let mut state = self.state.lock();
        if let Some(waiting) = state.queue.withdraw(tenant, job) {
            self.changed(&state);
            return Cancelled::Waiting(waiting);
        }
        match state.running.get(&job) {
            Some(running) if running.tenant == *tenant => {
                running.cancel.cancel();
                Cancelled::Running
            }
            _ => Cancelled::Unknown,
        }
    }

    /// Takes a tenant out: cancels its jobs, takes no more, and returns when none is left and no submission is under way.
    /// Dropping the guard lets the tenant in again.
    pub(crate) async fn leave(self: &Arc<Self>, tenant: &TenantId) -> Leaving {
        let mut moved = self.moves();
        let leaving = Leaving {
            admission: Arc::clone(self),
            tenant: tenant.clone(),
        };
        {
            let mut state = self.state.lock();
            state.leaving.insert(tenant.clone());
            state.queue.withdraw_all(tenant);
            let own = state.running.values().filter(|running| running.tenant == *tenant);
            own.for_each(|running| running.cancel.cancel());
            self.changed(&state);
        }
        loop {
            moved.mark_unchanged();
            {
                let state = self.state.lock();
                if state.in_work(tenant) == 0 && !state.reserved.contains_key(tenant) {
                    return leaving;
                }
            }
            // The sender lives in `self`.
            let _ = moved.changed().await;
        }
    }

    /// Why no more jobs should be accepted now, if so. Whoever asks has one that is refused then, and it is counted.
    pub(crate) fn overload(&self) -> Option<String> {
        if self.min_free > 0
            && let Some(free) = SystemMemory::read().available_bytes
            && free < self.min_free
        {
            shed("memory");
            return Some(format!(
                "only {} MiB of memory are available on this host",
                free >> 20
            ));
        }
        let (limit, now) = (self.max_wait?, self.now());
        let state = self.state.lock();
        // Of those who would get one of the places if one were free.
        let waited = state
            .queue
            .longest_without_turn(now, |tenant| state.may_at_all(tenant, now))?;
        (waited > limit).then(|| {
            shed("turns");
            format!("jobs have waited for {} s without a turn", waited.as_secs())
        })
    }

    /// Changes whenever a job begins to wait, begins, or ends.
    pub(crate) fn moves(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// Waits until [`Self::next`] may have something else to say.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    fn changed(&self, state: &State) {
        gauge!("weir_jobs_waiting").set(state.queue.len() as f64);
        self.wake.notify_one();
        self.moved.send_replace(());
    }
}

/// Counts a job that was not taken for want of something.
fn shed(reason: &'static str) {
    counter!("weir_shed_total", "reason" => reason).increment(1);
}
