//! A gate lets so many through at a time and makes the rest wait their turn.
//!
//! It is the one primitive that backpressure and fairness are made of: a stage's workers are a gate for the whole host,
//! a document's waiting room before a stage is another. A semaphore would do for one document; a gate also takes turns
//! between those who wait (a document of two pages does not stand behind two hundred pages of another), and its width
//! can change while it is in use, since every batch plan may ask for longer or shorter queues.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Lets at most `capacity` through at a time.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Mutex<State>>);

struct State {
    capacity: usize,
    inside: usize,
    turns: VecDeque<Turn>,
}

/// Those of one party who wait, first come first served; parties take turns.
struct Turn {
    party: u64,
    waiting: VecDeque<oneshot::Sender<Pass>>,
}

/// The right to be inside, until it is dropped.
pub(crate) struct Pass(Arc<Mutex<State>>);

impl Gate {
    /// A gate as wide as `capacity`, at least 1.
    pub(crate) fn new(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            capacity: capacity.max(1),
            inside: 0,
            turns: VecDeque::new(),
        })))
    }

    /// Waits for `party`'s turn. Giving up the wait costs nobody anything.
    pub(crate) async fn enter(&self, party: u64) -> Pass {
        let turn = {
            let mut state = self.0.lock();
            if state.inside < state.capacity && state.turns.is_empty() {
                state.inside += 1;
                return Pass(Arc::clone(&self.0));
            }
            state.line_up(party)
        };
        // The sender lives in the state, which this gate keeps alive, so the answer always comes.
        turn.await.unwrap_or_else(|_| self.enter_over())
    }

    /// Enters at once, even if that makes one too many; the next to leave makes up for it.
    pub(crate) fn enter_over(&self) -> Pass {
        self.0.lock().inside += 1;
        Pass(Arc::clone(&self.0))
    }

    /// Makes the gate wider or narrower. Those inside stay.
    pub(crate) fn set_capacity(&self, capacity: usize) {
        self.0.lock().capacity = capacity.max(1);
        admit(&self.0);
    }

    /// How many may be inside.
    pub(crate) fn capacity(&self) -> usize {
        self.0.lock().capacity
    }
}

impl State {
    fn line_up(&mut self, party: u64) -> oneshot::Receiver<Pass> {
        let (sender, receiver) = oneshot::channel();
        match self.turns.iter_mut().find(|turn| turn.party == party) {
            Some(turn) => turn.waiting.push_back(sender),
            None => self.turns.push_back(Turn {
                party,
                waiting: VecDeque::from([sender]),
            }),
        }
        receiver
    }

    /// The next to enter, if one waits who has not given up.
    fn next(&mut self) -> Option<oneshot::Sender<Pass>> {
        while let Some(mut turn) = self.turns.pop_front() {
            while let Some(sender) = turn.waiting.pop_front() {
                if sender.is_closed() {
                    continue;
                }
                if !turn.waiting.is_empty() {
                    self.turns.push_back(turn);
                }
                return Some(sender);
            }
        }
        None
    }
}

/// Lets in whoever is next, as long as there is room.
fn admit(gate: &Arc<Mutex<State>>) {
    loop {
        let next = {
            let mut state = gate.lock();
            if state.inside >= state.capacity {
                return;
            }
            let Some(next) = state.next() else { return };
            state.inside += 1;
            next
        };
        // A pass that nobody takes any more comes back and is dropped here, outside the lock it needs.
        drop(next.send(Pass(Arc::clone(gate))));
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.lock().inside -= 1;
        admit(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        future.now_or_never()
    }

    #[tokio::test]
    async fn parties_take_turns_and_each_is_served_in_order() {
        let gate = Gate::new(1);
        let inside = gate.enter(1).await;
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for (party, name) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (2, "b2")] {
            let (gate, served) = (gate.clone(), Arc::clone(&served));
            waiting.push(tokio::spawn(async move {
                let _pass = gate.enter(party).await;
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
        let inside = gate.enter(1).await;
        let mut gives_up = Box::pin(gate.enter(2));
        assert!(now(&mut gives_up).is_none());
        let mut waits = Box::pin(gate.enter(3));
        assert!(now(&mut waits).is_none());
        drop(gives_up);
        drop(inside);
        assert!(now(waits).is_some());
        assert!(now(gate.enter(4)).is_some());
    }

    #[tokio::test]
    async fn a_pass_given_but_never_taken_is_not_lost() {
        let gate = Gate::new(1);
        let inside = gate.enter(1).await;
        let mut waits = Box::pin(gate.enter(2));
        assert!(now(&mut waits).is_none());
        drop(inside);
        drop(waits);
        assert!(now(gate.enter(3)).is_some());
    }

    #[tokio::test]
    async fn width_changes_while_in_use() {
        let gate = Gate::new(3);
        let mut inside = vec![gate.enter(1).await, gate.enter(1).await, gate.enter(1).await];
        gate.set_capacity(1);
        inside.pop();
        inside.pop();
        assert!(now(gate.enter(1)).is_none());
        let mut waits = Box::pin(gate.enter(1));
        assert!(now(&mut waits).is_none());
        gate.set_capacity(2);
        assert!(now(waits).is_some());
    }
}
