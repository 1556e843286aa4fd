//! The memory of page images: one budget for the whole host, and the segments it is spent on.
//!
//! A page's bytes are taken before it is drawn and come back when the last reference to its image is dropped. A segment
//! that comes back is kept on a shelf and reused, last in, first out: its memory is already there and mapped on both
//! sides, which makes drawing two to three times as fast as into fresh memory. What lies on the shelf is memory too, so
//! images and shelf together never exceed the budget; a segment that has to make room gives its memory back to the
//! system at once, even while its worker still maps it.
//!
//! A segment belongs to one worker process all its life. Sharing segments among workers would reuse them more often, but
//! a worker that a hostile PDF has taken over could then read and write the pages its neighbours draw.

use std::collections::{HashMap, VecDeque};
use std::io;

use memmap2::Mmap;
use metrics::{Gauge, Unit};

use crate::protocol::SegmentKey;
use crate::shared::Memory;

/// Names a worker process; never used twice.
pub(crate) type Home = u64;

/// Segments kept for each worker process.
const SHELVED_PER_HOME: usize = 4;

/// Shared memory for one page image.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) key: SegmentKey,
    pub(crate) home: Home,
    pub(crate) bytes: u64,
    pub(crate) memory: Memory,
    pub(crate) view: Mmap,
}

impl Segment {
    pub(crate) fn new(key: SegmentKey, home: Home, bytes: u64) -> io::Result<Self> {
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let memory = Memory::new("weir-page", length)?;
        let view = memory.view()?;
        Ok(Self {
            key,
            home,
            bytes,
            memory,
            view,
        })
    }
}

/// The size of the segment for an image of `bytes`. Sizes come in steps of at most an eighth, so that pages of about the
/// same size share segments.
pub(crate) fn step(bytes: u64) -> u64 {
    let unit = (bytes.max(1).next_power_of_two() / 16).max(64 << 10);
    bytes.max(1).div_ceil(unit).saturating_mul(unit)
}

/// The books of the budget and the shelf.
#[derive(Debug)]
pub(crate) struct Arena {
    limit: u64,
    live: u64,
    shelved: u64,
    peak: u64,
    shelf: VecDeque<Segment>,
    /// Living worker processes, each with the segments it should unmap.
    homes: HashMap<Home, Vec<SegmentKey>>,
    /// Says what `live` says.
    told: Gauge,
}

impl Arena {
    pub(crate) fn new(limit: u64) -> Self {
        metrics::describe_gauge!("weir_page_image_bytes", Unit::Bytes, "Bytes held by page images");
        Self {
            limit,
            live: 0,
            shelved: 0,
            peak: 0,
            shelf: VecDeque::new(),
            homes: HashMap::new(),
            told: metrics::gauge!("weir_page_image_bytes"),
        }
    }

    /// Bytes not held by images.
    pub(crate) fn free(&self) -> u64 {
        self.limit.saturating_sub(self.live)
    }

    /// The most bytes that images and shelf ever took together.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    /// Whether a segment of `bytes` lies on the shelf for `home`.
    pub(crate) fn has(&self, home: Home, bytes: u64) -> bool {
        self.shelf.iter().any(|s| s.home == home && s.bytes == bytes)
    }

    /// Takes `bytes`, which must be free.
    pub(crate) fn take(&mut self, bytes: u64) {
        self.live = self.live.saturating_add(bytes);
        self.told.set(self.live as f64);
        while self.live + self.shelved > self.limit && self.discard_oldest(None) {}
        self.peak = self.peak.max(self.live + self.shelved);
    }

    /// A segment of `bytes` that have been taken, if one lies on the shelf for `home`.
    pub(crate) fn unshelve(&mut self, home: Option<Home>, bytes: u64) -> Option<Segment> {
        let at = self
            .shelf
            .iter()
            .rposition(|s| Some(s.home) == home && s.bytes == bytes)?;
        let segment = self.shelf.remove(at)?;
        self.shelved = self.shelved.saturating_sub(bytes);
        Some(segment)
    }

