//! Reserved memory of a page image.

use std::fmt::Debug;
use std::sync::Arc;

use weir_core::page::PixelMemory;

use crate::segment_pool::{ImageSegment, round_up_segment_size};

/// The owner of the image memory, which takes back released reservations.
pub(crate) trait ImageMemoryOwner: Debug + Send + Sync {
    /// Takes back reserved bytes of a flow and the segment that used them, and gives them to pending requests.
    fn release_bytes_and_segment(self: Arc<Self>, flow_id: u64, bytes: u64, segment: Option<ImageSegment>);
}

/// Reserved bytes of the image budget with the segment that uses them, once there is one. It also holds the pixels of the page
/// that is drawn into the segment. Dropping the last reference releases the bytes and caches the segment for the next page.
#[derive(Debug)]
pub(crate) struct ImageReservation {
    owner: Arc<dyn ImageMemoryOwner>,
    flow_id: u64,
    bytes: u64,
    pub(crate) segment: Option<ImageSegment>,
}

impl ImageReservation {
    /// Creates the reservation of `bytes` that `owner` has already granted to a flow.
    pub(crate) fn new(owner: Arc<dyn ImageMemoryOwner>, flow_id: u64, bytes: u64) -> Self {
        Self {
            owner,
            flow_id,
            bytes,
            segment: None,
        }
    }

    pub(crate) fn reserved_byte_count(&self) -> u64 {
        self.bytes
    }

    /// Releases all but the first `bytes`, from the budget and from memory. A page without colors needs a third of its reservation.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let kept_bytes = round_up_segment_size(bytes as u64);
        let Some(rest) = self.bytes.checked_sub(kept_bytes).filter(|rest| *rest > 0) else {
            return;
        };
        if let Some(segment) = &self.segment {
            segment.memory.release_bytes_from_offset(kept_bytes);
        }
        self.bytes = kept_bytes;
        Arc::clone(&self.owner).release_bytes_and_segment(self.flow_id, rest, None);
    }
}

impl PixelMemory for ImageReservation {
    fn as_bytes(&self) -> &[u8] {
        self.segment.as_ref().map_or(&[], |segment| &segment.mapping)
    }
}

impl Drop for ImageReservation {
    fn drop(&mut self) {
        Arc::clone(&self.owner).release_bytes_and_segment(self.flow_id, self.bytes, self.segment.take());
    }
}
