//! Fair queueing: the order of requests at a resource that tenants share.
//!
//! The method is start-time fair queueing (Goyal, Vin and Cheng, 1996). Each flow has a tag in virtual time: the end of its
//! previous request, or the current virtual time if that is later. The flow with the least tag is served next, its tag becomes
//! the virtual time, and its end moves on by the request's cost divided by the flow's weight. A tenant that arrives with
//! three requests is therefore served beside a tenant that queued a thousand, not behind it. The method needs no estimate of
//! how fast the resource is, unlike weighted fair queueing; models and providers have no known rate.
//!
//! With several requests in service at once, the tags order the dispatch only (Jin, Chase and Kaur, 2004, SFQ(D)): each request is
//! charged when it is dispatched, and [`FairClock::correct_charge_to_actual_cost`] corrects the charge when its real cost is known.
//!
//! **Credit.** A flow that was idle may start up to [`FairClock::max_credit`] before the virtual time. It is then served ahead
//! of the others until it has used that credit, as in borrowed-virtual-time scheduling (Duda and Cheriton, 1999) and for waking
//! threads in Linux. The credit is bounded and not repaid: a new flow has all of it, a known flow regains it while it leaves
//! its share unused, and the other flows' tags never move, so shares over a longer time stay exact. A credit of 0 is plain
//! start-time fair queueing.
//!
//! The types use no wall clock and no threads; time enters only as cost. Their behavior is tested as arithmetic.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;

use crate::{PriorityLane, TenantId};

/// Share of interactive work at a busy resource relative to bulk work.
///
/// Interactive requests take eight ninths of a busy resource, so bulk work still moves. A strict priority would let the searches
/// of one tenant stop the ingestion of all others.
const INTERACTIVE_WEIGHT: f64 = 8.0;

impl PriorityLane {
    /// Returns the weight of the lane in fair queueing.
    #[must_use]
    pub const fn lane_weight(self) -> f64 {
        match self {
            Self::Interactive => INTERACTIVE_WEIGHT,
            Self::Bulk => 1.0,
        }
    }
}

/// Virtual time of the flows that share a resource, named by keys.
///
/// The clock stores no requests. It selects the next of several flows. The caller reports each service with
/// [`charge_and_advance_virtual_time`](Self::charge_and_advance_virtual_time).
#[derive(Debug)]
pub struct FairClock<K> {
    virtual_time: f64,
    max_credit: f64,
    events: u64,
    flows: HashMap<K, FlowTag>,
}

#[derive(Debug, Clone, Copy)]
struct FlowTag {
    /// Virtual time at which the flow's last request ends.
    end: f64,
    /// Number of the flow's last charge, or of its arrival; decides between equal tags.
    last_event: u64,
}

impl<K: Hash + Eq + Clone> FairClock<K> {
    /// Creates a clock whose idle flows gain at most `max_credit`, in units of cost at weight 1.
    #[must_use]
    pub fn new(max_credit: f64) -> Self {
        Self {
            virtual_time: 0.0,
            max_credit,
            events: 0,
            flows: HashMap::new(),
        }
    }

    /// Returns the most credit that an idle flow gains, in units of cost at weight 1.
    #[must_use]
    pub const fn max_credit(&self) -> f64 {
        self.max_credit
    }

