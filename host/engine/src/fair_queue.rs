//! A fair queue of waiters: fair by lane, then by tenant, then by stage queue. It reads no clock; the time is an argument.
//!
//! The shared resource is the time that permits are held. Each lane and each tenant in it has a service clock, which advances for
//! each permit that it holds, divided by its weight. The waiter with the earliest clock is next, as in Linux's completely fair
//! scheduler. Counting time instead of pages needs no estimate of the cost of a page. Counting it while it passes makes new
//! tenants quick: the clock of a tenant that holds all permits advances fast, so the next permits go to the new tenant until it
//! holds its share.
//!
//! Virtual time is the earliest clock of the active tenants (as in start-time fair queueing and in Linux's scheduler). A clock
//! behind it is set forward when its tenant becomes active, so an idle tenant gains no credit. A clock ahead of it stays ahead,
//! also after a short idle time. So a tenant with a latency boost repays it afterwards. The queue itself only knows which tenants
//! are eligible.
//!
//! Lanes come first: time of the interactive lane counts an eighth, as in the inference queue, so that both queues agree. The
//! stage queues of one tenant alternate, so a document of two pages does not wait behind two hundred pages of another.

mod service_clock;

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;
use weir_core::ports::SchedulingContext;
use weir_core::{Lane, TenantId};

use service_clock::ServiceClock;

/// The share of interactive work on a busy stage, relative to bulk work.
const INTERACTIVE_WEIGHT: f64 = 8.0;

/// A flow of waiters that are served in order: the pages of one document in front of one stage.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    pub(crate) account: SchedulingContext,
    /// Distinguishes the flows of one account.
    pub(crate) queue_id: u64,
}

/// A fair queue of waiters, with the service clocks of lanes and tenants.
pub(crate) struct FairQueue<T> {
    interactive: LaneQueue<T>,
    bulk: LaneQueue<T>,
    /// Virtual time of the lanes.
    virtual_time: f64,
    served: u64,
}

struct LaneQueue<T> {
    clock: ServiceClock,
    // Ordered, so that equal clocks are decided the same way every time.
    tenants: BTreeMap<TenantId, TenantQueue<T>>,
    waiting: usize,
    /// Virtual time of the tenants.
    virtual_time: f64,
}

struct TenantQueue<T> {
    clock: ServiceClock,
    flows: VecDeque<FlowQueue<T>>,
    /// The number of the last permit that it got.
    served: u64,
}

/// The waiters of one flow, in order of arrival. The flows of a tenant alternate.
struct FlowQueue<T> {
    queue_id: u64,
    waiting: VecDeque<T>,
}

impl<T> FairQueue<T> {
    /// Creates an empty queue.
    pub(crate) fn new(now: Instant) -> Self {
        let lane = |weight| LaneQueue {
            clock: ServiceClock::new(weight, now),
            tenants: BTreeMap::new(),
            waiting: 0,
            virtual_time: 0.0,
        };
        Self {
            interactive: lane(INTERACTIVE_WEIGHT),
            bulk: lane(1.0),
            virtual_time: 0.0,
            served: 0,
        }
    }

    /// Whether the queue has no waiters.
    pub(crate) fn is_empty(&self) -> bool {
        self.interactive.waiting + self.bulk.waiting == 0
    }

    /// Adds a waiter.
    pub(crate) fn push(&mut self, party: &Flow, waiting: T, now: Instant) {
        let (lane_waiting, tenant) = self.activate_tenant(party, now);
        *lane_waiting += 1;
        match tenant
            .flows
            .iter_mut()
            .find(|turn| turn.queue_id == party.queue_id)
        {
            Some(turn) => turn.waiting.push_back(waiting),
            None => tenant.flows.push_back(FlowQueue {
                queue_id: party.queue_id,
                waiting: VecDeque::from([waiting]),
            }),
        }
    }

    /// Removes and returns the next waiter of the tenants that `may` get a permit, and counts a permit for it. Waiters that are no
    /// longer `wanted` are dropped at no cost for others of their account.
    pub(crate) fn pop(
        &mut self,
        may: impl Fn(&TenantId) -> bool,
        wanted: impl Fn(&T) -> bool,
        now: Instant,
    ) -> Option<T> {
        let mut lanes = [&mut self.interactive, &mut self.bulk];
        lanes.sort_by(|a, b| a.clock.seconds_at(now).total_cmp(&b.clock.seconds_at(now)));
        let served = &mut self.served;
        lanes
            .into_iter()
            .find_map(|lane| lane.pop(&may, &wanted, served, now))
    }

    /// Counts a permit for a flow that was not queued.
    pub(crate) fn record_unqueued_entry(&mut self, party: &Flow, now: Instant) {
        let (_, tenant) = self.activate_tenant(party, now);
        tenant.clock.start_slot(now);
        self.lane_mut(party.account.lane).clock.start_slot(now);
    }

