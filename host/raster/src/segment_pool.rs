//! The memory of page images: the byte budget of the host and the shared memory segments that use it.
//!
//! A page reserves its bytes before it is drawn. The bytes are released when the last reference to its image is dropped. The
//! segment is then cached and reused, last in, first out. Its memory is already allocated and mapped on both sides, so
//! drawing into it is two to three times as fast as into a new segment. Cached segments count against the budget as well: images
//! and cached segments together never exceed it. An evicted segment returns its memory to the system at once, even while its
//! worker still maps it.
//!
//! A segment belongs to one worker process for its whole life. If workers shared segments, they would reuse them
//! more often. But a worker that is controlled by a hostile PDF could then read and write the pages of other workers.

use std::collections::{HashMap, VecDeque};
use std::io;

use memmap2::Mmap;
use metrics::{Gauge, Unit};

use crate::protocol::SegmentKey;
use crate::shared_memory::SharedMemory;

/// Identifies a worker process; never reused.
pub(crate) type WorkerId = u64;

/// Maximum number of cached segments for each worker process.
const MAX_CACHED_SEGMENTS_PER_WORKER: usize = 4;

/// Shared memory for one page image.
#[derive(Debug)]
pub(crate) struct ImageSegment {
    pub(crate) key: SegmentKey,
    pub(crate) worker_id: WorkerId,
    pub(crate) bytes: u64,
    pub(crate) memory: SharedMemory,
    pub(crate) mapping: Mmap,
}

impl ImageSegment {
    pub(crate) fn new(key: SegmentKey, worker_id: WorkerId, bytes: u64) -> io::Result<Self> {
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let memory = SharedMemory::new("weir-page", length)?;
        let mapping = memory.map_read_only()?;
        Ok(Self {
            key,
            worker_id,
            bytes,
            memory,
            mapping,
        })
    }
}

/// Returns the size of the segment for an image of `bytes`. It is larger by an eighth at most (or by less than 64 KiB), so that
/// pages of about the same size share segments.
pub(crate) fn round_up_segment_size(bytes: u64) -> u64 {
    let unit = (bytes.max(1).next_power_of_two() / 16).max(64 << 10);
    bytes.max(1).div_ceil(unit).saturating_mul(unit)
}

/// Counts the bytes of live images and holds the cached segments.
#[derive(Debug)]
pub(crate) struct SegmentPool {
    max_bytes: u64,
    image_bytes: u64,
    cached_bytes: u64,
    peak_bytes: u64,
    cached_segments: VecDeque<ImageSegment>,
    /// Running worker processes, each with the segments that it still has to unmap.
    segments_to_unmap: HashMap<WorkerId, Vec<SegmentKey>>,
    /// Reports `image_bytes`.
    image_bytes_gauge: Gauge,
}

impl SegmentPool {
    pub(crate) fn new(max_bytes: u64) -> Self {
        metrics::describe_gauge!(
            "weir_page_image_memory_bytes",
            Unit::Bytes,
            "Memory used by page images"
        );
        Self {
            max_bytes,
            image_bytes: 0,
            cached_bytes: 0,
            peak_bytes: 0,
            cached_segments: VecDeque::new(),
            segments_to_unmap: HashMap::new(),
            image_bytes_gauge: metrics::gauge!("weir_page_image_memory_bytes"),
        }
    }

    /// Returns the bytes that no image holds.
    pub(crate) fn available_bytes(&self) -> u64 {
        self.max_bytes.saturating_sub(self.image_bytes)
    }

    /// Returns the most bytes that images and cached segments ever took together.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    /// Returns whether a segment of `bytes` is cached for this worker.
    pub(crate) fn has_cached_segment(&self, worker_id: WorkerId, bytes: u64) -> bool {
        self.cached_segments
            .iter()
            .any(|s| s.worker_id == worker_id && s.bytes == bytes)
    }

    /// Reserves `bytes`, which must be free. Evicts cached segments if they would exceed the budget.
    pub(crate) fn reserve_bytes(&mut self, bytes: u64) {
        self.image_bytes = self.image_bytes.saturating_add(bytes);
        self.image_bytes_gauge.set(self.image_bytes as f64);
        while self.image_bytes + self.cached_bytes > self.max_bytes && self.evict_oldest_segment(None) {}
        self.peak_bytes = self.peak_bytes.max(self.image_bytes + self.cached_bytes);
    }

    /// Takes a cached segment of `bytes` for this worker. The bytes must be reserved already.
    pub(crate) fn take_cached_segment(
        &mut self,
        worker_id: Option<WorkerId>,
        bytes: u64,
    ) -> Option<ImageSegment> {
        let at = self
            .cached_segments
            .iter()
            .rposition(|s| Some(s.worker_id) == worker_id && s.bytes == bytes)?;
        let segment = self.cached_segments.remove(at)?;
        self.cached_bytes = self.cached_bytes.saturating_sub(bytes);
        Some(segment)
    }