    /// Returns the flow that is next among `candidates`: the one with the least start tag, or of several the one that was charged
    /// or arrived the longest ago.
    pub fn next_flow_among<'a>(&self, candidates: impl Iterator<Item = &'a K>) -> Option<&'a K>
    where
        K: 'a,
    {
        candidates.min_by(|a, b| self.compare_flow_service_order(a, b))
    }

    /// Compares the turns of two flows: the least start tag is next, and of equal ones the flow that was served or
    /// arrived the longest ago.
    fn compare_flow_service_order(&self, a: &K, b: &K) -> Ordering {
        let last_event = |flow| self.flows.get(flow).map_or(0, |tag| tag.last_event);
        let tags = self.start_tag(a).total_cmp(&self.start_tag(b));
        tags.then_with(|| last_event(a).cmp(&last_event(b)))
    }

    /// Returns whether the flow has used no more than its share: its next request would start now or earlier in virtual time.
    pub fn is_within_share(&self, flow: &K) -> bool {
        self.start_tag(flow) <= self.virtual_time
    }

    /// Returns the virtual time at which the flow's next request starts.
    fn start_tag(&self, flow: &K) -> f64 {
        let earliest = self.virtual_time - self.max_credit;
        self.flows.get(flow).map_or(earliest, |tag| tag.end.max(earliest))
    }

    /// Adds a flow that has a request, unless it is known, so that flows with equal tags are served in the order of their arrival.
    fn add_flow_if_unknown(&mut self, flow: &K) {
        if !self.flows.contains_key(flow) {
            self.events += 1;
            let tag = FlowTag {
                end: self.virtual_time - self.max_credit,
                last_event: self.events,
            };
            self.flows.insert(flow.clone(), tag);
        }
    }

    /// Charges one request to the flow at its turn, and advances the virtual time to its start tag. A weight that is not a finite
    /// number above 0 counts as 1.
    pub fn charge_and_advance_virtual_time(&mut self, flow: &K, cost: f64, weight: f64) {
        self.virtual_time = self.virtual_time.max(self.start_tag(flow));
        self.charge_out_of_turn(flow, cost, weight);
    }

    /// Charges one request to the flow before its turn. The virtual time does not move, so the start tags of the other flows stay
    /// valid. The flow's next requests wait until the others have caught up.
    pub fn charge_out_of_turn(&mut self, flow: &K, cost: f64, weight: f64) {
        let start = self.start_tag(flow);
        self.events += 1;
        let tag = FlowTag {
            end: start + cost / positive_weight_or_one(weight),
            last_event: self.events,
        };
        self.flows.insert(flow.clone(), tag);
    }

    /// Corrects the charge of a request that was dispatched at the cost `charged` and came to cost `actual`.
    pub fn correct_charge_to_actual_cost(&mut self, flow: &K, charged: f64, actual: f64, weight: f64) {
        if let Some(tag) = self.flows.get_mut(flow) {
            tag.end += (actual - charged) / positive_weight_or_one(weight);
        }
    }

    /// Drops the tags of flows without requests whose tags say no more than those of a new flow would.
    pub fn drop_idle_flow_tags(&mut self, has_requests: impl Fn(&K) -> bool) {
        let earliest = self.virtual_time - self.max_credit;
        self.flows
            .retain(|flow, tag| tag.end > earliest || has_requests(flow));
    }

    /// Drops all tags. Call it only when no requests are queued: then no flow has service to catch up on.
    pub fn clear_all_flow_tags(&mut self) {
        self.flows.clear();
    }

    /// Returns the number of flows with a tag.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Returns whether no flow has a tag.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }
}

/// Returns a weight that can be divided by.
fn positive_weight_or_one(weight: f64) -> f64 {
    if weight.is_finite() && weight > 0.0 {
        weight
    } else {
        1.0
    }
}

/// The flow that a request belongs to, at each level of a [`FairQueue`].
#[derive(Debug, Clone, PartialEq)]
pub struct Flow<K = TenantId> {
    /// The upper level. Lanes share by [`PriorityLane::lane_weight`].
    pub lane: PriorityLane,
    /// The middle level: the tenant, or another key of the owner at a resource that has no tenants. Tenants of a lane share
    /// by weight.
    pub tenant: K,
    /// The lower level, such as a document. The groups of a tenant share equally.
    pub group: u64,
    /// The tenant's share relative to others. A value that is not a finite number above 0 counts as 1.
    pub weight: f64,
}

#[derive(Debug)]
struct QueuedRequest<T> {
    order: u64,
    cost: f64,
    weight: f64,
    item: T,
}

/// The requests of a tenant in one lane.
#[derive(Debug)]
struct TenantQueueInLane<T> {
    clock: FairClock<u64>,
    groups: BTreeMap<u64, VecDeque<QueuedRequest<T>>>,
}

#[derive(Debug)]
struct LaneOfTenantQueues<T, K> {
    clock: FairClock<K>,
    tenants: BTreeMap<K, TenantQueueInLane<T>>,
    len: usize,
}

