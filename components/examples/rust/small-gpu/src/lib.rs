//! Batching for a GPU with little memory.
//!
//! If a batch is too large for such a GPU, the GPU does not get slower but fails. So a batch is sized by the memory that the model leaves
//! free. A scanned page counts double, because the model reads the whole image. Below 4 GiB, the resolution is lower. Page images are in
//! the host's memory, and a batch uses at most half of what is free.

use weir_sdk::batching::{Batch, Batching, DeviceKind, Situation};
use weir_sdk::{PageFacts, QueueState, settings};

const MIB: u64 = 1 << 20;
/// The lower resolution for GPUs below 4 GiB, which is still readable.
const LOW_DPI: u32 = 110;

struct SmallGpu {
    dpi: u32,
    /// MiB of GPU memory for the models.
    model_mib: u64,
    /// MiB of GPU memory for each page of a batch.
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
            self.dpi.min(LOW_DPI)
        } else {
            self.dpi
        };
        let mut capacity_pages = if on_gpu {
            (mib.saturating_sub(self.model_mib) / self.page_mib).clamp(1, 8)
        } else {
            1
        };
        // More pages do not help a stage with a full queue.
        if situation.queues.iter().any(is_nearly_full) {
            capacity_pages = (capacity_pages / 2).max(1);
        }
        let pages = count_fitting_pages(&situation, capacity_pages, dpi);
        let last = pages >= situation.remaining_pages;
        Batch {
            pages,
            dpi,
            linger_millis: if last { 0 } else { 200 },
            queue_capacity: if mib < 8192 { 4 } else { 8 },
        }
    }
}

/// Counts the next pages that fit into the GPU's memory and into half of the free memory; at least one.
fn count_fitting_pages(situation: &Situation, capacity_pages: u64, dpi: u32) -> u32 {
    let (mut weight, mut bytes) = (0, 0);
    let fits = situation.next.iter().take_while(|page| {
        weight += if page.image_coverage >= 0.5 { 2 } else { 1 };
        bytes += image_bytes(page, dpi);
        weight <= capacity_pages && bytes <= situation.free_image_bytes / 2
    });
    (fits.count() as u32).max(1)
}

/// Returns the bytes of a page image, three for each pixel.
fn image_bytes(page: &PageFacts, dpi: u32) -> u64 {
    let side = |points: f32| (f64::from(points) * f64::from(dpi) / 72.0).ceil() as u64;
    side(page.width) * side(page.height) * 3
}

/// Returns whether a queue is at least 80 % full.
fn is_nearly_full(queue: &QueueState) -> bool {
    queue.capacity > 0 && u64::from(queue.depth) * 5 >= u64::from(queue.capacity) * 4
}

weir_sdk::export!(SmallGpu: Batching);
