//! Plans the next batch from the host's measurements.
//!
//! Large batches need fewer decisions and fill the models' batches better. With small batches, pages are searchable sooner and
//! fewer page images exist at a time. So a batch is sized by time instead of pages: it has the pages that the slowest stage
//! processes in half a second, which is one scanned page or a dozen pages of plain text. The size for the device is the initial
//! value, and measurements may change it only by a limited factor.

use weir_sdk::batching::{Batch, Device, DeviceKind, Situation};
use weir_sdk::{PageFacts, QueueState, Stage, StageTime};

/// The settings of the tenant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tuning {
    /// Resolution of page images, in dpi.
    pub(crate) dpi: u32,
    /// Longest wait of a passage for its embedding batch, in milliseconds.
    pub(crate) linger_millis: u32,
    /// Pages in a batch; 0 to choose by device and measurement.
    pub(crate) batch_pages: u32,
    /// Batches that may wait in front of a stage; 0 to choose by the size of the document.
    pub(crate) queue_batches: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            dpi: 150,
            linger_millis: 500,
            batch_pages: 0,
            queue_batches: 0,
        }
    }
}

/// Time for which a batch should occupy the slowest stage, in milliseconds. It equals the longest wait of a partial embedding
/// batch, so that neither delays the other.
const TARGET_BATCH_MILLIS: f32 = 500.0;
/// Largest ratio between the measured batch size and the device's, in both directions.
const MAX_DEVICE_RATIO: f32 = 4.0;
/// Number of pages after which a stage's time is used, because the time of the first pages includes loading a model.
const MIN_MEASURED_PAGES: u32 = 4;
/// Area of an A4 page in square points, the unit for the work on a page.
const A4_POINTS: f32 = 595.0 * 842.0;

pub(crate) fn plan_batch(tuning: &Tuning, situation: &Situation) -> Batch {
    let pages = choose_page_count(tuning, situation);
    Batch {
        pages,
        dpi: tuning.dpi,
        linger_millis: choose_linger_millis(tuning, situation, pages),
        queue_capacity: match tuning.queue_batches {
            0 => queue_capacity(situation.total_pages),
            batches => batches,
        },
    }
}

/// Chooses the number of batches that may wait in front of a stage. Longer documents get longer queues, because the stages' relative
/// speeds differ over longer runs of pages.
fn queue_capacity(total_pages: u32) -> u32 {
    match total_pages {
        0..50 => 4,
        50..200 => 8,
        200..1000 => 16,
        _ => 32,
    }
}

/// Chooses the pages for a device before anything has been measured. With models of the size used here, devices of 16 GiB or more
/// have memory for larger batches, and devices below 8 GiB have little.
fn device_pages(device: &Device) -> u32 {
    const GIB: u64 = 1 << 30;
    match device.kind {
        DeviceKind::Cpu => 1,
        DeviceKind::Gpu if device.memory_bytes >= 16 * GIB => 8,
        DeviceKind::Gpu if device.memory_bytes < 8 * GIB => 2,
        DeviceKind::Gpu => 4,
    }
}

fn choose_page_count(tuning: &Tuning, situation: &Situation) -> u32 {
    let taken = situation.total_pages.saturating_sub(situation.remaining_pages);
    // At most as many pages as were taken before, so that the first page is searchable as early as possible.
    let ramp = taken.max(1);
    let wanted = match tuning.batch_pages {
        0 => count_fitting_pages(page_budget(situation), &situation.next),
        pages => pages,
    };
    wanted
        .min(ramp)
        .min(count_affordable_pages(tuning.dpi, situation))
        .min(situation.remaining_pages)
        .clamp(1, 64)
}

/// Computes the budget of a batch, in ordinary pages.
fn page_budget(situation: &Situation) -> f32 {
    let base = device_pages(&situation.device) as f32;
    let measured = slowest_stage(situation).map_or(base, |(_, millis)| {
        (TARGET_BATCH_MILLIS / millis).clamp(base / MAX_DEVICE_RATIO, base * MAX_DEVICE_RATIO)
    });
    // More pages do not help a stage with a full queue; their images would only take memory in the queue.
    if situation.queues.iter().any(is_behind) {
        measured / 2.0
    } else {
        measured
    }
}

/// Returns whether a queue is at least 80 % full.
fn is_behind(queue: &QueueState) -> bool {
    queue.capacity > 0 && u64::from(queue.depth) * 5 >= u64::from(queue.capacity) * 4
}