/// Requests that wait for a shared resource, fair by lane, then by tenant, then by group.
///
/// Requests of one group keep the order of the numbers they are queued under. To find the next request takes time in proportion to
/// the waiting tenants and groups.
#[derive(Debug)]
pub struct FairQueue<T, K = TenantId> {
    clock: FairClock<PriorityLane>,
    interactive: LaneOfTenantQueues<T, K>,
    bulk: LaneOfTenantQueues<T, K>,
}

/// Where a queued request stands; valid until the queue changes.
#[derive(Debug, Clone)]
pub struct QueuedRequestLocation<K = TenantId> {
    lane: PriorityLane,
    tenant: K,
    group: u64,
    index: usize,
}

impl<T, K: Ord + Hash + Clone> LaneOfTenantQueues<T, K> {
    fn new(max_credit: f64) -> Self {
        Self {
            clock: FairClock::new(max_credit),
            tenants: BTreeMap::new(),
            len: 0,
        }
    }

    /// Returns the next accepted request of each tenant that has one.
    fn next_accepted_of_each_tenant<'a>(
        &'a self,
        mut accepts: impl FnMut(&T) -> bool + 'a,
    ) -> impl Iterator<Item = (&'a K, (u64, usize))> {
        self.tenants.iter().filter_map(move |(tenant, queue)| {
            Some((tenant, queue.find_next_accepted_of_tenant(&mut accepts)?))
        })
    }

    /// Takes a request out without serving it.
    fn remove_uncharged(&mut self, tenant: &K, group: u64, index: usize) -> Option<QueuedRequest<T>> {
        let queue = self.tenants.get_mut(tenant)?;
        let requests = queue.groups.get_mut(&group)?;
        let request = requests.remove(index)?;
        if requests.is_empty() {
            queue.groups.remove(&group);
        }
        self.len -= 1;
        Some(request)
    }

    fn remove_and_charge(
        &mut self,
        tenant: &K,
        group: u64,
        index: usize,
        is_out_of_turn: bool,
    ) -> Option<QueuedRequest<T>> {
        let request = self.remove_uncharged(tenant, group, index)?;
        if let Some(queue) = self.tenants.get_mut(tenant) {
            queue
                .clock
                .charge_and_advance_virtual_time(&group, request.cost, 1.0);
            queue
                .clock
                .drop_idle_flow_tags(|group| queue.groups.contains_key(group));
        }
        match is_out_of_turn {
            true => self
                .clock
                .charge_out_of_turn(tenant, request.cost, request.weight),
            false => self
                .clock
                .charge_and_advance_virtual_time(tenant, request.cost, request.weight),
        }
        self.drop_tenants_with_empty_queues();
        Some(request)
    }

    fn drop_tenants_with_empty_queues(&mut self) {
        self.tenants.retain(|_, queue| !queue.groups.is_empty());
        if self.len == 0 {
            self.clock.clear_all_flow_tags();
        } else {
            let tenants = &self.tenants;
            self.clock
                .drop_idle_flow_tags(|tenant| tenants.contains_key(tenant));
        }
    }

    fn remove_matching_uncharged(&mut self, mut unwanted: impl FnMut(&T) -> bool, removed: &mut Vec<T>) {
        for queue in self.tenants.values_mut() {
            for requests in queue.groups.values_mut() {
                if !requests.iter().any(|request| unwanted(&request.item)) {
                    continue;
                }
                let (out, stay): (VecDeque<_>, VecDeque<_>) =
                    requests.drain(..).partition(|request| unwanted(&request.item));
                *requests = stay;
                removed.extend(out.into_iter().map(|request| request.item));
            }
            queue.groups.retain(|_, requests| !requests.is_empty());
        }
        self.len = self.tenants.values().map(TenantQueueInLane::len).sum();
        self.drop_tenants_with_empty_queues();
    }
}

impl<T> TenantQueueInLane<T> {
    fn find_next_accepted_of_tenant(&self, accepts: &mut impl FnMut(&T) -> bool) -> Option<(u64, usize)> {
        let accepted = self.groups.iter().filter_map(|(group, requests)| {
            let index = requests.iter().position(|request| accepts(&request.item))?;
            Some((*group, index))
        });
        accepted.min_by(|(a, _), (b, _)| self.clock.compare_flow_service_order(a, b))
    }

    fn len(&self) -> usize {
        self.groups.values().map(VecDeque::len).sum()
    }
}