    /// Releases bytes that [`SegmentPool::reserve_bytes`] reserved.
    pub(crate) fn release_bytes(&mut self, bytes: u64) {
        self.image_bytes = self.image_bytes.saturating_sub(bytes);
        self.image_bytes_gauge.set(self.image_bytes as f64);
    }

    /// Caches a segment for the next page, if its worker process still runs and the budget allows it. Release the bytes of the
    /// segment first.
    pub(crate) fn cache_segment(&mut self, segment: ImageSegment) {
        if !self.segments_to_unmap.contains_key(&segment.worker_id) {
            return;
        }
        let worker_id = segment.worker_id;
        if self
            .cached_segments
            .iter()
            .filter(|s| s.worker_id == worker_id)
            .count()
            >= MAX_CACHED_SEGMENTS_PER_WORKER
        {
            self.evict_oldest_segment(Some(worker_id));
        }
        self.cached_bytes += segment.bytes;
        self.cached_segments.push_back(segment);
        while self.image_bytes + self.cached_bytes > self.max_bytes && self.evict_oldest_segment(None) {}
    }

    fn evict_oldest_segment(&mut self, worker_id: Option<WorkerId>) -> bool {
        let Some(at) = self
            .cached_segments
            .iter()
            .position(|s| worker_id.is_none_or(|worker_id| s.worker_id == worker_id))
        else {
            return false;
        };
        if let Some(segment) = self.cached_segments.remove(at) {
            self.cached_bytes = self.cached_bytes.saturating_sub(segment.bytes);
            segment.memory.release_bytes_from_offset(0);
            if let Some(segments_to_unmap) = self.segments_to_unmap.get_mut(&segment.worker_id) {
                segments_to_unmap.push(segment.key);
            }
        }
        true
    }

    /// Registers a worker process that has started.
    pub(crate) fn start_segment_caching_of_worker(&mut self, worker_id: WorkerId) {
        self.segments_to_unmap.insert(worker_id, Vec::new());
    }

    /// Removes a worker process that has ended, with its cached segments.
    pub(crate) fn stop_segment_caching_of_worker(&mut self, worker_id: WorkerId) {
        self.segments_to_unmap.remove(&worker_id);
        let cached_bytes = &mut self.cached_bytes;
        self.cached_segments.retain(|segment| {
            let stays = segment.worker_id != worker_id;
            if !stays {
                *cached_bytes = cached_bytes.saturating_sub(segment.bytes);
            }
            stays
        });
    }

    /// Returns the segments that this worker has to unmap, each of them once.
    pub(crate) fn take_segments_to_unmap(&mut self, worker_id: WorkerId) -> Vec<SegmentKey> {
        self.segments_to_unmap
            .get_mut(&worker_id)
            .map(std::mem::take)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn segment_sizes_round_up_by_at_most_an_eighth() {
        for bytes in [1, 65_536, 65_537, 1 << 20, 6_530_000, 64 << 20, 67_108_865] {
            let size = round_up_segment_size(bytes);
            assert!(
                size >= bytes && (size - bytes) * 8 <= bytes.max(8 * 65_536),
                "{bytes}"
            );
            assert_eq!(round_up_segment_size(size), size);
        }
    }

    #[test]
    fn images_and_cached_segments_stay_within_the_budget() {
        let mut pool = SegmentPool::new(4 * MIB);
        pool.start_segment_caching_of_worker(1);
        for key in 0..3 {
            pool.cache_segment(ImageSegment::new(key, 1, MIB).unwrap());
        }
        // The cache is last in, first out; another worker gets none of these segments.
        pool.reserve_bytes(MIB);
        let last = pool.take_cached_segment(Some(1), MIB).unwrap();
        assert_eq!(last.key, 2);
        for _image in 0..3 {
            pool.reserve_bytes(MIB);
            assert!(pool.take_cached_segment(Some(2), MIB).is_none());
        }
        assert_eq!((pool.available_bytes(), pool.peak_bytes()), (0, 4 * MIB));
        pool.release_bytes(MIB);
        pool.cache_segment(last);
        assert_eq!((pool.available_bytes(), pool.peak_bytes()), (MIB, 4 * MIB));
        // Older segments were evicted, and their worker gets each key once, to unmap it.
        assert!(!pool.take_segments_to_unmap(1).is_empty());
        assert!(pool.take_segments_to_unmap(1).is_empty());
        pool.stop_segment_caching_of_worker(1);
        assert_eq!(pool.cached_bytes, 0);
    }

    #[test]
    fn live_worker_caches_few_segments_and_dead_worker_none() {
        let mut pool = SegmentPool::new(64 * MIB);
        pool.start_segment_caching_of_worker(1);
        for key in 0..10 {
            pool.cache_segment(ImageSegment::new(key, 1, MIB).unwrap());
        }
        assert_eq!(pool.cached_segments.len(), MAX_CACHED_SEGMENTS_PER_WORKER);
        assert_eq!(pool.take_segments_to_unmap(1).len(), 6);
        pool.cache_segment(ImageSegment::new(11, 2, MIB).unwrap());
        assert_eq!(pool.cached_segments.len(), MAX_CACHED_SEGMENTS_PER_WORKER);
    }
}
