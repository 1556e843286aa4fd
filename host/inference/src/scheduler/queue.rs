//! The waiting room of a model, fair by tenant. It knows no clock and no thread: the time is an argument, so that its
//! behaviour is tested as arithmetic.
//!
//! Fairness is start-time fair queueing (Goyal, Vin, Cheng 1996), on two levels. Each request gets a start tag, the later
//! of the virtual time and the end of its flow's previous request, and an end tag, its cost divided by its flow's weight
//! later; the least start tag goes next and becomes the virtual time. A tenant who comes late with three requests thus
//! stands beside the head of a tenant who brought a thousand, not behind them, and nobody gains by having been idle.
//! It needs no estimate of the server's rate, unlike weighted fair queueing, and models have none.
//!
//! The upper level is the lane: interactive requests count an eighth of bulk ones, so they take eight ninths of a busy
//! model and bulk work still moves. A strict priority would be simpler and would let one tenant's searches stop every
//! other tenant's ingestion.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use weir_core::{Lane, TenantId};

/// How much more of a busy model interactive work gets than bulk work.
const INTERACTIVE_WEIGHT: f64 = 8.0;

/// Names the requests of one call, so that they can be withdrawn together. Later calls have greater ones.
pub(crate) type CallId = u64;

/// A request as it is put in.
pub(crate) struct Request<T> {
    /// The call it belongs to.
    pub(crate) call: CallId,
    /// What it costs the model, in any unit that adds up.
    pub(crate) cost: f64,
    /// When it must have left, even in a partial batch.
    pub(crate) due: Duration,
    /// The request.
    pub(crate) item: T,
}

/// One flow's place in virtual time.
#[derive(Clone, Copy, Default)]
struct Tag {
    end: f64,
}

impl Tag {
    fn start(self, virtual_time: f64) -> f64 {
        self.end.max(virtual_time)
    }

    fn serve(&mut self, virtual_time: &mut f64, cost: f64, weight: f64) {
        let start = self.start(*virtual_time);
        *virtual_time = start;
        self.end = start + cost / weight;
    }
}

struct Flow<T> {
    tag: Tag,
    requests: VecDeque<Request<T>>,
}

impl<T> Default for Flow<T> {
    fn default() -> Self {
        Self {
            tag: Tag::default(),
            requests: VecDeque::new(),
        }
    }
}

struct LaneQueue<T> {
    tag: Tag,
    weight: f64,
    virtual_time: f64,
    // Ordered, so that equal tags are decided the same way every time.
    flows: BTreeMap<TenantId, Flow<T>>,
    waiting: usize,
}

impl<T> LaneQueue<T> {
    const fn new(weight: f64) -> Self {
        Self {
            tag: Tag { end: 0.0 },
            weight,
            virtual_time: 0.0,
            flows: BTreeMap::new(),
            waiting: 0,
        }
    }

    fn pop(&mut self, weight_of: impl Fn(&TenantId) -> f64) -> Option<Request<T>> {
        let virtual_time = self.virtual_time;
        let (tenant, flow) = self
            .flows
            .iter_mut()
            .filter(|(_, flow)| !flow.requests.is_empty())
            .min_by(|(_, a), (_, b)| {
                let (a, b) = (a.tag.start(virtual_time), b.tag.start(virtual_time));
                a.total_cmp(&b)
            })?;
        let request = flow.requests.pop_front()?;
        flow.tag
            .serve(&mut self.virtual_time, request.cost, weight_of(tenant));
        self.waiting -= 1;
        self.forget_idle();
        Some(request)
    }

    /// A flow whose end has passed has no memory worth keeping: it would start at the virtual time anyway.
    fn forget_idle(&mut self) {
        let (empty, now) = (self.waiting == 0, self.virtual_time);
        self.flows
            .retain(|_, flow| !flow.requests.is_empty() || (!empty && flow.tag.end > now));
    }

    fn withdraw(&mut self, call: CallId) -> usize {
        let before = self.waiting;
        for flow in self.flows.values_mut() {
            flow.requests.retain(|r| r.call != call);
        }
        self.waiting = self.flows.values().map(|f| f.requests.len()).sum();
        self.forget_idle();
        before - self.waiting
    }
}

