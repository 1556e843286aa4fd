//! A semaphore that grants permits fairly: the worker slots of a stage, which all documents of the host share.
//!
//! The shared resource is the time that permits are held. When a permit is granted, its tenant is charged half of the mean
//! time for which a permit is held. When the permit is returned, the charge is corrected to the actual time. So tenants share by
//! weight, whatever their pages cost, and no cost must be known before.
//!
//! A tenant that was idle gets the next permits until it holds half of them, so that it does not wait for the pages of others
//! one by one. This is the credit of the fair queue. In a latency boost, permits are kept free for a tenant.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_core::TenantId;
use weir_core::fair_queue::{FairQueue, Flow};

use crate::latency_boost::LatencyBoosts;

/// The charge of a permit until it is returned, relative to the mean time. A charge that is too high would move the virtual
/// time too far, and its correction would come after other tenants were served.
const CHARGE_WHEN_GRANTED: f64 = 0.5;
/// The number of permits over which the time that a permit is held is averaged.
const MEAN_SAMPLES: f64 = 256.0;

/// Grants at most `capacity` permits at a time, in a fair order.
#[derive(Clone)]
pub(crate) struct FairSemaphore(Arc<SemaphoreInner>);

struct SemaphoreInner {
    capacity: usize,
    latency_boosts: Arc<LatencyBoosts>,
    state: Mutex<SemaphoreState>,
}

struct SemaphoreState {
    permits_out: usize,
    /// The waiters. The cost of 1 is the mean time that a permit is held.
    waiters: FairQueue<Waiter>,
    last_order: u64,
    /// The mean time that a permit is held.
    mean_seconds: f64,
    /// The number of permits in the mean.
    samples: f64,
}

struct Waiter {
    flow: Arc<Flow>,
    permit_sender: oneshot::Sender<Permit>,
}

/// A permit of the semaphore, returned when it is dropped.
pub(crate) struct Permit {
    semaphore: FairSemaphore,
    flow: Arc<Flow>,
    since: Instant,
}

/// A call of [`FairSemaphore::acquire`] that has no permit yet.
struct QueuedAcquireGuard<'a> {
    semaphore: &'a FairSemaphore,
    flow: &'a Flow,
    order: u64,
    is_done: bool,
}

impl FairSemaphore {
    /// Creates a semaphore. The capacity is at least 1.
    pub(crate) fn new(capacity: usize, latency_boosts: &Arc<LatencyBoosts>) -> Self {
        let capacity = capacity.max(1);
        Self(Arc::new(SemaphoreInner {
            capacity,
            latency_boosts: Arc::clone(latency_boosts),
            state: Mutex::new(SemaphoreState {
                permits_out: 0,
                // Even without credit, a new tenant gets one permit before it competes with the other tenants.
                waiters: FairQueue::with_max_credit(
                    (capacity as f64 / 2.0 - 1.0).max(0.0) * CHARGE_WHEN_GRANTED,
                ),
                last_order: 0,
                mean_seconds: 0.0,
                samples: 0.0,
            }),
        }))
    }

    /// Waits for a permit. Dropping the future removes the waiter from the queue. Its tenant is not charged.
    pub(crate) async fn acquire(&self, flow: &Arc<Flow>) -> Permit {
        let (permit_sender, permit) = oneshot::channel();
        let order = {
            let mut state = self.0.state.lock();
            state.last_order += 1;
            let order = state.last_order;
            let waiter = Waiter {
                flow: Arc::clone(flow),
                permit_sender,
            };
            state.waiters.push(flow, order, CHARGE_WHEN_GRANTED, waiter);
            order
        };
        let mut queued = QueuedAcquireGuard {
            semaphore: self,
            flow,
            order,
            is_done: false,
        };
        self.grant_permits_to_waiters();
        let granted = permit.await;
        queued.is_done = true;
        match granted {
            Ok(permit) => permit,
            // The queue owns the sender and `self` owns the queue, so a permit always arrives.
            Err(_) => self.create_permit(&mut self.0.state.lock(), Arc::clone(flow)),
        }
    }

    fn create_permit(&self, state: &mut SemaphoreState, flow: Arc<Flow>) -> Permit {
        state.permits_out += 1;
        Permit {
            semaphore: self.clone(),
            flow,
            since: Instant::now(),
        }
    }

    /// Grants permits to waiters while there is capacity.
    pub(crate) fn grant_permits_to_waiters(&self) {
        loop {
            let (permit, permit_sender) = {
                let mut state = self.0.state.lock();
                let Some(next) = self.take_next_waiter(&mut state) else {
                    return;
                };
                (self.create_permit(&mut state, next.flow), next.permit_sender)
            };
            // If the waiter is gone, the permit comes back and is dropped here, outside of the lock that its drop takes.
            drop(permit_sender.send(permit));
        }
    }

    fn take_next_waiter(&self, state: &mut SemaphoreState) -> Option<Waiter> {
        if state.permits_out >= self.0.capacity {
            return None;
        }
        let (first_position, first) = state.waiters.find_next_accepted_request(|_| true)?;
        if state.permits_out < self.0.capacity_for_tenant(&first.flow.tenant) {
            return state.waiters.take_request_and_charge(&first_position);
        }
        // Only a latency boost holds the first waiter back.
        let (position, _) = state.waiters.find_next_accepted_request(|waiter| {
            state.permits_out < self.0.capacity_for_tenant(&waiter.flow.tenant)
        })?;
        state.waiters.take_request_out_of_turn(&position)
    }
}

impl SemaphoreInner {
    /// Returns the capacity for a tenant: all of it, or less than half while other tenants are boosted.
    fn capacity_for_tenant(&self, tenant: &TenantId) -> usize {
        match self.latency_boosts.reserves_slots_for_others(tenant) {
            true => (self.capacity - 1) / 2,
            false => self.capacity,
        }
    }
}

impl Drop for QueuedAcquireGuard<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            let withdrawn = self
                .semaphore
                .0
                .state
                .lock()
                .waiters
                .withdraw_uncharged(self.flow, self.order);
            drop(withdrawn);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let mut state = self.semaphore.0.state.lock();
            state.permits_out -= 1;
            let seconds = self.since.elapsed().as_secs_f64();
            state.samples = (state.samples + 1.0).min(MEAN_SAMPLES);
            state.mean_seconds += (seconds - state.mean_seconds) / state.samples;
            let cost = seconds / state.mean_seconds;
            if cost.is_finite() {
                state
                    .waiters
                    .correct_charge_to_actual_cost(&self.flow, CHARGE_WHEN_GRANTED, cost);
            }
        }
        self.semaphore.grant_permits_to_waiters();
    }
}

#[cfg(test)]
mod tests;
