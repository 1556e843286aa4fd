//! Who is next at a gate: fair by lane, then by tenant, then by room. It knows no clock; the time is an argument.
//!
//! What is shared is time spent inside. Each lane and each tenant in it has a clock that runs while it is inside, once for
//! each place it holds, and slower the greater its weight; whoever waits with the earliest clock goes next. (This is the
//! idea of Linux's completely fair scheduler, with places for processors.) Counting time instead of pages needs no
//! estimate of what a page costs, and counting it while it runs is what makes a newcomer quick: a tenant that holds every
//! place sees its clock run that many times as fast, so the next places that fall free go to the newcomer until it holds
//! its share, not just every second one.
//!
//! A clock that has fallen behind those who were served is set forward when its owner comes back, so nobody saves up a share
//! by having been idle; what a newcomer gets beyond its share is a matter of its own (`head_start`), and all this knows of it
//! is who may go in. A clock that is ahead stays so, and nobody loses its past by going away for a moment.
//!
//! The lanes come first, interactive work counting an eighth, as it does before the models behind the stages (in the
//! inference queue): were the two to disagree, each would undo what the other put in order. Rooms of one tenant take plain
//! turns, so that a document of two pages does not stand behind two hundred pages of another.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;
use weir_core::ports::Account;
use weir_core::{Lane, TenantId};

/// How much more of a busy stage interactive work gets than bulk work.
const INTERACTIVE_WEIGHT: f64 = 8.0;

/// One who comes to a gate.
#[derive(Debug, Clone)]
pub(crate) struct Party {
    pub(crate) account: Account,
    /// Tells those of one account apart.
    pub(crate) room: u64,
}

/// Those who wait, and how long they and the others have been inside.
pub(crate) struct Line<T> {
    interactive: LaneLine<T>,
    bulk: LaneLine<T>,
    /// Clock of the lane that was served last.
    reached: f64,
    served: u64,
}

struct LaneLine<T> {
    clock: Clock,
    // Ordered, so that equal clocks are decided the same way every time.
    tenants: BTreeMap<TenantId, TenantLine<T>>,
    waiting: usize,
    /// Clock of the tenant that was served last.
    reached: f64,
}

struct TenantLine<T> {
    clock: Clock,
    turns: VecDeque<Turn<T>>,
    /// When it was served last, in entries.
    served: u64,
}

/// Those of one room who wait, first come first served; rooms take turns.
struct Turn<T> {
    room: u64,
    waiting: VecDeque<T>,
}

/// Seconds inside, weighted.
struct Clock {
    had: f64,
    inside: u32,
    since: Instant,
    weight: f64,
}

impl Clock {
    fn new(weight: f64, now: Instant) -> Self {
        Self {
            had: 0.0,
            inside: 0,
            since: now,
            weight,
        }
    }

    fn at(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.since).as_secs_f64();
        self.had + f64::from(self.inside) * since / self.weight
    }

    fn settle(&mut self, now: Instant) {
        self.had = self.at(now);
        self.since = now;
    }

    /// Back among those who are served, who have come as far as `reached`.
    fn join(&mut self, reached: f64, now: Instant) {
        self.settle(now);
        self.had = self.had.max(reached);
    }

    fn enter(&mut self, now: Instant) {
        self.settle(now);
        self.inside += 1;
    }

    fn leave(&mut self, now: Instant) {
        self.settle(now);
        self.inside = self.inside.saturating_sub(1);
    }
}

impl<T> Line<T> {
    /// Nobody is there.
    pub(crate) fn new(now: Instant) -> Self {
        let lane = |weight| LaneLine {
            clock: Clock::new(weight, now),
            tenants: BTreeMap::new(),
            waiting: 0,
            reached: 0.0,
        };
        Self {
            interactive: lane(INTERACTIVE_WEIGHT),
            bulk: lane(1.0),
            reached: 0.0,
            served: 0,
        }
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.interactive.waiting + self.bulk.waiting == 0
    }

