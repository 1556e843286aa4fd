//! A semaphore that grants permits fairly.
//!
//! It is the one primitive for backpressure and fairness: one semaphore holds the worker slots of a stage for the whole host, and
//! another the queue capacity of a document in front of a stage. Unlike a plain semaphore it picks the next waiter fairly (see
//! [`FairQueue`]), reserves permits for boosted tenants if tenants share it, and can change its capacity while it is in use, since
//! each batch plan may change the queue capacity.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use weir_core::TenantId;

use crate::fair_queue::{FairQueue, Flow};
use crate::latency_boost::LatencyBoosts;

/// Grants at most `capacity` permits at a time, in a fair order.
#[derive(Clone)]
pub(crate) struct FairSemaphore(Arc<SemaphoreInner>);

struct SemaphoreInner {
    state: Mutex<SemaphoreState>,
    /// The latency boosts of tenants; `None` if all flows belong to one document.
    latency_boosts: Option<Arc<LatencyBoosts>>,
}

struct SemaphoreState {
    capacity: usize,
    permits_out: usize,
    fair_queue: FairQueue<Waiter>,
}

struct Waiter {
    flow: Arc<Flow>,
    permit_sender: oneshot::Sender<Permit>,
}

/// A permit of the semaphore, returned when it is dropped.
pub(crate) struct Permit {
    semaphore: FairSemaphore,
    flow: Arc<Flow>,
}

impl FairSemaphore {
    /// Creates a semaphore for one document. The capacity is at least 1.
    pub(crate) fn new(capacity: usize) -> Self {
        Self::with_boosts(capacity, None)
    }

    /// Creates a semaphore that tenants share.
    pub(crate) fn new_shared(capacity: usize, head_starts: &Arc<LatencyBoosts>) -> Self {
        Self::with_boosts(capacity, Some(Arc::clone(head_starts)))
    }

    fn with_boosts(capacity: usize, head_starts: Option<Arc<LatencyBoosts>>) -> Self {
        let state = SemaphoreState {
            capacity: capacity.max(1),
            permits_out: 0,
            fair_queue: FairQueue::new(Instant::now()),
        };
        Self(Arc::new(SemaphoreInner {
            state: Mutex::new(state),
            latency_boosts: head_starts,
        }))
    }

    /// Waits for a permit. Dropping the future leaves the queue at no cost for others.
    pub(crate) async fn acquire(&self, party: Arc<Flow>) -> Permit {
        let turn = {
            let mut state = self.0.state.lock();
            if state.fair_queue.is_empty()
                && state.permits_out
                    < tenant_capacity(state.capacity, self.0.active_boosts(), &party.account.tenant)
            {
                return self.grant_unqueued(&mut state, party);
            }
            let (turn, answer) = oneshot::channel();
            let waiting = Waiter {
                flow: Arc::clone(&party),
                permit_sender: turn,
            };
            state.fair_queue.push(&party, waiting, Instant::now());
            answer
        };
        // Waiters in front may be blocked by a boost that does not block this flow.
        self.grant_waiting();
        // The state owns the sender and `self` owns the state, so a permit always arrives.
        turn.await.unwrap_or_else(|_| self.acquire_over_capacity(party))
    }

    /// Takes a permit at once, even above the capacity. The next returned permit is then not granted again.
    pub(crate) fn acquire_over_capacity(&self, party: Arc<Flow>) -> Permit {
        self.grant_unqueued(&mut self.0.state.lock(), party)
    }

    /// Grants a permit to a flow that was not queued.
    fn grant_unqueued(&self, state: &mut SemaphoreState, party: Arc<Flow>) -> Permit {
        state.fair_queue.record_unqueued_entry(&party, Instant::now());
        self.create_permit(state, party)
    }

    fn create_permit(&self, state: &mut SemaphoreState, party: Arc<Flow>) -> Permit {
        state.permits_out += 1;
        Permit {
            semaphore: self.clone(),
            flow: party,
        }
    }

    /// Changes the capacity and returns the old one. Granted permits stay valid.
    pub(crate) fn set_capacity(&self, capacity: usize) -> usize {
        let before = std::mem::replace(&mut self.0.state.lock().capacity, capacity.max(1));
        self.grant_waiting();
        before
    }

    /// Returns the capacity.
    pub(crate) fn capacity(&self) -> usize {
        self.0.state.lock().capacity
    }

    /// Grants permits to waiters while there is capacity.
    pub(crate) fn grant_waiting(&self) {
        loop {
            let (pass, turn) = {
                let mut state = self.0.state.lock();
                let (inside, capacity) = (state.permits_out, state.capacity);
                if inside >= capacity {
                    return;
                }
                let ahead = self.0.active_boosts();
                let may = |tenant: &TenantId| inside < tenant_capacity(capacity, ahead, tenant);
                let next = state
                    .fair_queue
                    .pop(may, |w| !w.permit_sender.is_closed(), Instant::now());
                let Some(next) = next else { return };
                (self.create_permit(&mut state, next.flow), next.permit_sender)
            };
            // If the waiter is gone, the permit comes back and is dropped here, outside of the lock that its drop takes.
            drop(turn.send(pass));
        }
    }
}

impl SemaphoreInner {
    /// Returns the boosts if any tenant is boosted.
    fn active_boosts(&self) -> Option<&LatencyBoosts> {
        self.latency_boosts
            .as_deref()
            .filter(|starts| starts.any_boosted())
    }
}

