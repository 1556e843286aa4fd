//! A queue of requests that is fair between tenants. It does not read a clock.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996) on two levels, as for the batches of the other models. The next request is
//! that of the tenant with the least service in relation to its weight. Interactive requests cost one eighth of bulk requests,
//! so they get eight ninths of the capacity under load, and bulk requests still progress. A tenant that arrives late starts
//! beside the other tenants, not behind their queues, and idle time earns no credit.
//!
//! Not every provider can answer every request. The caller passes a filter, and the queue returns the first request that
//! matches. A request that is retried keeps its position within its tenant.

use std::collections::{BTreeMap, VecDeque};

use weir_core::ports::SchedulingContext;
use weir_core::{Lane, TenantId};

/// Share of the capacity of interactive requests, in relation to that of bulk requests.
const INTERACTIVE_WEIGHT: f64 = 8.0;

/// Identifies a request; ids increase.
pub(crate) type RequestId = u64;

/// The virtual time at which a flow's last request finished.
#[derive(Debug, Clone, Copy, Default)]
struct VirtualTime(f64);

impl VirtualTime {
    const fn start_time(self, virtual_time: f64) -> f64 {
        self.0.max(virtual_time)
    }

    /// Records the service of a request and returns the new virtual time.
    fn record_service(&mut self, virtual_time: f64, cost: f64) -> f64 {
        let start = self.start_time(virtual_time);
        self.0 = start + cost;
        start
    }
}

struct QueueEntry<T> {
    id: RequestId,
    cost: f64,
    weight: f64,
    item: T,
}

struct TenantFlow<T> {
    finish_time: VirtualTime,
    entries: VecDeque<QueueEntry<T>>,
}

struct LaneQueue<T> {
    finish_time: VirtualTime,
    weight: f64,
    virtual_time: f64,
    // Ordered, so that ties are resolved deterministically.
    flows: BTreeMap<TenantId, TenantFlow<T>>,
}

impl<T> LaneQueue<T> {
    const fn new(weight: f64) -> Self {
        Self {
            finish_time: VirtualTime(0.0),
            weight,
            virtual_time: 0.0,
            flows: BTreeMap::new(),
        }
    }

    fn find_next(&self, fits: &mut impl FnMut(&T) -> bool) -> Option<(&TenantId, usize)> {
        self.flows
            .iter()
            .filter_map(|(tenant, flow)| {
                let index = flow.entries.iter().position(|entry| fits(&entry.item))?;
                Some((tenant, index, flow.finish_time.start_time(self.virtual_time)))
            })
            .min_by(|a, b| a.2.total_cmp(&b.2))
            .map(|(tenant, index, _)| (tenant, index))
    }

    /// Drops idle flows whose finish time has passed: they would start at the current virtual time anyway.
    fn drop_idle_flows(&mut self) {
        let now = self.virtual_time;
        let empty = self.flows.values().all(|flow| flow.entries.is_empty());
        self.flows
            .retain(|_, flow| !flow.entries.is_empty() || (!empty && flow.finish_time.0 > now));
    }
}

/// The position of an entry.
#[derive(Debug, Clone)]
pub(crate) struct EntryPosition {
    lane: Lane,
    tenant: TenantId,
    index: usize,
}

/// The queued requests of all tenants.
pub(crate) struct FairQueue<T> {
    interactive: LaneQueue<T>,
    bulk: LaneQueue<T>,
    virtual_time: f64,
    queued: usize,
}

impl<T> FairQueue<T> {
    /// Creates an empty queue.
    pub(crate) const fn new() -> Self {
        Self {
            interactive: LaneQueue::new(INTERACTIVE_WEIGHT),
            bulk: LaneQueue::new(1.0),
            virtual_time: 0.0,
            queued: 0,
        }
    }

    /// Number of queued requests.
    pub(crate) const fn len(&self) -> usize {
        self.queued
    }

    /// Number of queued requests of a tenant.
    pub(crate) fn tenant_len(&self, tenant: &TenantId) -> usize {
        [&self.interactive, &self.bulk]
            .into_iter()
            .filter_map(|lane| lane.flows.get(tenant))
            .map(|flow| flow.entries.len())
            .sum()
    }

    fn lane_queue_mut(&mut self, lane: Lane) -> &mut LaneQueue<T> {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }

    /// Adds a request behind the tenant's older ones.
    pub(crate) fn push(&mut self, account: &SchedulingContext, id: RequestId, cost: f64, item: T) {
        let weight = match account.tenant_weight {
            weight if weight.is_finite() && weight > 0.0 => weight,
            _ => 1.0,
        };
        let flow = self
            .lane_queue_mut(account.lane)
            .flows
            .entry(account.tenant.clone())
            .or_insert_with(|| TenantFlow {
                finish_time: VirtualTime::default(),
                entries: VecDeque::new(),
            });
        let place = flow.entries.partition_point(|other| other.id <= id);
        let entry = QueueEntry {
            id,
            cost,
            weight,
            item,
        };
        flow.entries.insert(place, entry);
        self.queued += 1;
    }

    /// Returns the next request among those that match.
    pub(crate) fn find_next(&self, mut fits: impl FnMut(&T) -> bool) -> Option<(EntryPosition, &T)> {
        let now = self.virtual_time;
        let bulk_first = self.bulk.finish_time.start_time(now) < self.interactive.finish_time.start_time(now);
        let mut lanes = [(Lane::Interactive, &self.interactive), (Lane::Bulk, &self.bulk)];
        if bulk_first {
            lanes.reverse();
        }
        lanes.into_iter().find_map(|(lane, queue)| {
            let (tenant, index) = queue.find_next(&mut fits)?;
            let item = &queue.flows.get(tenant)?.entries.get(index)?.item;
            let tenant = tenant.clone();
            Some((EntryPosition { lane, tenant, index }, item))
        })
    }

