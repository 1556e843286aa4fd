//! Where requests wait for memory and for a worker.
//!
//! Drawing needs bytes of the image budget and a worker; opening, facts and text need a worker only. Bytes come first, so that
//! no worker and no place in its queue is held by a page that waits for them: see [`Budget`]. Then there are two queues
//! before the workers, which take turns, so that facts of many pages do not hold up the drawing of one; within each the
//! parties and their documents do.
//!
//! A request lives as long as the future that waits for it. One that is dropped while queued is passed over; one that is
//! dropped while a worker is at it is abandoned there, and its bytes come back with the worker's answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Gauge, Unit};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use weir_core::error::RasterError;
use weir_core::page::Pixels;

use crate::arena::{Arena, Home, Segment, step};
use crate::budget::{Budget, Request};
use crate::protocol::{DocumentKey, SegmentKey};
use crate::rotation::Rotation;
use crate::work::{Opened, Reply, Served, Ticket};

/// What a worker's keeper is told.
#[derive(Debug)]
pub(crate) enum Errand {
    /// A request; if it draws, perhaps with a segment that lay ready.
    Job(Ticket),
    /// The document is not used any more.
    Forget(DocumentKey),
}

/// A worker without work.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) slot: usize,
    /// Its process, if one runs.
    pub(crate) home: Option<Home>,
    /// Documents open in it.
    pub(crate) open: Vec<DocumentKey>,
}

#[derive(Debug)]
struct State {
    arena: Arena,
    budget: Budget<oneshot::Sender<Hold>>,
    light: Rotation<Ticket>,
    draws: Rotation<Ticket>,
    draws_next: bool,
    idle: VecDeque<Idle>,
    /// Workers with a request.
    busy: Gauge,
    /// Empty once the pool is closed.
    keepers: Vec<mpsc::UnboundedSender<Errand>>,
}

/// Queues, idle workers and the image budget.
#[derive(Debug)]
pub(crate) struct Desk {
    state: Mutex<State>,
    next_key: AtomicU64,
}

impl Desk {
    pub(crate) fn new(image_bytes: u64, keepers: Vec<mpsc::UnboundedSender<Errand>>) -> Arc<Self> {
        let idle = (0..keepers.len()).rev().map(|slot| Idle {
            slot,
            home: None,
            open: Vec::new(),
        });
        Arc::new(Self {
            state: Mutex::new(State {
                arena: Arena::new(image_bytes),
                budget: Budget::default(),
                light: Rotation::default(),
                draws: Rotation::default(),
                draws_next: false,
                idle: idle.collect(),
                busy: gauge(),
                keepers,
            }),
            next_key: AtomicU64::new(1),
        })
    }

    /// A number never given before, for a document, process or segment.
    pub(crate) fn key(&self) -> u64 {
        self.next_key.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits for bytes of the image budget.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        document: &Opened,
        bytes: u64,
    ) -> Result<Hold, RasterError> {
        let (item, answer) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.keepers.is_empty() {
                return Err(closed());
            }
            let party = document.party;
            state.budget.push(document.key, Request { party, bytes, item });
        }
        let waiting = Waiting::new(self, answer);
        self.dispatch();
        waiting.answer().await.ok_or_else(closed)
    }

    /// Queues a request and waits for its outcome.
    pub(crate) async fn request(self: &Arc<Self>, ticket: impl FnOnce(Reply) -> Ticket) -> Served {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting::new(self, answer);
        self.submit(ticket(reply));
        waiting.answer().await.unwrap_or_else(|| Err(closed()))
    }

    fn submit(self: &Arc<Self>, ticket: Ticket) {
        {
            let mut state = self.state.lock();
            if !state.keepers.is_empty() {
                let (party, document) = (ticket.document.party, ticket.document.key);
                match ticket.hold {
                    Some(_) => state.draws.push(party, document, ticket),
                    None => state.light.push(party, document, ticket),
                }
            }
        }
        self.dispatch();
    }

    /// Gives bytes to those who wait for them, and requests to idle workers.
    fn dispatch(self: &Arc<Self>) {
        self.grant();
        loop {
            let (gone, matched) = {
                let mut state = self.state.lock();
                (state.discard_gone(), state.next_match())
            };
            // Outside the lock: a request that nobody waits for gives its bytes back by way of it, and so does a job that
            // nobody takes.
            drop(gone);
            let Some((keeper, mut ticket, segment)) = matched else {
                return;
            };
            if let Some(hold) = &mut ticket.hold {
                hold.segment = segment;
            }
            drop(keeper.send(Errand::Job(ticket)));
        }
    }

    fn grant(self: &Arc<Self>) {
        loop {
            let (_gone, granted) = {
                let mut state = self.state.lock();
                let gone = state.budget.discard_gone(oneshot::Sender::is_closed);
                let free = state.arena.free();
                let granted = state.budget.next(free);
                if let Some(request) = &granted {
                    state.arena.take(request.bytes);
                }
                (gone, granted)
            };
            let Some(Request { party, bytes, item }) = granted else {
                return;
            };
            let hold = Hold {
                desk: Arc::clone(self),
                party,
                bytes,
                segment: None,
            };
            drop(item.send(hold));
        }
    }

    /// A worker is free again.
    pub(crate) fn rest(self: &Arc<Self>, idle: Idle) {
        {
            let mut state = self.state.lock();
            state.idle.push_back(idle);
            state.busy.decrement(1.0);
        }
        self.dispatch();
    }

    /// The document is closed: every worker that has it open lets go of it.
    pub(crate) fn forget(&self, document: DocumentKey) {
        for keeper in &self.state.lock().keepers {
            drop(keeper.send(Errand::Forget(document)));
        }
    }

    pub(crate) fn settle(&self, home: Home) {
        self.state.lock().arena.settle(home);
    }

    pub(crate) fn leave(&self, home: Home) {
        self.state.lock().arena.leave(home);
    }

    pub(crate) fn lost_segments(&self, home: Home) -> Vec<SegmentKey> {
        self.state.lock().arena.lost(home)
    }

    pub(crate) fn free_image_bytes(&self) -> u64 {
        self.state.lock().arena.free()
    }

    pub(crate) fn peak_image_bytes(&self) -> u64 {
        self.state.lock().arena.peak()
    }

    pub(crate) fn queued(&self) -> usize {
        let state = self.state.lock();
        state.budget.len() + state.light.len() + state.draws.len()
    }

    /// Takes no more requests and ends the keepers; those who wait get an error.
    pub(crate) fn close(&self) {
        let closed = {
            let mut state = self.state.lock();
            (
                std::mem::take(&mut state.keepers),
                std::mem::take(&mut state.budget),
                std::mem::take(&mut state.light),
                std::mem::take(&mut state.draws),
            )
        };
        drop(closed);
    }
}

