//! A gate lets so many through at a time and makes the rest wait their turn.
//!
//! It is the one primitive that backpressure and fairness are made of: a stage's workers are a gate for the whole host,
//! a document's waiting room before a stage is another. A semaphore would do for one document; a gate also decides between
//! those who wait, see [`Line`], keeps places free for those who have a head start, where it is one that tenants share, and
//! its width can change while it is in use, since every batch plan may ask for longer or shorter queues.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use weir_core::TenantId;

use crate::head_start::HeadStarts;
use crate::line::{Line, Party};

/// Lets at most `capacity` through at a time.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Who may be ahead of the others here; `None` where all are one document's.
    head_starts: Option<Arc<HeadStarts>>,
}

struct State {
    capacity: usize,
    inside: usize,
    line: Line<Waiting>,
}

struct Waiting {
    party: Arc<Party>,
    turn: oneshot::Sender<Pass>,
}

/// The right to be inside, until it is dropped.
pub(crate) struct Pass {
    gate: Gate,
    party: Arc<Party>,
}

impl Gate {
    /// A gate as wide as `capacity`, at least 1, for one document.
    pub(crate) fn new(capacity: usize) -> Self {
        Self::with(capacity, None)
    }

    /// A gate that tenants share.
    pub(crate) fn shared(capacity: usize, head_starts: &Arc<HeadStarts>) -> Self {
        Self::with(capacity, Some(Arc::clone(head_starts)))
    }

    fn with(capacity: usize, head_starts: Option<Arc<HeadStarts>>) -> Self {
        let state = State {
            capacity: capacity.max(1),
            inside: 0,
            line: Line::new(Instant::now()),
        };
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            head_starts,
        }))
    }

    /// Waits for `party`'s turn. Giving up the wait costs nobody anything.
    pub(crate) async fn enter(&self, party: Arc<Party>) -> Pass {
        let turn = {
            let mut state = self.0.state.lock();
            if state.line.is_empty()
                && state.inside < room_of(state.capacity, self.0.ahead(), &party.account.tenant)
            {
                return self.let_past(&mut state, party);
            }
            let (turn, answer) = oneshot::channel();
            let waiting = Waiting {
                party: Arc::clone(&party),
                turn,
            };
            state.line.push(&party, waiting, Instant::now());
            answer
        };
        // Those before it may be waiting for more than it has to wait for.
        self.admit();
        // The sender lives in the state, which this gate keeps alive, so the answer always comes.
        turn.await.unwrap_or_else(|_| self.enter_over(party))
    }

    /// Enters at once, even if that makes one too many; the next to leave makes up for it.
    pub(crate) fn enter_over(&self, party: Arc<Party>) -> Pass {
        self.let_past(&mut self.0.state.lock(), party)
    }

    /// Lets in one that has not been in the line.
    fn let_past(&self, state: &mut State, party: Arc<Party>) -> Pass {
        state.line.enter(&party, Instant::now());
        self.pass(state, party)
    }

    fn pass(&self, state: &mut State, party: Arc<Party>) -> Pass {
        state.inside += 1;
        Pass {
            gate: self.clone(),
            party,
        }
    }

    /// Makes the gate wider or narrower, and says how wide it was. Those inside stay.
    pub(crate) fn set_capacity(&self, capacity: usize) -> usize {
        let before = std::mem::replace(&mut self.0.state.lock().capacity, capacity.max(1));
        self.admit();
        before
    }

    /// How many may be inside.
    pub(crate) fn capacity(&self) -> usize {
        self.0.state.lock().capacity
    }

    /// Lets in whoever is next, as long as there is room.
    pub(crate) fn admit(&self) {
        loop {
            let (pass, turn) = {
                let mut state = self.0.state.lock();
                let (inside, capacity) = (state.inside, state.capacity);
                if inside >= capacity {
                    return;
                }
                let ahead = self.0.ahead();
                let may = |tenant: &TenantId| inside < room_of(capacity, ahead, tenant);
                let next = state.line.pop(may, |w| !w.turn.is_closed(), Instant::now());
                let Some(next) = next else { return };
                (self.pass(&mut state, next.party), next.turn)
            };
            // A pass that nobody takes any more comes back and is dropped here, outside the lock it needs.
            drop(turn.send(pass));
        }
    }
}

impl Inner {
    /// Who is ahead, if anybody is.
    fn ahead(&self) -> Option<&HeadStarts> {
        self.head_starts.as_deref().filter(|starts| starts.any())
    }
}