    /// Counts a returned permit.
    pub(crate) fn record_exit(&mut self, party: &Flow, now: Instant) {
        self.advance_virtual_time(now);
        let lane = self.lane_mut(party.account.lane);
        lane.advance_virtual_time(now);
        lane.clock.end_slot(now);
        if let Some(tenant) = lane.tenants.get_mut(&party.account.tenant) {
            tenant.clock.end_slot(now);
        }
        lane.remove_idle_tenants(now);
        let lanes = [&self.interactive, &self.bulk];
        if lanes.iter().all(|lane| lane.is_idle()) {
            // Without other flows, a lane that is ahead has nothing to repay.
            self.virtual_time = lanes
                .iter()
                .map(|lane| lane.clock.seconds)
                .fold(self.virtual_time, f64::max);
        }
    }

    /// Returns the number of waiters in the account's lane and the queue of its tenant. An idle lane or tenant starts at virtual
    /// time.
    fn activate_tenant(&mut self, party: &Flow, now: Instant) -> (&mut usize, &mut TenantQueue<T>) {
        self.advance_virtual_time(now);
        let reached = self.virtual_time;
        let lane = self.lane_mut(party.account.lane);
        if lane.is_idle() {
            lane.clock.catch_up_to(reached, now);
        }
        lane.advance_virtual_time(now);
        let reached = lane.virtual_time;
        let (waiting, tenant) = lane.tenant_mut(&party.account, now);
        if tenant.is_idle() {
            tenant.clock.catch_up_to(reached, now);
        }
        (waiting, tenant)
    }

    fn advance_virtual_time(&mut self, now: Instant) {
        let lanes = [&self.interactive, &self.bulk];
        let active = lanes.into_iter().filter(|lane| !lane.is_idle());
        self.virtual_time = earliest_clock(active.map(|lane| &lane.clock), now).max(self.virtual_time);
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut LaneQueue<T> {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }
}

/// Returns the earliest of the clocks; minus infinity if there are none.
fn earliest_clock<'a>(clocks: impl Iterator<Item = &'a ServiceClock>, now: Instant) -> f64 {
    clocks
        .map(|clock| clock.seconds_at(now))
        .min_by(f64::total_cmp)
        .unwrap_or(f64::NEG_INFINITY)
}

impl<T> TenantQueue<T> {
    fn is_idle(&self) -> bool {
        self.clock.inside == 0 && self.flows.is_empty()
    }
}

impl<T> LaneQueue<T> {
    const fn is_idle(&self) -> bool {
        self.clock.inside == 0 && self.waiting == 0
    }

    fn advance_virtual_time(&mut self, now: Instant) {
        let active = self.tenants.values().filter(|tenant| !tenant.is_idle());
        self.virtual_time = earliest_clock(active.map(|tenant| &tenant.clock), now).max(self.virtual_time);
    }

    /// Returns the number of waiters in the lane, and the queue of a tenant.
    fn tenant_mut(&mut self, account: &SchedulingContext, now: Instant) -> (&mut usize, &mut TenantQueue<T>) {
        let weight = match account.tenant_weight {
            weight if weight.is_finite() && weight > 0.0 => weight,
            _ => 1.0,
        };
        let tenant = self
            .tenants
            .entry(account.tenant.clone())
            .or_insert_with(|| TenantQueue {
                clock: ServiceClock::new(weight, now),
                flows: VecDeque::new(),
                served: 0,
            });
        if tenant.clock.weight != weight {
            tenant.clock.update(now);
            tenant.clock.weight = weight;
        }
        (&mut self.waiting, tenant)
    }

    /// Returns the next waiter of the tenant with the earliest clock. With equal clocks the tenant that was served the longest ago is
    /// next. `None` if no eligible waiter is wanted.
    fn pop(
        &mut self,
        may: impl Fn(&TenantId) -> bool,
        wanted: impl Fn(&T) -> bool,
        served: &mut u64,
        now: Instant,
    ) -> Option<T> {
        loop {
            let waiting = self.tenants.iter_mut();
            let waiting = waiting.filter(|(id, tenant)| !tenant.flows.is_empty() && may(id));
            let (_, tenant) = waiting.min_by(|(_, a), (_, b)| {
                let clocks = a.clock.seconds_at(now).total_cmp(&b.clock.seconds_at(now));
                clocks.then(a.served.cmp(&b.served))
            })?;
            while let Some(mut turn) = tenant.flows.pop_front() {
                while let Some(next) = turn.waiting.pop_front() {
                    self.waiting -= 1;
                    if !wanted(&next) {
                        continue;
                    }
                    if !turn.waiting.is_empty() {
                        tenant.flows.push_back(turn);
                    }
                    *served += 1;
                    tenant.served = *served;
                    tenant.clock.start_slot(now);
                    self.clock.start_slot(now);
                    return Some(next);
                }
            }
        }
    }

    /// Removes idle tenants whose clock does not differ from that of a new tenant.
    fn remove_idle_tenants(&mut self, now: Instant) {
        let reached = self.virtual_time;
        self.tenants
            .retain(|_, tenant| !tenant.is_idle() || tenant.clock.seconds_at(now) > reached);
        if self.is_idle() {
            self.tenants.clear();
        }
    }
}

#[cfg(test)]
mod tests;