impl<T, K: Ord + Hash + Clone> FairQueue<T, K> {
    /// Creates an empty queue without credit for idle flows.
    #[must_use]
    pub fn new() -> Self {
        Self::with_max_credit(0.0)
    }

    /// Creates an empty queue in which a tenant or group that was idle is served ahead of the others until it has used
    /// `max_credit`, in units of cost at weight 1. Lanes gain no credit: bulk work that was idle must not delay interactive work.
    #[must_use]
    pub fn with_max_credit(max_credit: f64) -> Self {
        Self {
            clock: FairClock::new(0.0),
            interactive: LaneOfTenantQueues::new(max_credit),
            bulk: LaneOfTenantQueues::new(max_credit),
        }
    }

    /// Returns the number of requests.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.interactive.len + self.bulk.len
    }

    /// Returns whether there is no request.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of requests of a tenant.
    #[must_use]
    pub fn len_of_tenant(&self, tenant: &K) -> usize {
        let lanes = [&self.interactive, &self.bulk];
        let queues = lanes.into_iter().filter_map(|lane| lane.tenants.get(tenant));
        queues.map(TenantQueueInLane::len).sum()
    }

    /// Iterates over the requests, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.interactive, &self.bulk]
            .into_iter()
            .flat_map(|lane| lane.tenants.values())
            .flat_map(|queue| queue.groups.values().flatten())
            .map(|request| &request.item)
    }

    /// Queues a request behind those of its group whose `order` is not greater. The cost is in any unit that adds up.
    pub fn push(&mut self, flow: &Flow<K>, order: u64, cost: f64, item: T) {
        let lane = self.lane_queue_mut(flow.lane);
        let max_credit = lane.clock.max_credit();
        lane.clock.add_flow_if_unknown(&flow.tenant);
        let tenant = lane
            .tenants
            .entry(flow.tenant.clone())
            .or_insert_with(|| TenantQueueInLane {
                clock: FairClock::new(max_credit),
                groups: BTreeMap::new(),
            });
        tenant.clock.add_flow_if_unknown(&flow.group);
        let requests = tenant.groups.entry(flow.group).or_default();
        let index = requests.partition_point(|other| other.order <= order);
        let request = QueuedRequest {
            order,
            cost,
            weight: flow.weight,
            item,
        };
        requests.insert(index, request);
        lane.len += 1;
    }

    /// Finds the request that is next among those that the resource `accepts`. Requests that it does not accept keep
    /// their place.
    pub fn find_next_accepted_request(
        &self,
        mut accepts: impl FnMut(&T) -> bool,
    ) -> Option<(QueuedRequestLocation<K>, &T)> {
        let lanes = [PriorityLane::Interactive, PriorityLane::Bulk];
        let first = *self.clock.next_flow_among(lanes.iter())?;
        let second = match first {
            PriorityLane::Interactive => PriorityLane::Bulk,
            PriorityLane::Bulk => PriorityLane::Interactive,
        };
        [first, second].into_iter().find_map(|lane| {
            let queue = self.lane_queue(lane);
            let accepted = queue.next_accepted_of_each_tenant(&mut accepts);
            let (tenant, found) =
                accepted.min_by(|(a, _), (b, _)| queue.clock.compare_flow_service_order(a, b))?;
            self.request_with_location(lane, tenant, found)
        })
    }

    /// Returns the next request of each tenant in a lane, in the order of the tenants' turns.
    #[must_use]
    pub fn next_request_of_each_tenant(&self, lane: PriorityLane) -> Vec<(QueuedRequestLocation<K>, &T)> {
        let queue = self.lane_queue(lane);
        let mut next: Vec<_> = queue.next_accepted_of_each_tenant(|_| true).collect();
        next.sort_by(|(a, _), (b, _)| queue.clock.compare_flow_service_order(a, b));
        next.into_iter()
            .filter_map(|(tenant, found)| self.request_with_location(lane, tenant, found))
            .collect()
    }

    fn request_with_location(
        &self,
        lane: PriorityLane,
        tenant: &K,
        (group, index): (u64, usize),
    ) -> Option<(QueuedRequestLocation<K>, &T)> {
        let requests = self.lane_queue(lane).tenants.get(tenant)?.groups.get(&group)?;
        let position = QueuedRequestLocation {
            lane,
            tenant: tenant.clone(),
            group,
            index,
        };
        Some((position, &requests.get(index)?.item))
    }

    /// Takes the request at a position that this queue has just returned, and charges it to its flow.
    pub fn take_request_and_charge(&mut self, position: &QueuedRequestLocation<K>) -> Option<T> {
        self.take_and_charge(position, false)
    }

    /// Like [`Self::take_request_and_charge`], for a request that is served while others in front of it are held back. The next requests of
    /// its lane and tenant wait until the others have caught up. [`Self::take_request_and_charge`] would advance the virtual time past the
    /// flows that are held back, which is correct only if they wait for another resource.
    pub fn take_request_out_of_turn(&mut self, position: &QueuedRequestLocation<K>) -> Option<T> {
        self.take_and_charge(position, true)
    }

    fn take_and_charge(&mut self, position: &QueuedRequestLocation<K>, is_out_of_turn: bool) -> Option<T> {
        let QueuedRequestLocation {
            lane,
            tenant,
            group,
            index,
        } = position;
        let request = self
            .lane_queue_mut(*lane)
            .remove_and_charge(tenant, *group, *index, is_out_of_turn)?;
        match is_out_of_turn {
            true => self
                .clock
                .charge_out_of_turn(lane, request.cost, lane.lane_weight()),
            false => self
                .clock
                .charge_and_advance_virtual_time(lane, request.cost, lane.lane_weight()),
        }
        self.clear_all_tags_if_empty();
        Some(request.item)
    }

    /// Takes the request that is next and charges it to its flow.
    pub fn pop(&mut self) -> Option<T> {
        let (position, _) = self.find_next_accepted_request(|_| true)?;
        self.take_request_and_charge(&position)
    }

    /// Corrects the charge of a request that was taken at the cost `charged` and came to cost `actual`.
    pub fn correct_charge_to_actual_cost(&mut self, flow: &Flow<K>, charged: f64, actual: f64) {
        self.clock
            .correct_charge_to_actual_cost(&flow.lane, charged, actual, flow.lane.lane_weight());
        let lane = self.lane_queue_mut(flow.lane);
        lane.clock
            .correct_charge_to_actual_cost(&flow.tenant, charged, actual, flow.weight);
        if let Some(queue) = lane.tenants.get_mut(&flow.tenant) {
            queue
                .clock
                .correct_charge_to_actual_cost(&flow.group, charged, actual, 1.0);
        }
    }

    /// Takes out the first request of the flow with this `order`, without charging it; `None` if there is none.
    pub fn withdraw_uncharged(&mut self, flow: &Flow<K>, order: u64) -> Option<T> {
        let lane = self.lane_queue_mut(flow.lane);
        let requests = lane.tenants.get(&flow.tenant)?.groups.get(&flow.group)?;
        let index = requests.partition_point(|request| request.order < order);
        requests.get(index).filter(|request| request.order == order)?;
        let request = lane.remove_uncharged(&flow.tenant, flow.group, index)?;
        lane.drop_tenants_with_empty_queues();
        self.clear_all_tags_if_empty();
        Some(request.item)
    }

    /// Takes out all requests that are `unwanted`, without charging them.
    pub fn withdraw_matching_uncharged(&mut self, mut unwanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for lane in [&mut self.interactive, &mut self.bulk] {
            lane.remove_matching_uncharged(&mut unwanted, &mut removed);
        }
        self.clear_all_tags_if_empty();
        removed
    }

    const fn lane_queue(&self, lane: PriorityLane) -> &LaneOfTenantQueues<T, K> {
        match lane {
            PriorityLane::Interactive => &self.interactive,
            PriorityLane::Bulk => &self.bulk,
        }
    }

    const fn lane_queue_mut(&mut self, lane: PriorityLane) -> &mut LaneOfTenantQueues<T, K> {
        match lane {
            PriorityLane::Interactive => &mut self.interactive,
            PriorityLane::Bulk => &mut self.bulk,
        }
    }

    fn clear_all_tags_if_empty(&mut self) {
        if self.is_empty() {
            self.clock.clear_all_flow_tags();
        }
    }
}

impl<T, K: Ord + Hash + Clone> Default for FairQueue<T, K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