    /// Lines up.
    pub(crate) fn push(&mut self, party: &Party, waiting: T, now: Instant) {
        let reached = self.reached;
        let lane = self.lane(party.account.lane);
        if lane.waiting == 0 {
            lane.clock.join(reached, now);
        }
        lane.waiting += 1;
        let reached = lane.reached;
        let tenant = lane.tenant(&party.account, now);
        if tenant.turns.is_empty() {
            tenant.clock.join(reached, now);
        }
        match tenant.turns.iter_mut().find(|turn| turn.room == party.room) {
            Some(turn) => turn.waiting.push_back(waiting),
            None => tenant.turns.push_back(Turn {
                room: party.room,
                waiting: VecDeque::from([waiting]),
            }),
        }
    }

    /// Takes out whose turn it is, of the tenants who `may` go in. Those who are not `wanted` any more are passed over at no
    /// cost to the others of their account. Whoever is taken still has to [`Self::enter`].
    pub(crate) fn pop(
        &mut self,
        may: impl Fn(&TenantId) -> bool,
        wanted: impl Fn(&T) -> bool,
        now: Instant,
    ) -> Option<T> {
        let mut lanes = [&mut self.interactive, &mut self.bulk];
        lanes.sort_by(|a, b| a.clock.at(now).total_cmp(&b.clock.at(now)));
        let served = &mut self.served;
        lanes
            .into_iter()
            .find_map(|lane| lane.pop(&may, &wanted, served, now))
    }

    /// One more is inside, be it out of the line or past it.
    pub(crate) fn enter(&mut self, party: &Party, now: Instant) {
        let reached = self.reached;
        let lane = self.lane(party.account.lane);
        lane.clock.join(reached, now);
        lane.clock.enter(now);
        let lane_reached = lane.clock.had;
        let reached = lane.reached;
        let tenant = lane.tenant(&party.account, now);
        tenant.clock.join(reached, now);
        tenant.clock.enter(now);
        let tenant_reached = tenant.clock.had;
        lane.reached = tenant_reached;
        self.reached = lane_reached;
    }

    /// One who was inside has left.
    pub(crate) fn leave(&mut self, party: &Party, now: Instant) {
        let lane = self.lane(party.account.lane);
        lane.clock.leave(now);
        if let Some(tenant) = lane.tenants.get_mut(&party.account.tenant) {
            tenant.clock.leave(now);
        }
        lane.forget_idle(now);
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneLine<T> {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }
}

impl<T> LaneLine<T> {
    fn tenant(&mut self, account: &Account, now: Instant) -> &mut TenantLine<T> {
        let weight = match account.weight {
            weight if weight.is_finite() && weight > 0.0 => weight,
            _ => 1.0,
        };
        let tenant = self
            .tenants
            .entry(account.tenant.clone())
            .or_insert_with(|| TenantLine {
                clock: Clock::new(weight, now),
                turns: VecDeque::new(),
                served: 0,
            });
        if tenant.clock.weight != weight {
            tenant.clock.settle(now);
            tenant.clock.weight = weight;
        }
        tenant
    }

    /// Of the tenant with the earliest clock (or, of several, the one that was served the longest ago) the room whose turn it
    /// is. `None` if nobody there who may is wanted any more.
    fn pop(
        &mut self,
        may: impl Fn(&TenantId) -> bool,
        wanted: impl Fn(&T) -> bool,
        served: &mut u64,
        now: Instant,
    ) -> Option<T> {
        loop {
            let waiting = self.tenants.iter_mut();
            let waiting = waiting.filter(|(id, tenant)| !tenant.turns.is_empty() && may(id));
            let (_, tenant) = waiting.min_by(|(_, a), (_, b)| {
                let clocks = a.clock.at(now).total_cmp(&b.clock.at(now));
                clocks.then(a.served.cmp(&b.served))
            })?;
            while let Some(mut turn) = tenant.turns.pop_front() {
                while let Some(next) = turn.waiting.pop_front() {
                    self.waiting -= 1;
                    if !wanted(&next) {
                        continue;
                    }
                    if !turn.waiting.is_empty() {
                        tenant.turns.push_back(turn);
                    }
                    *served += 1;
                    tenant.served = *served;
                    return Some(next);
                }
            }
        }
    }

