//! Who asks whom, and when: the queue and the providers under one lock, and one task that brings them together.
//!
//! Everything that may let a question go (a call that ended, a question that came) wakes the task, and so does the time at
//! which a limit a minute, a rest or a breaker lets go. Decisions are made in one place, in the order of the queue, and a
//! thousand questions that wait cost one timer.
//!
//! Providers are filled in the order of the settings, each as far as it may be; spare ones only while none of the others is
//! well, and with questions that none of the others can answer. One that is being tried comes before all: behind others that have
//! room it would never be. A question that is to be tried again waits for the same provider, unless that is left alone by then.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Duration, Instant, sleep_until};
use weir_core::TenantId;
use weir_core::event::ErrorNote;
use weir_core::language::{FailingProvider, Fault, QuestionKind};
use weir_core::ports::Account;

use crate::backoff::Backoff;
use crate::desk::{Desk, End, Room, Ticket};
use crate::fair::{FairQueue, QuestionId};
use crate::measures::QueueMeasures;
use crate::permit::Permit;
use crate::stats::RouterStats;

/// What a question that waits is told.
pub(crate) enum Turn {
    /// It may ask.
    Granted(Permit),
    /// Each provider that could answer is left alone or denies requests.
    AllDown,
}

/// What the dispatcher knows of a question.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// Providers that may answer it, in their order.
    pub(crate) may: Vec<bool>,
    /// The provider that is to be asked again.
    pub(crate) again: Option<usize>,
    /// Tokens it takes, as far as can be told.
    pub(crate) tokens: u64,
}

/// Time without an answer after which requests are reported to wait for a provider. A shorter one is an ordinary retry.
const LONG_FAILING: Duration = Duration::from_secs(5);

fn failing_provider(name: &str, time: Duration, fault: &Fault) -> FailingProvider {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = now.saturating_sub(time);
    FailingProvider {
        provider: name.to_owned(),
        since_millis: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        error: ErrorNote {
            kind: fault.kind().to_owned(),
            message: fault.to_string(),
        },
    }
}

struct Waiting {
    wish: Wish,
    turn: oneshot::Sender<Turn>,
}

struct State {
    queue: FairQueue<Waiting>,
    desks: Vec<Desk>,
    next: QuestionId,
}

/// The queue and the providers.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Something may go now.
    changed: Notify,
    /// A question left the queue.
    left: Notify,
    /// Whether questions fail while all who could answer are left alone.
    fail_when_down: bool,
    pub(crate) backoff: Backoff,
    pub(crate) measures: QueueMeasures,
}

impl Shared {
    pub(crate) fn new(desks: Vec<Desk>, fail_when_down: bool, backoff: Backoff, queue: usize) -> Self {
        Self {
            state: Mutex::new(State {
                queue: FairQueue::new(),
                desks,
                next: 0,
            }),
            changed: Notify::new(),
            left: Notify::new(),
            fail_when_down,
            backoff,
            measures: QueueMeasures::new(queue),
        }
    }

    /// Calls that a provider has answered.
    pub(crate) fn answered(&self, at: usize) -> u64 {
        let state = self.state.lock();
        state.desks.get(at).map_or(0, |desk| desk.stats.answered)
    }