/// Requests of all tenants.
pub(crate) struct FairQueue<T> {
    interactive: LaneQueue<T>,
    bulk: LaneQueue<T>,
    virtual_time: f64,
    weights: BTreeMap<TenantId, f64>,
}

impl<T> FairQueue<T> {
    /// An empty queue; a tenant without a weight has 1.
    pub(crate) fn new(weights: BTreeMap<TenantId, f64>) -> Self {
        Self {
            interactive: LaneQueue::new(INTERACTIVE_WEIGHT),
            bulk: LaneQueue::new(1.0),
            virtual_time: 0.0,
            weights,
        }
    }

    /// Requests waiting.
    pub(crate) const fn len(&self) -> usize {
        self.interactive.waiting + self.bulk.waiting
    }

    /// When the first of the requests must leave.
    pub(crate) fn due(&self) -> Option<Duration> {
        [&self.interactive, &self.bulk]
            .into_iter()
            .flat_map(|lane| lane.flows.values())
            .flat_map(|flow| &flow.requests)
            .map(|r| r.due)
            .min()
    }

    /// Puts a request behind the tenant's others of that lane that belong to the same call or to an older one. Calls are
    /// numbered as they come.
    pub(crate) fn push(&mut self, tenant: &TenantId, lane: Lane, request: Request<T>) {
        let lane = match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        };
        let requests = &mut lane.flows.entry(tenant.clone()).or_default().requests;
        let place = requests.partition_point(|other| other.call <= request.call);
        requests.insert(place, request);
        lane.waiting += 1;
    }

    /// Takes the request whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<Request<T>> {
        let now = self.virtual_time;
        let bulk_first = self.interactive.waiting == 0
            || (self.bulk.waiting > 0 && self.bulk.tag.start(now) < self.interactive.tag.start(now));
        let lane = if bulk_first {
            &mut self.bulk
        } else {
            &mut self.interactive
        };
        let weights = &self.weights;
        let request = lane.pop(|tenant| weights.get(tenant).copied().filter(|w| *w > 0.0).unwrap_or(1.0))?;
        lane.tag.serve(&mut self.virtual_time, request.cost, lane.weight);
        Some(request)
    }

    /// Takes out what is left of a call; how many that were.
    pub(crate) fn withdraw(&mut self, call: CallId) -> usize {
        self.interactive.withdraw(call) + self.bulk.withdraw(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    fn request(call: CallId, cost: f64) -> Request<CallId> {
        Request {
            call,
            cost,
            due: Duration::from_millis(call),
            item: call,
        }
    }

    fn order(queue: &mut FairQueue<CallId>, count: usize) -> Vec<CallId> {
        (0..count).map_while(|_| queue.pop()).map(|r| r.item).collect()
    }

    #[test]
    fn three_requests_do_not_wait_behind_a_thousand() {
        let mut queue = FairQueue::new(BTreeMap::new());
        for _ in 0..1000 {
            queue.push(&tenant("crowd"), Lane::Bulk, request(1, 1.0));
        }
        order(&mut queue, 100);
        for _ in 0..3 {
            queue.push(&tenant("late"), Lane::Bulk, request(2, 1.0));
        }
        let next = order(&mut queue, 7);
        assert_eq!(next.iter().filter(|c| **c == 2).count(), 3, "{next:?}");
        assert_eq!(queue.len(), 1000 - 100 - 4);
    }

    #[test]
    fn the_share_follows_cost_and_weight() {
        let weights = BTreeMap::from([(tenant("heavy"), 3.0)]);
        let mut queue = FairQueue::new(weights);
        for _ in 0..1000 {
            queue.push(&tenant("heavy"), Lane::Bulk, request(1, 1.0));
            queue.push(&tenant("light"), Lane::Bulk, request(2, 1.0));
        }
        let heavy = order(&mut queue, 400).iter().filter(|c| **c == 1).count();
        assert!((298..=302).contains(&heavy), "{heavy}");

        let mut queue = FairQueue::new(BTreeMap::new());
        for _ in 0..1000 {
            queue.push(&tenant("long"), Lane::Bulk, request(1, 10.0));
            queue.push(&tenant("short"), Lane::Bulk, request(2, 1.0));
        }
        let long = order(&mut queue, 550).iter().filter(|c| **c == 1).count();
        assert!((48..=52).contains(&long), "{long}");
    }

    #[test]
    fn a_tenant_who_was_idle_has_saved_up_nothing() {
        let mut queue = FairQueue::new(BTreeMap::new());
        for _ in 0..200 {
            queue.push(&tenant("busy"), Lane::Bulk, request(1, 1.0));
        }
        order(&mut queue, 100);
        for _ in 0..100 {
            queue.push(&tenant("idle"), Lane::Bulk, request(2, 1.0));
        }
        let next = order(&mut queue, 20);
        let idle = next.iter().filter(|c| **c == 2).count();
        assert!((9..=11).contains(&idle), "{next:?}");
    }

    #[test]
    fn a_tenant_cannot_shed_its_past_by_emptying_its_queue() {
        let mut queue = FairQueue::new(BTreeMap::new());
        for _ in 0..10 {
            queue.push(&tenant("steady"), Lane::Bulk, request(1, 1.0));
        }
        queue.push(&tenant("greedy"), Lane::Bulk, request(2, 5.0));
        let mut served = order(&mut queue, 2);
        // It comes back at once with the next costly request and must let five cheap ones go first.
        queue.push(&tenant("greedy"), Lane::Bulk, request(2, 5.0));
        served.extend(order(&mut queue, 6));
        assert_eq!(served.iter().filter(|c| **c == 2).count(), 2, "{served:?}");
        assert_eq!(
            served.iter().take(6).filter(|c| **c == 2).count(),
            1,
            "{served:?}"
        );
    }

    #[test]
    fn interactive_work_goes_first_and_bulk_work_still_moves() {
        let mut queue = FairQueue::new(BTreeMap::new());
        for _ in 0..1000 {
            queue.push(&tenant("a"), Lane::Bulk, request(1, 1.0));
            queue.push(&tenant("b"), Lane::Interactive, request(2, 1.0));
        }
        let bulk = order(&mut queue, 900).iter().filter(|c| **c == 1).count();
        assert!((99..=101).contains(&bulk), "{bulk}");
        assert_eq!(order(&mut queue, 2000).len(), 1100);
    }

    #[test]
    fn an_older_call_goes_ahead_of_a_younger_of_the_same_tenant_and_lane() {
        let mut queue = FairQueue::new(BTreeMap::new());
        for call in [1, 2, 2, 3] {
            queue.push(&tenant("a"), Lane::Bulk, request(call, 1.0));
            queue.push(&tenant("b"), Lane::Bulk, request(call + 10, 1.0));
        }
        assert_eq!(order(&mut queue, 2), [1, 11]);
        for _ in 0..2 {
            queue.push(&tenant("a"), Lane::Bulk, request(1, 1.0));
        }
        let next = order(&mut queue, 8);
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
    fn a_withdrawn_call_leaves_nothing() {
        let mut queue = FairQueue::new(BTreeMap::new());
        for call in [1, 2, 1, 3] {
            queue.push(&tenant("a"), Lane::Bulk, request(call, 1.0));
            queue.push(&tenant("b"), Lane::Interactive, request(call, 1.0));
        }
        assert_eq!(queue.due(), Some(Duration::from_millis(1)));
        assert_eq!(queue.withdraw(1), 4);
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.due(), Some(Duration::from_millis(2)));
        assert!(!order(&mut queue, 10).contains(&1));
        assert_eq!(queue.due(), None);
    }

    #[test]
    fn tenants_who_left_are_forgotten() {
        let mut queue = FairQueue::new(BTreeMap::new());
        for n in 0..500 {
            queue.push(&tenant(&format!("t{n}")), Lane::Bulk, request(n, 1.0));
        }
        order(&mut queue, 500);
        assert!(queue.bulk.flows.is_empty());
    }
}
