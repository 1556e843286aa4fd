//! A gate lets so many through at a time and makes the rest wait their turn.
//!
//! It is the one primitive that backpressure and fairness are made of: a stage's workers are a gate for the whole host,
//! a document's waiting room before a stage is another. A semaphore would do for one document; a gate also decides between
//! those who wait, see [`Line`], and its width can change while it is in use, since every batch plan may ask for longer or
//! shorter queues.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::line::{Line, Party};

/// Lets at most `capacity` through at a time.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Mutex<State>>);

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
    gate: Arc<Mutex<State>>,
    party: Arc<Party>,
}

impl Gate {
    /// A gate as wide as `capacity`, at least 1.
    pub(crate) fn new(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            capacity: capacity.max(1),
            inside: 0,
            line: Line::new(Instant::now()),
        })))
    }

    /// Waits for `party`'s turn. Giving up the wait costs nobody anything.
    pub(crate) async fn enter(&self, party: Arc<Party>) -> Pass {
        let turn = {
            let mut state = self.0.lock();
            if state.inside < state.capacity && state.line.is_empty() {
                return self.let_in(&mut state, party);
            }
            let (turn, answer) = oneshot::channel();
            let waiting = Waiting {
                party: Arc::clone(&party),
                turn,
            };
            state.line.push(&party, waiting, Instant::now());
            answer
        };
        // The sender lives in the state, which this gate keeps alive, so the answer always comes.
        turn.await.unwrap_or_else(|_| self.enter_over(party))
    }

    /// Enters at once, even if that makes one too many; the next to leave makes up for it.
    pub(crate) fn enter_over(&self, party: Arc<Party>) -> Pass {
        self.let_in(&mut self.0.lock(), party)
    }

    fn let_in(&self, state: &mut State, party: Arc<Party>) -> Pass {
        state.inside += 1;
        state.line.enter(&party, Instant::now());
        Pass {
            gate: Arc::clone(&self.0),
            party,
        }
    }

    /// Makes the gate wider or narrower, and says how wide it was. Those inside stay.
    pub(crate) fn set_capacity(&self, capacity: usize) -> usize {
        let before = std::mem::replace(&mut self.0.lock().capacity, capacity.max(1));
        self.admit();
        before
    }

    /// How many may be inside.
    pub(crate) fn capacity(&self) -> usize {
        self.0.lock().capacity
    }

    /// Lets in whoever is next, as long as there is room.
    fn admit(&self) {
        loop {
            let (pass, turn) = {
                let mut state = self.0.lock();
                if state.inside >= state.capacity {
                    return;
                }
                let next = state.line.pop(|w| !w.turn.is_closed(), Instant::now());
                let Some(next) = next else { return };
                (self.let_in(&mut state, next.party), next.turn)
            };
            // A pass that nobody takes any more comes back and is dropped here, outside the lock it needs.
            drop(turn.send(pass));
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        {
            let mut state = self.gate.lock();
            state.inside -= 1;
            state.line.leave(&self.party, Instant::now());
        }
        Gate(Arc::clone(&self.gate)).admit();
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
        let account = Account {
            tenant: TenantId::single(),
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
}