/// Counts the next pages that fit into a budget; at least one.
fn count_fitting_pages(budget: f32, next: &[PageFacts]) -> u32 {
    let mut left = budget;
    let fits = next.iter().take_while(|page| {
        left -= page_weight(page);
        left >= 0.0
    });
    (fits.count() as u32).max(1)
}

/// Estimates a page's cost in ordinary pages: 0.5 for plain text, 2 for a scan, more if the page is larger than A4.
fn page_weight(page: &PageFacts) -> f32 {
    let area = (page.width * page.height / A4_POINTS).clamp(1.0, 16.0);
    (0.5 + 1.5 * page.image_coverage.clamp(0.0, 1.0)) * area
}

/// Counts the pages whose images fit into half of the free memory. The other half is left to other documents and tenants.
fn count_affordable_pages(dpi: u32, situation: &Situation) -> u32 {
    let scale = f64::from(dpi) / 72.0;
    let mut free = situation.free_image_bytes as f64 / 2.0;
    let fits = situation.next.iter().take_while(|page| {
        free -= f64::from(page.width) * f64::from(page.height) * scale * scale * 3.0;
        free >= 0.0
    });
    fits.count() as u32
}

/// Finds the slowest stage and the milliseconds between two pages that leave it, with all of its workers.
fn slowest_stage(situation: &Situation) -> Option<(Stage, f32)> {
    situation
        .times
        .iter()
        .filter(|time| time.pages >= MIN_MEASURED_PAGES && time.millis_per_page > 0.0)
        .map(|time| (time.stage, millis_between_pages(situation, time)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
}

fn millis_between_pages(situation: &Situation, time: &StageTime) -> f32 {
    let queue = situation.queues.iter().find(|queue| queue.stage == time.stage);
    time.millis_per_page / queue.map_or(1, |queue| queue.workers.max(1)) as f32
}

/// Chooses how long a passage waits for others. It does not wait if no others will arrive in that time: in the first batch, in the
/// last batch, and if the next page takes longer than the wait.
fn choose_linger_millis(tuning: &Tuning, situation: &Situation, pages: u32) -> u32 {
    let first = situation.remaining_pages >= situation.total_pages;
    let last = pages >= situation.remaining_pages;
    let gap = situation
        .times
        .iter()
        .filter(|time| {
            matches!(time.stage, Stage::Rasterize | Stage::Read) && time.pages >= MIN_MEASURED_PAGES
        })
        .map(|time| millis_between_pages(situation, time))
        .fold(0.0, f32::max);
    if first || last || gap > tuning.linger_millis as f32 {
        0
    } else {
        tuning.linger_millis
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: (u32, f32) = (3000, 0.0);
    const SCAN: (u32, f32) = (0, 1.0);

    fn page((text_chars, image_coverage): (u32, f32)) -> PageFacts {
        PageFacts {
            number: 1,
            width: 595.0,
            height: 842.0,
            text_chars,
            image_coverage,
            readable: true,
        }
    }

    fn situation(total: u32, remaining: u32, pages: (u32, f32)) -> Situation {
        Situation {
            document: "d".into(),
            total_pages: total,
            remaining_pages: remaining,
            next: vec![page(pages); remaining.min(64) as usize],
            queues: Stage::ALL
                .map(|stage| QueueState {
                    stage,
                    depth: 0,
                    capacity: 32,
                    workers: 2,
                })
                .into(),
            times: vec![],
            device: Device {
                kind: DeviceKind::Gpu,
                memory_bytes: 12 << 30,
                cores: 8,
            },
            free_image_bytes: 1 << 40,
        }
    }

    fn measured(stage: Stage, millis_per_page: f32) -> Vec<StageTime> {
        vec![StageTime {
            stage,
            millis_per_page,
            pages: 16,
        }]
    }

    fn with_device(kind: DeviceKind, gib: u64) -> Batch {
        let mut s = situation(300, 200, (800, 0.34));
        s.device = Device {
            kind,
            memory_bytes: gib << 30,
            cores: 8,
        };
        plan_batch(&Tuning::default(), &s)
    }

    #[test]
    fn queues_grow_with_the_document() {
        let capacity = |pages| plan_batch(&Tuning::default(), &situation(pages, pages, TEXT)).queue_capacity;
        assert_eq!(
            [1, 49, 50, 199, 200, 999, 1000].map(capacity),
            [4, 4, 8, 8, 16, 16, 32]
        );
    }

    #[test]
    fn batch_size_of_ordinary_pages_depends_on_the_device() {
        assert_eq!(with_device(DeviceKind::Gpu, 24).pages, 7); // a third of each page is images: slightly more than an ordinary page
        assert_eq!(with_device(DeviceKind::Gpu, 12).pages, 3);
        assert_eq!(with_device(DeviceKind::Gpu, 4).pages, 1);
        assert_eq!(with_device(DeviceKind::Cpu, 64).pages, 1);
    }

    #[test]
    fn text_goes_in_larger_batches_than_scans() {
        let pages = |kind| plan_batch(&Tuning::default(), &situation(300, 200, kind)).pages;
        assert_eq!((pages(TEXT), pages(SCAN)), (8, 2));
    }

    #[test]
    fn the_batch_ends_where_heavy_pages_begin() {
        let mut s = situation(300, 200, TEXT);
        for heavy in s.next.iter_mut().skip(3) {
            *heavy = page(SCAN);
        }
        assert_eq!(plan_batch(&Tuning::default(), &s).pages, 4);
    }

    #[test]
    fn the_first_batch_is_one_page_and_the_next_ones_double() {
        let mut remaining = 100;
        let mut sizes = vec![];
        while sizes.len() < 6 {
            let batch = plan_batch(&Tuning::default(), &situation(100, remaining, TEXT));
            sizes.push(batch.pages);
            remaining -= batch.pages;
        }
        assert_eq!(sizes, [1, 1, 2, 4, 8, 8]);
    }

    #[test]
    fn slow_stages_make_small_batches_and_quick_ones_large() {
        let mut s = situation(300, 200, TEXT);
        s.times = measured(Stage::Read, 2000.0); // a page a second with two workers
        assert_eq!(plan_batch(&Tuning::default(), &s).pages, 2);
        s.times = measured(Stage::Embed, 20.0);
        assert_eq!(plan_batch(&Tuning::default(), &s).pages, 32);
        s.times = vec![StageTime {
            stage: Stage::Read,
            millis_per_page: 9000.0,
            pages: 1,
        }]; // this time includes loading a model
        assert_eq!(plan_batch(&Tuning::default(), &s).pages, 8);
    }

    #[test]
    fn a_stage_that_is_behind_halves_the_batch() {
        let mut s = situation(300, 200, TEXT);
        s.queues[3].depth = 26;
        assert_eq!(plan_batch(&Tuning::default(), &s).pages, 4);
    }

    #[test]
    fn page_images_leave_half_of_the_free_memory() {
        let mut s = situation(300, 200, TEXT);
        s.free_image_bytes = 40 << 20; // a page at 150 dpi is 6.5 MB
        assert_eq!(plan_batch(&Tuning::default(), &s).pages, 3);
        s.free_image_bytes = 0;
        assert_eq!(plan_batch(&Tuning::default(), &s).pages, 1);
    }

    #[test]
    fn linger_is_zero_if_no_passages_will_follow() {
        let linger = |s: &Situation| plan_batch(&Tuning::default(), s).linger_millis;
        assert_eq!(linger(&situation(100, 100, TEXT)), 0); // first
        assert_eq!(linger(&situation(100, 50, TEXT)), 500);
        assert_eq!(linger(&situation(100, 3, TEXT)), 0); // last
        let mut s = situation(100, 50, SCAN);
        s.times = measured(Stage::Read, 2500.0);
        assert_eq!(linger(&s), 0); // the next page takes more than a second
    }

    #[test]
    fn settings_override_all_but_memory_and_ramp_up() {
        let tuning = Tuning {
            dpi: 300,
            linger_millis: 50,
            batch_pages: 16,
            queue_batches: 2,
        };
        assert_eq!(
            plan_batch(&tuning, &situation(300, 200, SCAN)),
            Batch {
                pages: 16,
                dpi: 300,
                linger_millis: 50,
                queue_capacity: 2
            }
        );
    }

    #[test]
    fn invalid_facts_give_a_batch_within_its_ranges() {
        let mut s = situation(0, 0, TEXT);
        s.next = vec![];
        assert_eq!(plan_batch(&Tuning::default(), &s).pages, 1);
        s = situation(10, 5, (0, f32::NAN));
        s.next[0].width = f32::INFINITY;
        s.times = measured(Stage::Read, f32::NAN);
        let pages = plan_batch(&Tuning::default(), &s).pages;
        assert!((1..=64).contains(&pages), "{pages}");
    }
}