    /// Removes the entry at a position that [`Self::find_next`] has just returned, and counts it as served.
    pub(crate) fn take_entry(&mut self, place: &EntryPosition) -> Option<T> {
        let now = self.virtual_time;
        let lane = self.lane_queue_mut(place.lane);
        let flow = lane.flows.get_mut(&place.tenant)?;
        let entry = flow.entries.remove(place.index)?;
        lane.virtual_time = flow
            .finish_time
            .record_service(lane.virtual_time, entry.cost / entry.weight);
        let now = lane.finish_time.record_service(now, entry.cost / lane.weight);
        lane.drop_idle_flows();
        self.virtual_time = now;
        self.queued -= 1;
        Some(entry.item)
    }

    /// Removes a request whose caller has gone.
    pub(crate) fn remove_entry(&mut self, account: &SchedulingContext, id: RequestId) -> Option<T> {
        let lane = self.lane_queue_mut(account.lane);
        let flow = lane.flows.get_mut(&account.tenant)?;
        let index = flow.entries.iter().position(|entry| entry.id == id)?;
        let entry = flow.entries.remove(index)?;
        lane.drop_idle_flows();
        self.queued -= 1;
        Some(entry.item)
    }

    /// Removes all matching requests without counting them as served.
    pub(crate) fn drain_matching(&mut self, mut fits: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut drained = Vec::new();
        for lane in [&mut self.interactive, &mut self.bulk] {
            for flow in lane.flows.values_mut() {
                let (out, stay): (VecDeque<_>, VecDeque<_>) =
                    flow.entries.drain(..).partition(|entry| fits(&entry.item));
                flow.entries = stay;
                drained.extend(out.into_iter().map(|entry| entry.item));
            }
            lane.drop_idle_flows();
        }
        self.queued -= drained.len();
        drained
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;

    fn account(tenant: &str, lane: Lane, weight: f64) -> SchedulingContext {
        SchedulingContext {
            tenant: tenant.parse().unwrap(),
            lane,
            group: 0,
            batch_linger: Duration::ZERO,
            tenant_weight: weight,
        }
    }

    fn pop_next(queue: &mut FairQueue<&'static str>) -> Option<&'static str> {
        let (place, _) = queue.find_next(|_| true)?;
        queue.take_entry(&place)
    }

    #[test]
    fn small_tenant_does_not_wait_behind_a_large_one() {
        let mut queue = FairQueue::new();
        let (crowd, few) = (account("crowd", Lane::Bulk, 1.0), account("few", Lane::Bulk, 1.0));
        (0..1000).for_each(|id| queue.push(&crowd, id, 1.0, "crowd"));
        (0..100).for_each(|_| assert_eq!(pop_next(&mut queue), Some("crowd")));
        (1000..1003).for_each(|id| queue.push(&few, id, 1.0, "few"));
        let next: Vec<_> = (0..6).filter_map(|_| pop_next(&mut queue)).collect();
        assert_eq!(next.iter().filter(|who| **who == "few").count(), 3, "{next:?}");
        assert_eq!((queue.len(), queue.tenant_len(&crowd.tenant)), (897, 897));
    }

    #[test]
    fn weights_and_lanes_share_capacity() {
        let mut queue = FairQueue::new();
        for id in 0..1000 {
            queue.push(&account("a", Lane::Bulk, 1.0), id, 1.0, "a");
            queue.push(&account("b", Lane::Bulk, 3.0), id, 1.0, "b");
            queue.push(&account("c", Lane::Interactive, f64::NAN), id, 1.0, "c");
        }
        let mut had = HashMap::new();
        (0..900)
            .filter_map(|_| pop_next(&mut queue))
            .for_each(|who| *had.entry(who).or_insert(0_i32) += 1);
        assert!((had["c"] - 800).abs() <= 2, "{had:?}");
        assert!(
            (had["b"] - 75).abs() <= 2 && (had["a"] - 25).abs() <= 2,
            "{had:?}"
        );
    }

    #[test]
    fn ineligible_entry_is_skipped_and_keeps_its_position() {
        let mut queue = FairQueue::new();
        let one = account("one", Lane::Bulk, 1.0);
        queue.push(&one, 1, 1.0, "image");
        queue.push(&one, 3, 1.0, "text");
        queue.push(&one, 2, 1.0, "tried again");
        let (place, item) = queue.find_next(|item| *item != "image").unwrap();
        assert_eq!(*item, "tried again");
        assert_eq!(queue.take_entry(&place), Some("tried again"));
        assert_eq!(pop_next(&mut queue), Some("image"));
        assert_eq!(queue.remove_entry(&one, 3), Some("text"));
        assert_eq!(queue.remove_entry(&one, 3), None);
        assert_eq!((queue.len(), queue.bulk.flows.len()), (0, 0));
    }

    #[test]
    fn drain_removes_only_matching_entries() {
        let mut queue = FairQueue::new();
        for id in 0..10 {
            let who = if id % 2 == 0 { "even" } else { "odd" };
            queue.push(&account(who, Lane::Interactive, 1.0), id, 1.0, who);
        }
        assert_eq!(queue.drain_matching(|who| *who == "even").len(), 5);
        assert_eq!(queue.len(), 5);
        assert!(std::iter::from_fn(|| pop_next(&mut queue)).all(|who| who == "odd"));
    }
}
