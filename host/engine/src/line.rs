//! Who is next at a gate: fair by lane, then by tenant, then by room. It knows no clock; the time is an argument.
//!
//! What is shared is time spent inside. Each lane and each tenant in it has a clock that runs while it is inside, once for
//! each place it holds, and slower the greater its weight; whoever waits with the earliest clock goes next. (This is the
//! idea of Linux's completely fair scheduler, with places for processors.) Counting time instead of pages needs no
//! estimate of what a page costs, and counting it while it runs is what makes a newcomer quick: a tenant that holds every
//! place sees its clock run that many times as fast, so the next places that fall free go to the newcomer until it holds
//! its share, not just every second one.
//!
//! Virtual time is the earliest clock of those who wait or are inside (as in start-time fair queueing and in Linux's
//! scheduler). A clock that has fallen behind it is set forward when its owner comes back, so an idle tenant
//! saves up no share. A clock that is ahead stays ahead, also after a short absence. No other clock is ever
//! moved: a newcomer that goes ahead of its turn (`head_start`) pays for that when it is over, until the others have had as
//! much. All this knows of it is who may go in.
//!
//! The lanes come first, interactive work counting an eighth, as it does before the models behind the stages (in the
//! inference queue): were the two to disagree, each would undo what the other put in order. Rooms of one tenant take plain
//! turns, so that a document of two pages does not stand behind two hundred pages of another.

mod clock;

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;
use weir_core::ports::Account;
use weir_core::{Lane, TenantId};

use clock::Clock;

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
    /// Virtual time of the lanes.
    reached: f64,
    served: u64,
}

struct LaneLine<T> {
    clock: Clock,
    // Ordered, so that equal clocks are decided the same way every time.
    tenants: BTreeMap<TenantId, TenantLine<T>>,
    waiting: usize,
    /// Virtual time of the tenants.
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
        let (lane_waiting, tenant) = self.join(party, now);
        *lane_waiting += 1;
        match tenant.turns.iter_mut().find(|turn| turn.room == party.room) {
            Some(turn) => turn.waiting.push_back(waiting),
            None => tenant.turns.push_back(Turn {
                room: party.room,
                waiting: VecDeque::from([waiting]),
            }),
        }
    }

    /// Takes out whose turn it is, of the tenants who `may` go in; it is inside then. Those who are not `wanted` any more are
    /// passed over at no cost to the others of their account.
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

    /// One more is inside, past the line.
    pub(crate) fn enter(&mut self, party: &Party, now: Instant) {
        let (_, tenant) = self.join(party, now);
        tenant.clock.enter(now);
        self.lane(party.account.lane).clock.enter(now);
    }

    /// One who was inside has left.
    pub(crate) fn leave(&mut self, party: &Party, now: Instant) {
        self.advance(now);
        let lane = self.lane(party.account.lane);
        lane.advance(now);
        lane.clock.leave(now);
        if let Some(tenant) = lane.tenants.get_mut(&party.account.tenant) {
            tenant.clock.leave(now);
        }
        lane.forget_idle(now);
        let lanes = [&self.interactive, &self.bulk];
        if lanes.iter().all(|lane| lane.is_idle()) {
            // Nobody is there to whom a lane that is ahead would owe anything.
            self.reached = lanes
                .iter()
                .map(|lane| lane.clock.had)
                .fold(self.reached, f64::max);
        }
    }

    /// The line of an account: how many wait in its lane, and its tenant's. Those who were idle begin at virtual time.
    fn join(&mut self, party: &Party, now: Instant) -> (&mut usize, &mut TenantLine<T>) {
        self.advance(now);
        let reached = self.reached;
        let lane = self.lane(party.account.lane);
        if lane.is_idle() {
            lane.clock.join(reached, now);
        }
        lane.advance(now);
        let reached = lane.reached;
        let (waiting, tenant) = lane.tenant(&party.account, now);
        if tenant.is_idle() {
            tenant.clock.join(reached, now);
        }
        (waiting, tenant)
    }

    fn advance(&mut self, now: Instant) {
        let lanes = [&self.interactive, &self.bulk];
        let active = lanes.into_iter().filter(|lane| !lane.is_idle());
        self.reached = earliest(active.map(|lane| &lane.clock), now).max(self.reached);
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneLine<T> {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }
}

/// The earliest of some clocks; minus infinity if there are none.
fn earliest<'a>(clocks: impl Iterator<Item = &'a Clock>, now: Instant) -> f64 {
    clocks
        .map(|clock| clock.at(now))
        .min_by(f64::total_cmp)
        .unwrap_or(f64::NEG_INFINITY)
}

impl<T> TenantLine<T> {
    fn is_idle(&self) -> bool {
        self.clock.inside == 0 && self.turns.is_empty()
    }
}

impl<T> LaneLine<T> {
    const fn is_idle(&self) -> bool {
        self.clock.inside == 0 && self.waiting == 0
    }

    fn advance(&mut self, now: Instant) {
        let active = self.tenants.values().filter(|tenant| !tenant.is_idle());
        self.reached = earliest(active.map(|tenant| &tenant.clock), now).max(self.reached);
    }

    /// How many wait here, and a tenant's line.
    fn tenant(&mut self, account: &Account, now: Instant) -> (&mut usize, &mut TenantLine<T>) {
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
        (&mut self.waiting, tenant)
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
                    tenant.clock.enter(now);
                    self.clock.enter(now);
                    return Some(next);
                }
            }
        }
    }

    /// A tenant whose clock says no more than one that starts anew would.
    fn forget_idle(&mut self, now: Instant) {
        let reached = self.reached;
        self.tenants
            .retain(|_, tenant| !tenant.is_idle() || tenant.clock.at(now) > reached);
        if self.is_idle() {
            self.tenants.clear();
        }
    }
}

#[cfg(test)]
mod tests;
