//! Questions that wait, fair by tenant. The queue knows no clock.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996) on two levels, as where batches of the other models are formed: the tenant
//! who has had least for its weight is next, and interactive questions count an eighth of bulk ones, so that they take eight
//! ninths of what is busy and bulk work still moves. Who comes late stands beside the others' first questions, not behind all of
//! them; who was idle gains nothing by it.
//!
//! Not every question can go to every provider, so whoever takes one says which fit: the first that does in this order. A
//! question that is tried again keeps its place among its tenant's.

use std::collections::{BTreeMap, VecDeque};

use weir_core::ports::Account;
use weir_core::{Lane, TenantId};

/// How much more of what is busy interactive questions get than bulk ones.
const INTERACTIVE_WEIGHT: f64 = 8.0;

/// Names a question; later ones have greater ones.
pub(crate) type QuestionId = u64;

/// A flow's place in virtual time: where its last question ended.
#[derive(Debug, Clone, Copy, Default)]
struct Tag(f64);

impl Tag {
    const fn start(self, virtual_time: f64) -> f64 {
        self.0.max(virtual_time)
    }

    /// Serves a question; the virtual time from now on.
    fn serve(&mut self, virtual_time: f64, cost: f64) -> f64 {
        let start = self.start(virtual_time);
        self.0 = start + cost;
        start
    }
}

struct Entry<T> {
    id: QuestionId,
    cost: f64,
    weight: f64,
    item: T,
}

struct Flow<T> {
    tag: Tag,
    entries: VecDeque<Entry<T>>,
}

struct LaneQueue<T> {
    tag: Tag,
    weight: f64,
    virtual_time: f64,
    // Ordered, so that equal tags are decided the same way every time.
    flows: BTreeMap<TenantId, Flow<T>>,
}

impl<T> LaneQueue<T> {
    const fn new(weight: f64) -> Self {
        Self {
            tag: Tag(0.0),
            weight,
            virtual_time: 0.0,
            flows: BTreeMap::new(),
        }
    }

    fn first(&self, fits: &mut impl FnMut(&T) -> bool) -> Option<(&TenantId, usize)> {
        self.flows
            .iter()
            .filter_map(|(tenant, flow)| {
                let index = flow.entries.iter().position(|entry| fits(&entry.item))?;
                Some((tenant, index, flow.tag.start(self.virtual_time)))
            })
            .min_by(|a, b| a.2.total_cmp(&b.2))
            .map(|(tenant, index, _)| (tenant, index))
    }

    /// A flow whose end has passed has no memory worth keeping: it would start at the virtual time anyway.
    fn forget_idle(&mut self) {
        let now = self.virtual_time;
        let empty = self.flows.values().all(|flow| flow.entries.is_empty());
        self.flows
            .retain(|_, flow| !flow.entries.is_empty() || (!empty && flow.tag.0 > now));
    }
}

/// Where a question stands.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    lane: Lane,
    tenant: TenantId,
    index: usize,
}

/// Questions of all tenants.
pub(crate) struct FairQueue<T> {
    interactive: LaneQueue<T>,
    bulk: LaneQueue<T>,
    virtual_time: f64,
    waiting: usize,
}

impl<T> FairQueue<T> {
    /// An empty queue.
    pub(crate) const fn new() -> Self {
        Self {
            interactive: LaneQueue::new(INTERACTIVE_WEIGHT),
            bulk: LaneQueue::new(1.0),
            virtual_time: 0.0,
            waiting: 0,
        }
    }

    /// Questions waiting.
    pub(crate) const fn len(&self) -> usize {
        self.waiting
    }