    /// A tenant whose clock says no more than one that starts anew would.
    fn forget_idle(&mut self, now: Instant) {
        let reached = self.reached;
        self.tenants.retain(|_, tenant| {
            tenant.clock.inside > 0 || !tenant.turns.is_empty() || tenant.clock.at(now) > reached
        });
        if self.waiting == 0 && self.tenants.values().all(|tenant| tenant.clock.inside == 0) {
            self.tenants.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;

    fn party(tenant: &str, lane: Lane, weight: f64) -> Party {
        let account = Account {
            tenant: tenant.parse().unwrap(),
            lane,
            linger: Duration::ZERO,
            weight,
        };
        Party { account, room: 0 }
    }

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Places that are always taken, by parties who stay for a time each.
    struct Places {
        line: Line<(Party, Duration)>,
        inside: Vec<(Instant, Party)>,
        now: Instant,
        places: usize,
        had: HashMap<TenantId, Duration>,
        entered: Vec<String>,
    }

    impl Places {
        fn new(places: usize) -> Self {
            let now = Instant::now();
            Self {
                line: Line::new(now),
                inside: Vec::new(),
                now,
                places,
                had: HashMap::new(),
                entered: Vec::new(),
            }
        }

        fn come(&mut self, count: usize, party: &Party, stay: Duration) {
            for _ in 0..count {
                self.line.push(party, (party.clone(), stay), self.now);
            }
            self.fill();
        }

        fn fill(&mut self) {
            while self.inside.len() < self.places {
                let Some((party, stay)) = self.line.pop(|_| true, |_| true, self.now) else {
                    return;
                };
                self.line.enter(&party, self.now);
                *self.had.entry(party.account.tenant.clone()).or_default() += stay;
                self.entered.push(party.account.tenant.to_string());
                self.inside.push((self.now + stay, party));
            }
        }

        /// Lets whoever is done by `end` leave, and others in.
        fn until(&mut self, end: Duration) {
            let end = self.now + end;
            while let Some(first) = (0..self.inside.len()).min_by_key(|i| self.inside[*i].0)
                && self.inside[first].0 <= end
            {
                let (at, party) = self.inside.remove(first);
                self.now = at;
                self.line.leave(&party, at);
                self.fill();
            }
            self.now = end;
        }

        fn had(&self, tenant: &str) -> f64 {
            self.had[&tenant.parse().unwrap()].as_secs_f64()
        }
    }

    #[test]
    fn the_next_places_are_a_newcomers_until_it_holds_its_share() {
        let mut places = Places::new(4);
        let (crowd, late) = (party("crowd", Lane::Bulk, 1.0), party("late", Lane::Bulk, 1.0));
        // Four places that fall free one after the other.
        for i in 1..=4 {
            places.come(1, &crowd, ms(250 * i));
        }
        places.come(1000, &crowd, ms(1000));
        places.until(ms(10_100));
        places.entered.clear();
        places.come(10, &late, ms(1000));
        places.until(ms(2000));
        assert_eq!(places.entered[..2], ["late", "late"]);
        let late = places.entered.iter().filter(|t| *t == "late").count();
        assert!((4..=5).contains(&late), "{:?}", places.entered);
    }

    #[test]
    fn time_is_shared_by_weight_whatever_a_page_takes() {
        for places in [1, 3, 8] {
            for (weight, heavy_stay, light_stay) in [(3.0, 10, 10), (3.0, 40, 10), (0.5, 7, 30)] {
                let mut places = Places::new(places);
                places.come(20_000, &party("heavy", Lane::Bulk, weight), ms(heavy_stay));
                places.come(20_000, &party("light", Lane::Bulk, 1.0), ms(light_stay));
                places.until(ms(20_000));
                let ratio = places.had("heavy") / places.had("light");
                assert!((ratio / weight - 1.0).abs() < 0.02, "{ratio} for {weight}");
            }
        }
    }

    #[test]
    fn interactive_work_goes_first_and_bulk_work_still_moves() {
        let mut places = Places::new(2);
        places.come(20_000, &party("a", Lane::Bulk, 1.0), ms(10));
        places.come(20_000, &party("b", Lane::Interactive, 1.0), ms(10));
        places.until(ms(20_000));
        let ratio = places.had("b") / places.had("a");
        assert!((ratio / 8.0 - 1.0).abs() < 0.02, "{ratio}");
    }

    #[test]
    fn who_was_idle_has_saved_up_nothing_and_nobody_sheds_its_past() {
        let mut places = Places::new(2);
        let (steady, other) = (party("steady", Lane::Bulk, 1.0), party("other", Lane::Bulk, 1.0));
        places.come(10_000, &steady, ms(10));
        places.until(ms(10_000));
        // After ten seconds without anything it gets its share from now on.
        places.entered.clear();
        places.come(1000, &other, ms(10));
        places.until(ms(1000));
        let others = places.entered.iter().filter(|t| *t == "other").count();
        assert!((98..=102).contains(&others), "{others}");

        // One page of a second, then away for a moment: it has had its share until the others have had as much.
        let mut places = Places::new(1);
        let greedy = party("greedy", Lane::Bulk, 1.0);
        places.come(200, &steady, ms(10));
        places.come(1, &greedy, ms(1000));
        places.until(ms(1500));
        places.entered.clear();
        places.come(1, &greedy, ms(1000));
        places.until(ms(490));
        assert!(
            places.entered.iter().all(|t| t == "steady"),
            "{:?}",
            places.entered
        );
        places.until(ms(1100));
        assert!(places.entered.iter().any(|t| t == "greedy"));
    }

    #[test]
    fn places_that_nobody_waited_for_are_no_debt_and_no_credit() {
        let mut line = Line::<()>::new(Instant::now());
        let (early, late) = (party("early", Lane::Bulk, 1.0), party("late", Lane::Bulk, 1.0));
        let mut now = Instant::now();
        for _ in 0..100 {
            line.enter(&early, now);
            now += ms(1000);
            line.leave(&early, now);
        }
        // Now it gets busy.
        line.enter(&early, now);
        let mut served = Vec::new();
        for _ in 0..10 {
            line.push(&early, (), now);
            line.push(&late, (), now);
        }
        let mut inside = early.clone();
        for _ in 0..10 {
            now += ms(1000);
            line.leave(&inside, now);
            let early_waits = line.bulk.tenants[&early.account.tenant].turns[0].waiting.len();
            line.pop(|_| true, |()| true, now).unwrap();
            let early_left = line.bulk.tenants[&early.account.tenant]
                .turns
                .front()
                .map_or(0, |turn| turn.waiting.len());
            inside = if early_left < early_waits {
                early.clone()
            } else {
                late.clone()
            };
            served.push(inside.account.tenant.to_string());
            line.enter(&inside, now);
        }
        let early = served.iter().filter(|t| *t == "early").count();
        assert!((4..=6).contains(&early), "{served:?}");
    }

    #[test]
    fn who_gave_up_costs_nobody_a_turn() {
        let mut line = Line::new(Instant::now());
        let now = Instant::now();
        for (tenant, name) in [
            ("a", "a1"),
            ("a", "gone"),
            ("b", "gone"),
            ("b", "b1"),
            ("c", "gone"),
        ] {
            line.push(&party(tenant, Lane::Bulk, 1.0), name, now);
        }
        let order: Vec<_> = std::iter::from_fn(|| line.pop(|_| true, |name| *name != "gone", now)).collect();
        assert_eq!(order, ["a1", "b1"]);
        assert!(line.is_empty());
    }

    #[test]
    fn who_may_not_go_in_waits_and_keeps_its_turn() {
        let mut line = Line::new(Instant::now());
        let now = Instant::now();
        for (tenant, lane) in [("a", Lane::Interactive), ("b", Lane::Bulk), ("c", Lane::Bulk)] {
            line.push(&party(tenant, lane, 1.0), tenant, now);
        }
        let only_c = |id: &TenantId| id.to_string() == "c";
        assert_eq!(line.pop(only_c, |_| true, now), Some("c"));
        assert_eq!(line.pop(only_c, |_| true, now), None);
        let rest: Vec<_> = std::iter::from_fn(|| line.pop(|_| true, |_| true, now)).collect();
        assert_eq!(rest, ["a", "b"]);
    }

    #[test]
    fn tenants_who_left_are_forgotten() {
        let mut line = Line::new(Instant::now());
        let mut now = Instant::now();
        for tenant in 0..500 {
            let party = party(&format!("t{tenant}"), Lane::Interactive, f64::NAN);
            line.push(&party, (), now);
            assert_eq!(line.pop(|_| true, |()| true, now), Some(()));
            line.enter(&party, now);
            now += ms(10);
            line.leave(&party, now);
        }
        assert!(line.interactive.tenants.is_empty());
    }
}