/// How many may be inside for one of this tenant to go in: all, or less than half while others are ahead of it.
fn room_of(capacity: usize, ahead: Option<&HeadStarts>, tenant: &TenantId) -> usize {
    match ahead {
        Some(starts) if !starts.is_ahead(tenant) => capacity.saturating_sub(1) / 2,
        _ => capacity,
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        {
            let mut state = self.gate.0.state.lock();
            state.inside -= 1;
            state.line.leave(&self.party, Instant::now());
        }
        self.gate.admit();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;
    use weir_core::ports::Account;
    use weir_core::{Lane, TenantId};

    use super::*;

    fn party(room: u64) -> Arc<Party> {
        party_of(&TenantId::single(), room)
    }

    fn party_of(tenant: &TenantId, room: u64) -> Arc<Party> {
        let account = Account {
            tenant: tenant.clone(),
            lane: Lane::Bulk,
            linger: Duration::ZERO,
            weight: 1.0,
        };
        Arc::new(Party { account, room })
    }

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        future.now_or_never()
    }

    #[tokio::test]
    async fn parties_take_turns_and_each_is_served_in_order() {
        let gate = Gate::new(1);
        let inside = gate.enter(party(1)).await;
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for (room, name) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (2, "b2")] {
            let (gate, served) = (gate.clone(), Arc::clone(&served));
            waiting.push(tokio::spawn(async move {
                let _pass = gate.enter(party(room)).await;
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
    async fn one_who_gives_up_takes_no_place() {
        let gate = Gate::new(1);
        let inside = gate.enter(party(1)).await;
        let mut gives_up = Box::pin(gate.enter(party(2)));
        assert!(now(&mut gives_up).is_none());
        let mut waits = Box::pin(gate.enter(party(3)));
        assert!(now(&mut waits).is_none());
        drop(gives_up);
        drop(inside);
        assert!(now(waits).is_some());
        assert!(now(gate.enter(party(4))).is_some());
    }

    #[tokio::test]
    async fn a_pass_given_but_never_taken_is_not_lost() {
        let gate = Gate::new(1);
        let inside = gate.enter(party(1)).await;
        let mut waits = Box::pin(gate.enter(party(2)));
        assert!(now(&mut waits).is_none());
        drop(inside);
        drop(waits);
        assert!(now(gate.enter(party(3))).is_some());
    }

    #[tokio::test]
    async fn width_changes_while_in_use() {
        let gate = Gate::new(3);
        let mut inside = vec![
            gate.enter(party(1)).await,
            gate.enter(party(1)).await,
            gate.enter(party(1)).await,
        ];
        gate.set_capacity(1);
        inside.pop();
        inside.pop();
        assert!(now(gate.enter(party(1))).is_none());
        let mut waits = Box::pin(gate.enter(party(1)));
        assert!(now(&mut waits).is_none());
        gate.set_capacity(2);
        assert!(now(waits).is_some());
    }

    #[tokio::test]
    async fn the_greater_half_is_kept_for_those_who_are_ahead() {
        let starts = Arc::new(HeadStarts::new(Duration::from_secs(1)));
        let (flood, small): (TenantId, TenantId) = ("flood".parse().unwrap(), "small".parse().unwrap());
        let _flood = starts.begin(&flood, false, Instant::now());
        let gate = Gate::shared(5, &starts);
        let mut inside = Vec::new();
        for room in 0..5 {
            inside.push(gate.enter(party_of(&flood, room)).await);
        }
        let mut waits: Vec<_> = (5..10)
            .map(|room| Box::pin(gate.enter(party_of(&flood, room))))
            .collect();
        waits.iter_mut().for_each(|w| assert!(now(w).is_none()));

        // Places that fall free stay free, until only two are taken; the one who is ahead finds them.
        let mut begun = starts.begin(&small, true, Instant::now());
        inside.truncate(2);
        waits.iter_mut().for_each(|w| assert!(now(w).is_none()));
        let ahead = now(gate.enter(party_of(&small, 10))).unwrap();
        inside.truncate(0);
        let went_in = waits.iter_mut().filter_map(now).collect::<Vec<_>>();
        assert_eq!(went_in.len(), 1);

        drop(ahead);
        starts.end(&small, &mut begun, Instant::now());
        gate.admit();
        let went_in = waits.into_iter().skip(1).filter_map(now).collect::<Vec<_>>();
        assert_eq!(went_in.len(), 4);
    }
}