/// Returns the capacity for a tenant: all of it, or less than half while other tenants are boosted.
fn tenant_capacity(capacity: usize, ahead: Option<&LatencyBoosts>, tenant: &TenantId) -> usize {
    match ahead {
        Some(starts) if !starts.is_boosted(tenant) => capacity.saturating_sub(1) / 2,
        _ => capacity,
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let mut state = self.semaphore.0.state.lock();
            state.permits_out -= 1;
            state.fair_queue.record_exit(&self.flow, Instant::now());
        }
        self.semaphore.grant_waiting();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;
    use weir_core::ports::SchedulingContext;
    use weir_core::{Lane, TenantId};

    use super::*;

    fn test_flow(room: u64) -> Arc<Flow> {
        tenant_flow(&TenantId::default_tenant(), room)
    }

    fn tenant_flow(tenant: &TenantId, room: u64) -> Arc<Flow> {
        let account = SchedulingContext {
            tenant: tenant.clone(),
            lane: Lane::Bulk,
            group: 0,
            batch_linger: Duration::ZERO,
            tenant_weight: 1.0,
        };
        Arc::new(Flow {
            account,
            queue_id: room,
        })
    }

    fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
        future.now_or_never()
    }

    #[tokio::test]
    async fn flows_alternate_and_each_is_served_in_order() {
        let gate = FairSemaphore::new(1);
        let inside = gate.acquire(test_flow(1)).await;
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for (room, name) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (2, "b2")] {
            let (gate, served) = (gate.clone(), Arc::clone(&served));
            waiting.push(tokio::spawn(async move {
                let _pass = gate.acquire(test_flow(room)).await;
                served.lock().push(name);
            }));
            tokio::task::yield_now().await;
        }
        drop(inside);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*served.lock(), ["a1", "b1", "a2", "b2", "a3"]);
    }

    #[tokio::test]
    async fn cancelled_waiter_takes_no_permit() {
        let gate = FairSemaphore::new(1);
        let inside = gate.acquire(test_flow(1)).await;
        let mut gives_up = Box::pin(gate.acquire(test_flow(2)));
        assert!(poll_once(&mut gives_up).is_none());
        let mut waits = Box::pin(gate.acquire(test_flow(3)));
        assert!(poll_once(&mut waits).is_none());
        drop(gives_up);
        drop(inside);
        assert!(poll_once(waits).is_some());
        assert!(poll_once(gate.acquire(test_flow(4))).is_some());
    }

    #[tokio::test]
    async fn granted_but_unreceived_permit_is_returned() {
        let gate = FairSemaphore::new(1);
        let inside = gate.acquire(test_flow(1)).await;
        let mut waits = Box::pin(gate.acquire(test_flow(2)));
        assert!(poll_once(&mut waits).is_none());
        drop(inside);
        drop(waits);
        assert!(poll_once(gate.acquire(test_flow(3))).is_some());
    }

    #[tokio::test]
    async fn capacity_changes_while_in_use() {
        let gate = FairSemaphore::new(3);
        let mut inside = vec![
            gate.acquire(test_flow(1)).await,
            gate.acquire(test_flow(1)).await,
            gate.acquire(test_flow(1)).await,
        ];
        gate.set_capacity(1);
        inside.pop();
        inside.pop();
        assert!(poll_once(gate.acquire(test_flow(1))).is_none());
        let mut waits = Box::pin(gate.acquire(test_flow(1)));
        assert!(poll_once(&mut waits).is_none());
        gate.set_capacity(2);
        assert!(poll_once(waits).is_some());
    }

    #[tokio::test]
    async fn larger_half_is_reserved_for_boosted_tenants() {
        let starts = Arc::new(LatencyBoosts::new(Duration::from_secs(1)));
        let (flood, small): (TenantId, TenantId) = ("flood".parse().unwrap(), "small".parse().unwrap());
        let _flood = starts.start_job(&flood, false, Instant::now());
        let gate = FairSemaphore::new_shared(5, &starts);
        let mut inside = Vec::new();
        for room in 0..5 {
            inside.push(gate.acquire(tenant_flow(&flood, room)).await);
        }
        let mut waits: Vec<_> = (5..10)
            .map(|room| Box::pin(gate.acquire(tenant_flow(&flood, room))))
            .collect();
        waits.iter_mut().for_each(|w| assert!(poll_once(w).is_none()));

        // Returned permits stay free until only two are in use, so the boosted tenant gets one at once.
        let mut begun = starts.start_job(&small, true, Instant::now());
        inside.truncate(2);
        waits.iter_mut().for_each(|w| assert!(poll_once(w).is_none()));
        let ahead = poll_once(gate.acquire(tenant_flow(&small, 10))).unwrap();
        inside.truncate(0);
        let went_in = waits.iter_mut().filter_map(poll_once).collect::<Vec<_>>();
        assert_eq!(went_in.len(), 1);

        drop(ahead);
        starts.end_job(&small, &mut begun, Instant::now());
        gate.grant_waiting();
        let went_in = waits
            .into_iter()
            .skip(1)
            .filter_map(poll_once)
            .collect::<Vec<_>>();
        assert_eq!(went_in.len(), 4);
    }
}