    /// Questions of a tenant waiting.
    pub(crate) fn len_of(&self, tenant: &TenantId) -> usize {
        [&self.interactive, &self.bulk]
            .into_iter()
            .filter_map(|lane| lane.flows.get(tenant))
            .map(|flow| flow.entries.len())
            .sum()
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneQueue<T> {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }

    /// Puts a question behind the tenant's older ones.
    pub(crate) fn push(&mut self, account: &Account, id: QuestionId, cost: f64, item: T) {
        let weight = match account.weight {
            weight if weight.is_finite() && weight > 0.0 => weight,
            _ => 1.0,
        };
        let flow = self
            .lane(account.lane)
            .flows
            .entry(account.tenant.clone())
            .or_insert_with(|| Flow {
                tag: Tag::default(),
                entries: VecDeque::new(),
            });
        let place = flow.entries.partition_point(|other| other.id <= id);
        let entry = Entry {
            id,
            cost,
            weight,
            item,
        };
        flow.entries.insert(place, entry);
        self.waiting += 1;
    }

    /// The question whose turn it is among those that fit.
    pub(crate) fn first(&self, mut fits: impl FnMut(&T) -> bool) -> Option<(Place, &T)> {
        let now = self.virtual_time;
        let bulk_first = self.bulk.tag.start(now) < self.interactive.tag.start(now);
        let mut lanes = [(Lane::Interactive, &self.interactive), (Lane::Bulk, &self.bulk)];
        if bulk_first {
            lanes.reverse();
        }
        lanes.into_iter().find_map(|(lane, queue)| {
            let (tenant, index) = queue.first(&mut fits)?;
            let item = &queue.flows.get(tenant)?.entries.get(index)?.item;
            let tenant = tenant.clone();
            Some((Place { lane, tenant, index }, item))
        })
    }

    /// Takes the question at a place that [`Self::first`] has just named, and counts it as served.
    pub(crate) fn take(&mut self, place: &Place) -> Option<T> {
        let now = self.virtual_time;
        let lane = self.lane(place.lane);
        let flow = lane.flows.get_mut(&place.tenant)?;
        let entry = flow.entries.remove(place.index)?;
        lane.virtual_time = flow.tag.serve(lane.virtual_time, entry.cost / entry.weight);
        let now = lane.tag.serve(now, entry.cost / lane.weight);
        lane.forget_idle();
        self.virtual_time = now;
        self.waiting -= 1;
        Some(entry.item)
    }

    /// Takes out a question that nobody waits for any more.
    pub(crate) fn withdraw(&mut self, account: &Account, id: QuestionId) -> Option<T> {
        let lane = self.lane(account.lane);
        let flow = lane.flows.get_mut(&account.tenant)?;
        let index = flow.entries.iter().position(|entry| entry.id == id)?;
        let entry = flow.entries.remove(index)?;
        lane.forget_idle();
        self.waiting -= 1;
        Some(entry.item)
    }

    /// Takes out all that fit, without counting them as served.
    pub(crate) fn drain(&mut self, mut fits: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut drained = Vec::new();
        for lane in [&mut self.interactive, &mut self.bulk] {
            for flow in lane.flows.values_mut() {
                let (out, stay): (VecDeque<_>, VecDeque<_>) =
                    flow.entries.drain(..).partition(|entry| fits(&entry.item));
                flow.entries = stay;
                drained.extend(out.into_iter().map(|entry| entry.item));
            }
            lane.forget_idle();
        }
        self.waiting -= drained.len();
        drained
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;

    fn account(tenant: &str, lane: Lane, weight: f64) -> Account {
        Account {
            tenant: tenant.parse().unwrap(),
            lane,
            linger: Duration::ZERO,
            weight,
        }
    }

    fn pop(queue: &mut FairQueue<&'static str>) -> Option<&'static str> {
        let (place, _) = queue.first(|_| true)?;
        queue.take(&place)
    }

    #[test]
    fn three_questions_do_not_wait_behind_a_thousand() {
        let mut queue = FairQueue::new();
        let (crowd, few) = (account("crowd", Lane::Bulk, 1.0), account("few", Lane::Bulk, 1.0));
        (0..1000).for_each(|id| queue.push(&crowd, id, 1.0, "crowd"));
        (0..100).for_each(|_| assert_eq!(pop(&mut queue), Some("crowd")));
        (1000..1003).for_each(|id| queue.push(&few, id, 1.0, "few"));
        let next: Vec<_> = (0..6).filter_map(|_| pop(&mut queue)).collect();
        assert_eq!(next.iter().filter(|who| **who == "few").count(), 3, "{next:?}");
        assert_eq!((queue.len(), queue.len_of(&crowd.tenant)), (897, 897));
    }

    #[test]
    fn weights_and_lanes_share_what_is_busy() {
        let mut queue = FairQueue::new();
        for id in 0..1000 {
            queue.push(&account("a", Lane::Bulk, 1.0), id, 1.0, "a");
            queue.push(&account("b", Lane::Bulk, 3.0), id, 1.0, "b");
            queue.push(&account("c", Lane::Interactive, f64::NAN), id, 1.0, "c");
        }
        let mut had = HashMap::new();
        (0..900)
            .filter_map(|_| pop(&mut queue))
            .for_each(|who| *had.entry(who).or_insert(0_i32) += 1);
        assert!((had["c"] - 800).abs() <= 2, "{had:?}");
        assert!(
            (had["b"] - 75).abs() <= 2 && (had["a"] - 25).abs() <= 2,
            "{had:?}"
        );
    }

    #[test]
    fn what_does_not_fit_is_passed_over_and_keeps_its_turn() {
        let mut queue = FairQueue::new();
        let one = account("one", Lane::Bulk, 1.0);
        queue.push(&one, 1, 1.0, "image");
        queue.push(&one, 3, 1.0, "text");
        queue.push(&one, 2, 1.0, "tried again");
        let (place, item) = queue.first(|item| *item != "image").unwrap();
        assert_eq!(*item, "tried again");
        assert_eq!(queue.take(&place), Some("tried again"));
        assert_eq!(pop(&mut queue), Some("image"));
        assert_eq!(queue.withdraw(&one, 3), Some("text"));
        assert_eq!(queue.withdraw(&one, 3), None);
        assert_eq!((queue.len(), queue.bulk.flows.len()), (0, 0));
    }

    #[test]
    fn what_is_drained_is_gone() {
        let mut queue = FairQueue::new();
        for id in 0..10 {
            let who = if id % 2 == 0 { "even" } else { "odd" };
            queue.push(&account(who, Lane::Interactive, 1.0), id, 1.0, who);
        }
        assert_eq!(queue.drain(|who| *who == "even").len(), 5);
        assert_eq!(queue.len(), 5);
        assert!(std::iter::from_fn(|| pop(&mut queue)).all(|who| who == "odd"));
    }
}
