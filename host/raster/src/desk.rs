//! Where requests wait for a worker and for memory.
//!
//! Drawing needs a worker and bytes of the image budget; opening, facts and text need a worker only. So there are two
//! queues. A page image is given back when someone downstream has finished with it, and that someone may need a page's
//! text first: were text to wait behind pages that wait for bytes, nobody would move again. The queues take turns, and
//! within each the parties and their documents do. Bytes are granted strictly in turn: a large page waits at the head until enough has come
//! back, and is not overtaken for ever by small ones.
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
use crate::protocol::{DocumentKey, SegmentKey};
use crate::rotation::Rotation;
use crate::work::{Reply, Served, Ticket};

/// What a worker's keeper is told.
#[derive(Debug)]
pub(crate) enum Errand {
    Job(Job),
    /// The document is not used any more.
    Forget(DocumentKey),
}

/// A request that has been given a worker.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) ticket: Ticket,
    /// The bytes of its image, if it draws, perhaps with a segment that lay ready.
    pub(crate) hold: Option<Hold>,
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

    /// Queues a request and waits for its outcome.
    pub(crate) async fn request(self: &Arc<Self>, ticket: impl FnOnce(Reply) -> Ticket) -> Served {
        let (reply, answer) = oneshot::channel();
        let mut waiting = Waiting {
            answer: Some(answer),
            desk: Arc::clone(self),
        };
        self.submit(ticket(reply));
        match &mut waiting.answer {
            Some(answer) => answer.await.unwrap_or_else(|_| Err(closed())),
            None => Err(closed()),
        }
    }

    fn submit(self: &Arc<Self>, ticket: Ticket) {
        {
            let mut state = self.state.lock();
            if state.keepers.is_empty() {
                return;
            }
            let (party, document) = (ticket.document.party, ticket.document.key);
            if ticket.work.image_bytes() > 0 {
                state.draws.push(party, document, ticket);
            } else {
                state.light.push(party, document, ticket);
            }
        }
        self.dispatch();
    }

    /// Gives requests to idle workers as far as both, and bytes, are there.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let matched = {
                let mut state = self.state.lock();
                state.pass_over();
                state.next_match()
            };
            let Some((keeper, ticket, segment)) = matched else {
                return;
            };
            let bytes = ticket.work.image_bytes();
            let hold = (bytes > 0).then(|| Hold {
                desk: Arc::clone(self),
                bytes,
                segment,
            });
            // Outside the lock: a job that nobody takes gives its bytes back by way of it.
            let job = Job { ticket, hold };
            drop(keeper.send(Errand::Job(job)));
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
        state.light.len() + state.draws.len()
    }

    /// Takes no more requests and ends the keepers; those who wait get an error.
    pub(crate) fn close(&self) {
        let (keepers, light, draws) = {
            let mut state = self.state.lock();
            (
                std::mem::take(&mut state.keepers),
                std::mem::take(&mut state.light),
                std::mem::take(&mut state.draws),
            )
        };
        drop((keepers, light, draws));
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
    /// Removes requests at the head of either queue that nobody waits for any more.
    fn pass_over(&mut self) {
        for queue in [&mut self.light, &mut self.draws] {
            while queue.front().is_some_and(|t| t.reply.is_closed()) {
                queue.discard();
            }
        }
    }

    fn next_match(&mut self) -> Option<Match> {
        if self.idle.is_empty() {
            return None;
        }
        let drawable = self
            .draws
            .front()
            .is_some_and(|t| t.work.image_bytes() <= self.arena.free());
        let draw = drawable && (self.draws_next || self.light.front().is_none());
        let ticket = if draw { self.draws.pop() } else { self.light.pop() }?;
        self.draws_next = !draw;
        let (document, bytes) = (ticket.document.key, ticket.work.image_bytes());
        let idle = self.take_idle(document, bytes)?;
        let keeper = self.keepers.get(idle.slot)?.clone();
        self.busy.increment(1.0);
        let segment = (bytes > 0).then(|| self.arena.take(idle.home, bytes)).flatten();
        Some((keeper, ticket, segment))
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
struct Waiting {
    answer: Option<oneshot::Receiver<Served>>,
    desk: Arc<Desk>,
}

impl Drop for Waiting {
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
        self.desk.state.lock().arena.give_back(rest);
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
            state.arena.give_back(self.bytes);
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
