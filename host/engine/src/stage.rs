//! A stage: seats for the pages that are worked on, and before it each document's waiting room.
//!
//! Seats belong to the host (there are as many OCR sessions as there are) and are shared fairly by its tenants, rooms to a
//! document (its batch plan says how long its queues may be). A page *books* a place in the rooms it goes to next before it takes a seat, so whoever sits is
//! never held up by what comes after, and no other document waits behind a jam that is not its own. That is all the
//! backpressure there is: a full room stops the seats before it, their rooms fill in turn, and in the end no further pages
//! are taken. A page image is therefore not even drawn before there is a place for it.
//!
//! Rooms are booked along the direction of the flow only, and each is booked from one stage only, so no two pages can wait
//! for each other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weir_core::Stage;
use weir_core::decision::{QueueState, StageTime};
use weir_core::ports::Account;

use crate::gate::{Gate, Pass};
use crate::head_start::HeadStarts;
use crate::line::Party;
use crate::measures::{RoomMeasures, SeatMeasures};
use crate::spent::{SeatKind, Spent};

/// Pages a stage's time is the mean of.
const MEAN_OF: usize = 16;

/// The workers of a stage, shared by every document of the host.
#[derive(Clone)]
pub(crate) struct Seats {
    kind: SeatKind,
    gate: Gate,
    measures: Arc<SeatMeasures>,
    /// Of the rooms before them.
    rooms: Arc<RoomMeasures>,
}

impl Seats {
    /// So many seats of a stage, at least 1.
    pub(crate) fn new(stage: Stage, count: u32, head_starts: &Arc<HeadStarts>) -> Self {
        Self::measured(
            stage.name(),
            count,
            head_starts,
            Arc::new(RoomMeasures::of(stage)),
        )
    }

    /// Other seats that are reached from the same rooms, measured under a name of their own.
    pub(crate) fn beside(&self, name: &'static str, count: u32, head_starts: &Arc<HeadStarts>) -> Self {
        Self::measured(name, count, head_starts, Arc::clone(&self.rooms))
    }

    fn measured(
        name: &'static str,
        count: u32,
        head_starts: &Arc<HeadStarts>,
        rooms: Arc<RoomMeasures>,
    ) -> Self {
        let count = count.max(1);
        Self {
            kind: SeatKind { name, count },
            gate: Gate::shared(count as usize, head_starts),
            measures: Arc::new(SeatMeasures::of(name, count)),
            rooms,
        }
    }

    /// Whoever waits looks again whether it may sit down, since a head start is over.
    pub(crate) fn admit(&self) {
        self.gate.admit();
    }
}

/// A document's waiting room before a stage.
#[derive(Clone)]
pub(crate) struct Room(Arc<Inner>);

struct Inner {
    stage: Stage,
    seats: Seats,
    places: Gate,
    /// On whose account seats are taken.
    party: Arc<Party>,
    depth: AtomicU32,
    /// Seats of the kind that a page took last.
    workers: AtomicU32,
    times: Mutex<Times>,
    /// The sums of the job and of the document.
    spent: [Arc<Spent>; 2],
}

impl Drop for Inner {
    fn drop(&mut self) {
        let measures = &self.seats.rooms;
        measures.capacity.decrement(self.places.capacity() as f64);
    }
}

#[derive(Default)]
struct Times {
    last: VecDeque<Duration>,
    pages: u32,
}

impl Room {
    /// A room before `seats`, with one place until [`Self::set_capacity`].
    pub(crate) fn new(stage: Stage, seats: &Seats, account: &Account, spent: [&Arc<Spent>; 2]) -> Self {
        static ROOMS: AtomicU64 = AtomicU64::new(0);
        seats.rooms.capacity.increment(1.0);
        Self(Arc::new(Inner {
            stage,
            seats: seats.clone(),
            places: Gate::new(1),
            party: Arc::new(Party {
                account: account.clone(),
                room: ROOMS.fetch_add(1, Ordering::Relaxed),
            }),
            depth: AtomicU32::new(0),
            workers: AtomicU32::new(seats.kind.count),
            times: Mutex::default(),
            spent: spent.map(Arc::clone),
        }))
    }

    /// Changes how many may wait here. Those inside stay.
    pub(crate) fn set_capacity(&self, pages: u32) {
        let before = self.0.places.set_capacity(pages as usize);
        let now = self.0.places.capacity();
        let measures = &self.0.seats.rooms;
        measures.capacity.increment(now as f64 - before as f64);
    }

    /// On whose account pages are worked on.
    pub(crate) fn party(&self) -> &Arc<Party> {
        &self.0.party
    }