    /// Gives back bytes that [`Arena::take`] took.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        self.live = self.live.saturating_sub(bytes);
        self.told.set(self.live as f64);
    }

    /// Keeps a segment for the next page, if its worker process lives and there is room. To be called after its bytes
    /// were given back.
    pub(crate) fn shelve(&mut self, segment: Segment) {
        if !self.homes.contains_key(&segment.home) {
            return;
        }
        let home = segment.home;
        if self.shelf.iter().filter(|s| s.home == home).count() >= SHELVED_PER_HOME {
            self.discard_oldest(Some(home));
        }
        self.shelved += segment.bytes;
        self.shelf.push_back(segment);
        while self.live + self.shelved > self.limit && self.discard_oldest(None) {}
    }

    fn discard_oldest(&mut self, home: Option<Home>) -> bool {
        let Some(at) = self
            .shelf
            .iter()
            .position(|s| home.is_none_or(|home| s.home == home))
        else {
            return false;
        };
        if let Some(segment) = self.shelf.remove(at) {
            self.shelved = self.shelved.saturating_sub(segment.bytes);
            segment.memory.release(0);
            if let Some(lost) = self.homes.get_mut(&segment.home) {
                lost.push(segment.key);
            }
        }
        true
    }

    /// A worker process began.
    pub(crate) fn settle(&mut self, home: Home) {
        self.homes.insert(home, Vec::new());
    }

    /// A worker process ended; its segments are of no use to another.
    pub(crate) fn leave(&mut self, home: Home) {
        self.homes.remove(&home);
        let shelved = &mut self.shelved;
        self.shelf.retain(|segment| {
            let stays = segment.home != home;
            if !stays {
                *shelved = shelved.saturating_sub(segment.bytes);
            }
            stays
        });
    }

    /// Segments that `home` should unmap, each told once.
    pub(crate) fn lost(&mut self, home: Home) -> Vec<SegmentKey> {
        self.homes.get_mut(&home).map(std::mem::take).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn sizes_come_in_steps_of_at_most_an_eighth() {
        for bytes in [1, 65_536, 65_537, 1 << 20, 6_530_000, 64 << 20, 67_108_865] {
            let size = step(bytes);
            assert!(
                size >= bytes && (size - bytes) * 8 <= bytes.max(8 * 65_536),
                "{bytes}"
            );
            assert_eq!(step(size), size);
        }
    }

    #[test]
    fn images_and_shelf_together_stay_within_the_budget() {
        let mut arena = Arena::new(4 * MIB);
        arena.settle(1);
        for key in 0..3 {
            arena.shelve(Segment::new(key, 1, MIB).unwrap());
        }
        // Last in, first out; another worker gets none of them.
        arena.take(MIB);
        let last = arena.unshelve(Some(1), MIB).unwrap();
        assert_eq!(last.key, 2);
        for _image in 0..3 {
            arena.take(MIB);
            assert!(arena.unshelve(Some(2), MIB).is_none());
        }
        assert_eq!((arena.free(), arena.peak()), (0, 4 * MIB));
        arena.give_back(MIB);
        arena.shelve(last);
        assert_eq!((arena.free(), arena.peak()), (MIB, 4 * MIB));
        // The older ones made room, and their worker is told once.
        assert!(!arena.lost(1).is_empty());
        assert!(arena.lost(1).is_empty());
        arena.leave(1);
        assert_eq!(arena.shelved, 0);
    }

    #[test]
    fn a_worker_keeps_few_segments_and_a_dead_one_none() {
        let mut arena = Arena::new(64 * MIB);
        arena.settle(1);
        for key in 0..10 {
            arena.shelve(Segment::new(key, 1, MIB).unwrap());
        }
        assert_eq!(arena.shelf.len(), SHELVED_PER_HOME);
        assert_eq!(arena.lost(1).len(), 6);
        arena.shelve(Segment::new(11, 2, MIB).unwrap());
        assert_eq!(arena.shelf.len(), SHELVED_PER_HOME);
    }
}
