//! A queue of requests that is fair by tenant. The time is an argument, so tests need no clock.
//!
//! It uses start-time fair queueing (Goyal, Vin, Cheng 1996) on two levels. The start tag of a request is the later of the virtual time
//! and the end tag of its flow's previous request. Its end tag is the start tag plus its cost divided by the weight of its flow. The
//! request with the least start tag goes next, and the virtual time becomes its start tag. A tenant that adds three requests late is
//! thus served next to a tenant with a thousand queued requests, and not behind all of them. An idle tenant accumulates no credit.
//! Unlike weighted fair queueing, it needs no estimate of the server's rate, which is unknown for models.
//!
//! The upper level is the lane. An interactive request counts an eighth of a bulk request. The interactive lane thus gets eight ninths
//! of a busy model, and the bulk lane still makes progress. With strict priority, the searches of one tenant could stop the
//! ingestion of all other tenants.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use weir_core::{Lane, TenantId};

/// Weight of the interactive lane relative to the bulk lane.
const INTERACTIVE_WEIGHT: f64 = 8.0;

/// Identifies the requests of one call, so that they can be removed together. Later calls have greater numbers.
pub(crate) type CallId = u64;

/// A queued item.
pub(crate) struct FairQueueItem<T> {
    /// The call it belongs to.
    pub(crate) call_id: CallId,
    /// Its cost for the model, in any unit that can be summed.
    pub(crate) cost: f64,
    /// Weight of its tenant relative to other tenants of the lane; a value that is not above 0 counts as 1.
    pub(crate) weight: f64,
    /// Latest start, even in a partial batch.
    pub(crate) dispatch_deadline: Duration,
    /// The request.
    pub(crate) item: T,
}

/// The position of a flow in virtual time.
#[derive(Clone, Copy, Default)]
struct FlowTag {
    end_tag: f64,
}

impl FlowTag {
    fn start_tag(self, virtual_time: f64) -> f64 {
        self.end_tag.max(virtual_time)
    }

    fn advance(&mut self, virtual_time: &mut f64, cost: f64, weight: f64) {
        let start = self.start_tag(*virtual_time);
        *virtual_time = start;
        self.end_tag = start + cost / weight;
    }
}

struct Flow<T> {
    tag: FlowTag,
    requests: VecDeque<FairQueueItem<T>>,
}

impl<T> Default for Flow<T> {
    fn default() -> Self {
        Self {
            tag: FlowTag::default(),
            requests: VecDeque::new(),
        }
    }
}

struct LaneQueue<T> {
    tag: FlowTag,
    weight: f64,
    virtual_time: f64,
    // Ordered, so that ties between equal tags are always resolved in the same way.
    flows: BTreeMap<TenantId, Flow<T>>,
    len: usize,
}

impl<T> LaneQueue<T> {
    const fn new(weight: f64) -> Self {
        Self {
            tag: FlowTag { end_tag: 0.0 },
            weight,
            virtual_time: 0.0,
            flows: BTreeMap::new(),
            len: 0,
        }
    }

    fn pop(&mut self) -> Option<FairQueueItem<T>> {
        let virtual_time = self.virtual_time;
        let flow = self
            .flows
            .values_mut()
            .filter(|flow| !flow.requests.is_empty())
            .min_by(|a, b| {
                let (a, b) = (a.tag.start_tag(virtual_time), b.tag.start_tag(virtual_time));
                a.total_cmp(&b)
            })?;
        let request = flow.requests.pop_front()?;
        let weight = match request.weight {
            weight if weight.is_finite() && weight > 0.0 => weight,
            _ => 1.0,
        };
        flow.tag.advance(&mut self.virtual_time, request.cost, weight);
        self.len -= 1;
        self.remove_idle_flows();
        Some(request)
    }

    /// Removes idle flows whose end tag has passed: they would start at the virtual time anyway.
    fn remove_idle_flows(&mut self) {
        let (empty, now) = (self.len == 0, self.virtual_time);
        self.flows
            .retain(|_, flow| !flow.requests.is_empty() || (!empty && flow.tag.end_tag > now));
    }

    fn remove_call(&mut self, call: CallId) -> usize {
        let before = self.len;
        for flow in self.flows.values_mut() {
            flow.requests.retain(|r| r.call_id != call);
        }
        self.len = self.flows.values().map(|f| f.requests.len()).sum();
        self.remove_idle_flows();
        before - self.len
    }
}