    /// A place for a page that will come.
    pub(crate) async fn book(&self) -> Place {
        Place {
            pass: self.0.places.enter(Arc::clone(&self.0.party)).await,
            room: self.clone(),
        }
    }

    /// Waits until a page could come in.
    pub(crate) async fn opening(&self) {
        drop(self.book().await);
    }

    /// A place for a page that comes back to try again. The room may hold more than its capacity for it, at most by as many
    /// as were in seats: waiting for a place with a seat in hand is how the two could lock each other out.
    pub(crate) fn back(&self) -> Waiting {
        let place = Place {
            pass: self.0.places.enter_over(Arc::clone(&self.0.party)),
            room: self.clone(),
        };
        place.arrive()
    }

    /// The queue as policies and people see it.
    pub(crate) fn queue(&self) -> QueueState {
        QueueState {
            stage: self.0.stage,
            depth: self.0.depth.load(Ordering::Relaxed),
            capacity: u32::try_from(self.0.places.capacity()).unwrap_or(u32::MAX),
            workers: self.0.workers.load(Ordering::Relaxed),
        }
    }

    /// The stage's time for this document's pages.
    pub(crate) fn time(&self) -> StageTime {
        let times = self.0.times.lock();
        let sum: Duration = times.last.iter().sum();
        StageTime {
            stage: self.0.stage,
            millis_per_page: sum.as_secs_f32() * 1000.0 / times.last.len().max(1) as f32,
            pages: times.pages,
        }
    }
}

/// A place in a waiting room, held for a page that has not come yet.
pub(crate) struct Place {
    pass: Pass,
    room: Room,
}

impl Place {
    /// The page is here.
    pub(crate) fn arrive(self) -> Waiting {
        self.room.0.depth.fetch_add(1, Ordering::Relaxed);
        self.room.0.seats.rooms.depth.increment(1.0);
        Waiting {
            pass: Some(self.pass),
            room: self.room,
        }
    }
}

/// A page in a waiting room.
pub(crate) struct Waiting {
    pass: Option<Pass>,
    room: Room,
}

impl Waiting {
    /// Waits for one of the stage's seats and leaves the room for it.
    pub(crate) async fn seat(self) -> Seated {
        let seats = self.room.0.seats.clone();
        self.seat_at(&seats).await
    }

    /// The same, but the page keeps its place until that is dropped.
    pub(crate) async fn seat_with_place(mut self) -> (Seated, Option<Pass>) {
        let place = self.pass.take();
        (self.seat().await, place)
    }

    /// The same, with seats other than the stage's usual ones.
    pub(crate) async fn seat_at(self, seats: &Seats) -> Seated {
        let seat = seats.gate.enter(Arc::clone(&self.room.0.party)).await;
        let since = Instant::now();
        seats.measures.busy.increment(1.0);
        let room = &self.room.0;
        room.workers.store(seats.kind.count, Ordering::Relaxed);
        for spent in &room.spent {
            spent.sit(room.stage, seats.kind, since);
        }
        Seated {
            room: self.room.clone(),
            since,
            seats: seats.clone(),
            _seat: seat,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.room.0.depth.fetch_sub(1, Ordering::Relaxed);
        self.room.0.seats.rooms.depth.decrement(1.0);
    }
}

/// A page in work.
pub(crate) struct Seated {
    _seat: Pass,
    room: Room,
    since: Instant,
    seats: Seats,
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.seats.measures.busy.decrement(1.0);
        for spent in &self.room.0.spent {
            spent.rise(self.room.0.stage, self.seats.kind, self.since);
        }
    }
}

impl Seated {
    /// The work of `pages` pages is done; their time counts. What fails or is dropped is not measured.
    pub(crate) fn finished(&self, pages: u32) -> Duration {
        let took = self.since.elapsed();
        let each = took / pages.max(1);
        self.seats
            .measures
            .seconds
            .record_many(each.as_secs_f64(), pages as usize);
        for spent in &self.room.0.spent {
            spent.done(self.room.0.stage, self.seats.kind, pages);
        }
        let mut times = self.room.0.times.lock();
        for _ in 0..pages.min(MEAN_OF as u32) {
            if times.last.len() == MEAN_OF {
                times.last.pop_front();
            }
            times.last.push_back(each);
        }
        times.pages = times.pages.saturating_add(pages);
        took
    }

    /// Back into the room, to try again later.
    pub(crate) fn back(self) -> Waiting {
        self.room.back()
    }
}

#[cfg(test)]
mod tests;