fn gauge() -> Gauge {
    metrics::describe_gauge!(
        "weir_raster_workers_busy",
        Unit::Count,
        "PDF worker processes with a request"
    );
    metrics::gauge!("weir_raster_workers_busy")
}

type Match = (mpsc::UnboundedSender<Errand>, Ticket, Option<Segment>);

impl State {
    /// Takes out requests that nobody waits for any more, as far as others wait behind them.
    fn discard_gone(&mut self) -> [Vec<Ticket>; 2] {
        [&mut self.light, &mut self.draws].map(|queue| queue.discard_gone(|ticket| ticket.reply.is_closed()))
    }

    fn next_match(&mut self) -> Option<Match> {
        if self.idle.is_empty() {
            return None;
        }
        let draw = self.draws.front().is_some() && (self.draws_next || self.light.front().is_none());
        let queue = if draw { &self.draws } else { &self.light };
        let next = queue.front()?;
        let (document, bytes) = (next.document.key, next.work.image_bytes());
        let idle = self.take_idle(document, bytes)?;
        let keeper = self.keepers.get(idle.slot)?.clone();
        let ticket = if draw { self.draws.pop() } else { self.light.pop() }?;
        self.draws_next = !draw;
        self.busy.increment(1.0);
        let segment = (bytes > 0)
            .then(|| self.arena.unshelve(idle.home, bytes))
            .flatten();
        Some((keeper, ticket, segment))
    }

    fn give_back(&mut self, party: u64, bytes: u64) {
        self.arena.give_back(bytes);
        self.budget.give_back(party, bytes);
    }

    /// The idle worker that is best prepared: the document open, then a segment of the size at hand, then the one that
    /// worked last, so that a light load keeps few processes warm.
    fn take_idle(&mut self, document: DocumentKey, bytes: u64) -> Option<Idle> {
        let best = self.idle.iter().enumerate().max_by_key(|(at, idle)| {
            let open = idle.open.contains(&document);
            let segment = idle.home.is_some_and(|home| self.arena.has(home, bytes));
            (open, segment, *at)
        })?;
        let at = best.0;
        self.idle.remove(at)
    }
}

/// A request being waited for. Dropping it lets the next one pass.
struct Waiting<T> {
    answer: Option<oneshot::Receiver<T>>,
    desk: Arc<Desk>,
}

impl<T> Waiting<T> {
    fn new(desk: &Arc<Desk>, answer: oneshot::Receiver<T>) -> Self {
        Self {
            answer: Some(answer),
            desk: Arc::clone(desk),
        }
    }

    /// The answer; `None` if there will be none.
    async fn answer(mut self) -> Option<T> {
        match &mut self.answer {
            Some(answer) => answer.await.ok(),
            None => None,
        }
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.answer = None;
        self.desk.dispatch();
    }
}

/// Bytes taken from the image budget and, once there is one, the segment they are spent on. It is also the pixels of the
/// page drawn into that segment: dropping its last reference gives the bytes back and keeps the segment for the next page.
#[derive(Debug)]
pub(crate) struct Hold {
    desk: Arc<Desk>,
    party: u64,
    bytes: u64,
    pub(crate) segment: Option<Segment>,
}

impl Hold {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what lies behind the first `bytes`, of the budget and of memory. A page without colours needs a third of
    /// what was taken for it.
    pub(crate) fn keep_only(&mut self, bytes: usize) {
        let kept = step(bytes as u64);
        let Some(rest) = self.bytes.checked_sub(kept).filter(|rest| *rest > 0) else {
            return;
        };
        if let Some(segment) = &self.segment {
            segment.memory.release(kept);
        }
        self.bytes = kept;
        self.desk.state.lock().give_back(self.party, rest);
        self.desk.dispatch();
    }
}

impl Pixels for Hold {
    fn bytes(&self) -> &[u8] {
        self.segment.as_ref().map_or(&[], |segment| &segment.view)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        {
            let mut state = self.desk.state.lock();
            state.give_back(self.party, self.bytes);
            if let Some(segment) = self.segment.take() {
                state.arena.shelve(segment);
            }
        }
        self.desk.dispatch();
    }
}

/// The error of a request to a pool that is gone.
pub(crate) fn closed() -> RasterError {
    RasterError::Unavailable {
        what: "the PDF rasterizer".into(),
        remedy: "it has been shut down".into(),
    }
}
