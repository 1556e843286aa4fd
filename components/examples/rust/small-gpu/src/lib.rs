//! Batching for a GPU with little memory.
//!
//! Such a GPU does not slow down when a batch is too large for it, it fails. So a batch is sized by what it has left beside the model,
//! a scanned page counting double because the reader needs it whole, and below 4 GiB pages are drawn coarser. Page images wait in
//! the host's memory, of which a batch takes no more than half of what is free.

use weir_sdk::batching::{Batch, Batching, DeviceKind, Situation};
use weir_sdk::{PageFacts, QueueState, settings};

const MIB: u64 = 1 << 20;
/// Resolution that a reader still gets on with, for GPUs below 4 GiB.
const COARSE: u32 = 110;

struct SmallGpu {
    dpi: u32,
    /// MiB of the GPU that the models take before any page, and that a page of a batch takes.
    model_mib: u64,
    page_mib: u64,
}

impl Default for SmallGpu {
    fn default() -> Self {
        Self {
            dpi: settings::within("dpi", 150, 36..=600),
            model_mib: settings::within("model-mib", 1024, 0..=1 << 20),
            page_mib: settings::within("page-mib", 256, 1..=1 << 20),
        }
    }
}

impl Batching for SmallGpu {
    fn plan(&mut self, situation: Situation) -> Batch {
        let mib = situation.device.memory_bytes / MIB;
        let on_gpu = situation.device.kind == DeviceKind::Gpu;
        let dpi = if on_gpu && mib < 4096 {
            self.dpi.min(COARSE)
        } else {
            self.dpi
        };
        let mut room = if on_gpu {
            (mib.saturating_sub(self.model_mib) / self.page_mib).clamp(1, 8)
        } else {
            1
        };
        // What is drawn for a stage that is behind would only wait.
        if situation.queues.iter().any(is_behind) {
            room = (room / 2).max(1);
        }
        let pages = fitting(&situation, room, dpi);
        let last = pages >= situation.remaining_pages;
        Batch {
            pages,
            dpi,
            linger_millis: if last { 0 } else { 200 },
            queue_capacity: if mib < 8192 { 4 } else { 8 },
        }
    }
}

/// How many of the next pages fit the GPU's room and half of the free memory; at least one.
fn fitting(situation: &Situation, room: u64, dpi: u32) -> u32 {
    let (mut weight, mut bytes) = (0, 0);
    let fits = situation.next.iter().take_while(|page| {
        weight += if page.image_coverage >= 0.5 { 2 } else { 1 };
        bytes += image_bytes(page, dpi);
        weight <= room && bytes <= situation.free_image_bytes / 2
    });
    (fits.count() as u32).max(1)
}

/// Bytes of a page image: three for each pixel.
fn image_bytes(page: &PageFacts, dpi: u32) -> u64 {
    let side = |points: f32| (f64::from(points) * f64::from(dpi) / 72.0).ceil() as u64;
    side(page.width) * side(page.height) * 3
}

/// Whether a queue is at least 80 % full.
fn is_behind(queue: &QueueState) -> bool {
    queue.capacity > 0 && u64::from(queue.depth) * 5 >= u64::from(queue.capacity) * 4
}

weir_sdk::export!(SmallGpu: Batching);