/// Requests of all tenants.
pub(crate) struct FairQueue<T> {
    interactive: LaneQueue<T>,
    bulk: LaneQueue<T>,
    virtual_time: f64,
}

impl<T> FairQueue<T> {
    /// Creates an empty queue.
    pub(crate) const fn new() -> Self {
        Self {
            interactive: LaneQueue::new(INTERACTIVE_WEIGHT),
            bulk: LaneQueue::new(1.0),
            virtual_time: 0.0,
        }
    }

    /// Returns the number of queued requests.
    pub(crate) const fn len(&self) -> usize {
        self.interactive.len + self.bulk.len
    }

    /// Returns the earliest deadline of the queued requests.
    pub(crate) fn earliest_deadline(&self) -> Option<Duration> {
        [&self.interactive, &self.bulk]
            .into_iter()
            .flat_map(|lane| lane.flows.values())
            .flat_map(|flow| &flow.requests)
            .map(|r| r.dispatch_deadline)
            .min()
    }

    /// Adds a request behind the tenant's other requests of that lane that belong to the same call or an older one. Calls have ascending
    /// numbers.
    pub(crate) fn push(&mut self, tenant: &TenantId, lane: Lane, request: FairQueueItem<T>) {
        let lane = match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        };
        let requests = &mut lane.flows.entry(tenant.clone()).or_default().requests;
        let place = requests.partition_point(|other| other.call_id <= request.call_id);
        requests.insert(place, request);
        lane.len += 1;
    }

    /// Removes the request that is next.
    pub(crate) fn pop(&mut self) -> Option<FairQueueItem<T>> {
        let now = self.virtual_time;
        let bulk_first = self.interactive.len == 0
            || (self.bulk.len > 0 && self.bulk.tag.start_tag(now) < self.interactive.tag.start_tag(now));
        let lane = if bulk_first {
            &mut self.bulk
        } else {
            &mut self.interactive
        };
        let request = lane.pop()?;
        lane.tag
            .advance(&mut self.virtual_time, request.cost, lane.weight);
        Some(request)
    }

    /// Removes the queued requests of a call and returns their number.
    pub(crate) fn remove_call(&mut self, call: CallId) -> usize {
        self.interactive.remove_call(call) + self.bulk.remove_call(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant_id(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    fn queue_item(call: CallId, cost: f64) -> FairQueueItem<CallId> {
        FairQueueItem {
            call_id: call,
            cost,
            weight: 1.0,
            dispatch_deadline: Duration::from_millis(call),
            item: call,
        }
    }

    fn pop_call_ids(queue: &mut FairQueue<CallId>, count: usize) -> Vec<CallId> {
        (0..count).map_while(|_| queue.pop()).map(|r| r.item).collect()
    }

    #[test]
    fn three_requests_do_not_wait_behind_a_thousand() {
        let mut queue = FairQueue::new();
        for _ in 0..1000 {
            queue.push(&tenant_id("crowd"), Lane::Bulk, queue_item(1, 1.0));
        }
        pop_call_ids(&mut queue, 100);
        for _ in 0..3 {
            queue.push(&tenant_id("late"), Lane::Bulk, queue_item(2, 1.0));
        }
        let next = pop_call_ids(&mut queue, 7);
        assert_eq!(next.iter().filter(|c| **c == 2).count(), 3, "{next:?}");
        assert_eq!(queue.len(), 1000 - 100 - 4);
    }

    #[test]
    fn throughput_follows_cost_and_weight() {
        let mut queue = FairQueue::new();
        for _ in 0..1000 {
            let heavy = FairQueueItem {
                weight: 3.0,
                ..queue_item(1, 1.0)
            };
            queue.push(&tenant_id("heavy"), Lane::Bulk, heavy);
            queue.push(&tenant_id("light"), Lane::Bulk, queue_item(2, 1.0));
        }
        let heavy = pop_call_ids(&mut queue, 400).iter().filter(|c| **c == 1).count();
        assert!((298..=302).contains(&heavy), "{heavy}");

        let mut queue = FairQueue::new();
        for _ in 0..1000 {
            queue.push(&tenant_id("long"), Lane::Bulk, queue_item(1, 10.0));
            queue.push(&tenant_id("short"), Lane::Bulk, queue_item(2, 1.0));
        }
        let long = pop_call_ids(&mut queue, 550).iter().filter(|c| **c == 1).count();
        assert!((48..=52).contains(&long), "{long}");
    }

    #[test]
    fn idle_tenant_accumulates_no_credit() {
        let mut queue = FairQueue::new();
        for _ in 0..200 {
            queue.push(&tenant_id("busy"), Lane::Bulk, queue_item(1, 1.0));
        }
        pop_call_ids(&mut queue, 100);
        for _ in 0..100 {
            queue.push(&tenant_id("idle"), Lane::Bulk, queue_item(2, 1.0));
        }
        let next = pop_call_ids(&mut queue, 20);
        let idle = next.iter().filter(|c| **c == 2).count();
        assert!((9..=11).contains(&idle), "{next:?}");
    }

    #[test]
    fn emptying_the_queue_does_not_reset_a_tenants_tag() {
        let mut queue = FairQueue::new();
        for _ in 0..10 {
            queue.push(&tenant_id("steady"), Lane::Bulk, queue_item(1, 1.0));
        }
        queue.push(&tenant_id("greedy"), Lane::Bulk, queue_item(2, 5.0));
        let mut served = pop_call_ids(&mut queue, 2);
        // The tenant returns at once with another costly request; five cheap requests must go first.
        queue.push(&tenant_id("greedy"), Lane::Bulk, queue_item(2, 5.0));
        served.extend(pop_call_ids(&mut queue, 6));
        assert_eq!(served.iter().filter(|c| **c == 2).count(), 2, "{served:?}");
        assert_eq!(
            served.iter().take(6).filter(|c| **c == 2).count(),
            1,
            "{served:?}"
        );
    }

    #[test]
    fn interactive_lane_goes_first_and_bulk_lane_progresses() {
        let mut queue = FairQueue::new();
        for _ in 0..1000 {
            queue.push(&tenant_id("a"), Lane::Bulk, queue_item(1, 1.0));
            queue.push(&tenant_id("b"), Lane::Interactive, queue_item(2, 1.0));
        }
        let bulk = pop_call_ids(&mut queue, 900).iter().filter(|c| **c == 1).count();
        assert!((99..=101).contains(&bulk), "{bulk}");
        assert_eq!(pop_call_ids(&mut queue, 2000).len(), 1100);
    }

    #[test]
    fn older_call_precedes_newer_call_of_same_tenant_and_lane() {
        let mut queue = FairQueue::new();
        for call in [1, 2, 2, 3] {
            queue.push(&tenant_id("a"), Lane::Bulk, queue_item(call, 1.0));
            queue.push(&tenant_id("b"), Lane::Bulk, queue_item(call + 10, 1.0));
        }
        assert_eq!(pop_call_ids(&mut queue, 2), [1, 11]);
        for _ in 0..2 {
            queue.push(&tenant_id("a"), Lane::Bulk, queue_item(1, 1.0));
        }
        let next = pop_call_ids(&mut queue, 8);
        let of = |low, high| {
            next.iter()
                .copied()
                .filter(move |c| (low..high).contains(c))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(0, 10), [1, 1, 2, 2, 3]);
        assert_eq!(of(10, 20), [12, 12, 13]);
        // The other tenant still gets every second turn.
        assert!(next.iter().take(6).filter(|c| **c > 10).count() == 3, "{next:?}");
    }

    #[test]
    fn removed_call_leaves_no_requests() {
        let mut queue = FairQueue::new();
        for call in [1, 2, 1, 3] {
            queue.push(&tenant_id("a"), Lane::Bulk, queue_item(call, 1.0));
            queue.push(&tenant_id("b"), Lane::Interactive, queue_item(call, 1.0));
        }
        assert_eq!(queue.earliest_deadline(), Some(Duration::from_millis(1)));
        assert_eq!(queue.remove_call(1), 4);
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.earliest_deadline(), Some(Duration::from_millis(2)));
        assert!(!pop_call_ids(&mut queue, 10).contains(&1));
        assert_eq!(queue.earliest_deadline(), None);
    }

    #[test]
    fn idle_tenants_are_removed() {
        let mut queue = FairQueue::new();
        for n in 0..500 {
            queue.push(&tenant_id(&format!("t{n}")), Lane::Bulk, queue_item(n, 1.0));
        }
        pop_call_ids(&mut queue, 500);
        assert!(queue.bulk.flows.is_empty());
    }
}