    /// The dispatcher's life.
    pub(crate) async fn serve(self: Arc<Self>) {
        loop {
            let next = self.dispatch();
            match next {
                Some(next) => tokio::select! {
                    () = sleep_until(next) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// Lets go whoever may; when to look again, if time alone will let someone go.
    fn dispatch(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        let mut turns = Vec::new();
        let mut state = self.state.lock();
        let next = state.match_up(now, |waiting, member, ticket| {
            let permit = Permit::new(Arc::clone(self), member, ticket);
            turns.push((waiting.turn, Turn::Granted(permit)));
        });
        let down = state.take_hopeless(now, self.fail_when_down);
        turns.extend(down.into_iter().map(|waiting| (waiting.turn, Turn::AllDown)));
        self.show(&state);
        drop(state);
        if !turns.is_empty() {
            self.left.notify_waiters();
        }
        for (sender, turn) in turns {
            // Nobody waits for it any more: a permit that comes back is given up as it is dropped.
            let _ = sender.send(turn);
        }
        next
    }

    fn show(&self, state: &State) {
        self.measures.depth.set(state.queue.len() as f64);
    }

    /// A new question's name. One about a page is before all others of its tenant: a worker with an image in hand waits for it,
    /// and there are never more of them than workers, while the others may be a book's.
    pub(crate) fn name_question(&self, kind: QuestionKind) -> QuestionId {
        const OTHERS: QuestionId = 1 << 63;
        let mut state = self.state.lock();
        state.next += 1;
        match kind {
            QuestionKind::Page => state.next,
            _ => OTHERS | state.next,
        }
    }

    /// Questions of a tenant waiting.
    pub(crate) fn waiting_of(&self, tenant: &TenantId) -> usize {
        self.state.lock().queue.len_of(tenant)
    }

    /// Puts a question into the queue.
    pub(crate) fn enqueue(&self, account: &Account, id: QuestionId, wish: Wish) -> oneshot::Receiver<Turn> {
        let (turn, told) = oneshot::channel();
        let mut state = self.state.lock();
        let cost = wish.tokens as f64;
        state.queue.push(account, id, cost, Waiting { wish, turn });
        self.show(&state);
        drop(state);
        self.changed.notify_one();
        told
    }

    /// Nobody waits for it any more.
    pub(crate) fn withdraw(&self, account: &Account, id: QuestionId) {
        let mut state = self.state.lock();
        if state.queue.withdraw(account, id).is_some() {
            self.show(&state);
            drop(state);
            self.left.notify_waiters();
        }
    }

    /// Returns when fewer than so many questions of a tenant wait.
    pub(crate) async fn fewer_than(&self, tenant: &TenantId, most: usize) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.waiting_of(tenant) < most {
                return;
            }
            left.await;
        }
    }

    pub(crate) fn end(&self, member: usize, ticket: Ticket, end: &End<'_>) {
        let mut state = self.state.lock();
        let others = state.others(member);
        if let Some(desk) = state.desks.get_mut(member) {
            desk.end(Instant::now(), ticket, end, others, &self.backoff);
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn pause(&self, member: usize) {
        let mut state = self.state.lock();
        let others = state.others(member);
        if let Some(desk) = state.desks.get_mut(member) {
            desk.pause(Instant::now(), others);
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn resume(&self, member: usize) {
        if let Some(desk) = self.state.lock().desks.get_mut(member) {
            desk.pausing = desk.pausing.saturating_sub(1);
        }
    }

    /// Names and last faults of the providers of a wish that are left alone.
    pub(crate) fn down(&self, may: &[bool]) -> Vec<(String, Fault)> {
        let state = self.state.lock();
        let desks = state.desks.iter().zip(may).filter(|(_, may)| **may);
        desks
            .filter_map(|(desk, _)| Some((desk.stats.name.clone(), desk.last_fault.clone()?)))
            .collect()
    }

    /// Places and faults of the providers of a wish that deny requests now.
    pub(crate) fn denials(&self, may: &[bool]) -> Vec<(usize, Fault)> {
        let now = Instant::now();
        let state = self.state.lock();
        let desks = state.desks.iter().zip(may).enumerate();
        desks
            .filter(|(_, (desk, may))| **may && desk.denies(now))
            .filter_map(|(at, (desk, _))| Some((at, desk.last_fault.clone()?)))
            .collect()
    }

    /// The providers among `suited` that requests wait for: none, if one of them has not failed for `LONG_FAILING`.
    pub(crate) fn failing(&self, suited: &[bool]) -> Vec<FailingProvider> {
        let now = Instant::now();
        let state = self.state.lock();
        let mut failing = Vec::new();
        for (desk, _) in state.desks.iter().zip(suited).filter(|(_, suited)| **suited) {
            if desk.denied() {
                continue;
            }
            match desk.failing(now) {
                Some((time, fault)) if time >= LONG_FAILING => {
                    failing.push(failing_provider(&desk.stats.name, time, fault));
                }
                _ => return Vec::new(),
            }
        }
        failing
    }

    /// Calls that may be under way at those that are asked now.
    pub(crate) fn workers(&self) -> u32 {
        let state = self.state.lock();
        let in_need = state.in_need();
        let asked = state
            .desks
            .iter()
            .filter(|desk| desk.well() && (in_need || !desk.spare()));
        asked.map(Desk::limit).sum::<u32>().max(1)
    }

    pub(crate) fn stats(&self) -> RouterStats {
        let state = self.state.lock();
        RouterStats {
            waiting: state.queue.len(),
            providers: state.desks.iter().map(Desk::stats).collect(),
        }
    }
}

impl State {
    /// Whether a provider other than this one is well.
    fn others(&self, member: usize) -> bool {
        let mut others = self.desks.iter().enumerate().filter(|(i, _)| *i != member);
        others.any(|(_, desk)| desk.well())
    }

    /// Whether spare providers are asked.
    fn in_need(&self) -> bool {
        !self.desks.iter().any(|desk| !desk.spare() && desk.well())
    }

    /// Whether a question may be put to a provider.
    fn fits(wish: &Wish, member: usize, left_alone: &[bool]) -> bool {
        let may = |i: usize| wish.may.get(i).copied().unwrap_or(false);
        let alone = |i: usize| left_alone.get(i).copied().unwrap_or(true);
        may(member)
            && wish
                .again
                .is_none_or(|again| again == member || !may(again) || alone(again))
    }

    fn match_up(&mut self, now: Instant, mut go: impl FnMut(Waiting, usize, Ticket)) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut later = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        let rooms: Vec<Room> = self.desks.iter_mut().map(|desk| desk.room(now)).collect();
        let left_alone: Vec<bool> = self.desks.iter().map(|desk| desk.left_alone(now)).collect();
        let usual: Vec<bool> = self.desks.iter().map(|desk| !desk.spare()).collect();
        let in_need = self.in_need();
        let mut order: Vec<(usize, Room)> = rooms.into_iter().enumerate().collect();
        order.sort_by_key(|(member, _)| self.desks.get(*member).map(Desk::rank));
        for (member, mut room) in order {
            while let Some(desk) = self.desks.get_mut(member) {
                match room {
                    Room::Later => break,
                    Room::At(at) => {
                        later(at);
                        break;
                    }
                    Room::Now => {}
                }
                // A spare provider that is being tried may be, whoever else is well: else it would never be well again.
                let saved = desk.spare() && desk.well() && !in_need;
                let first = self.queue.first(|waiting| {
                    let mut who = waiting.wish.may.iter().zip(&usual);
                    !(saved && who.any(|(may, usual)| *may && *usual))
                        && Self::fits(&waiting.wish, member, &left_alone)
                });
                let Some((place, waiting)) = first else { break };
                let tokens = waiting.wish.tokens;
                if let Some(at) = desk.wait_for_tokens(now, tokens) {
                    later(at);
                    break;
                }
                let Some(waiting) = self.queue.take(&place) else {
                    break;
                };
                let ticket = desk.begin(now, tokens);
                go(waiting, member, ticket);
                room = desk.room(now);
            }
        }
        next
    }

    /// Takes out the questions whose providers all deny requests or, if `left_alone` says so, are left alone.
    fn take_hopeless(&mut self, now: Instant, left_alone: bool) -> Vec<Waiting> {
        let hopeless = |desk: &Desk| desk.denies(now) || (left_alone && desk.left_alone(now));
        let hopeless: Vec<bool> = self.desks.iter().map(hopeless).collect();
        if !hopeless.contains(&true) {
            return Vec::new();
        }
        self.queue.drain(|waiting| {
            let mut who = waiting.wish.may.iter().zip(&hopeless);
            !who.any(|(may, hopeless)| *may && !*hopeless)
        })
    }
}
