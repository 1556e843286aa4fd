//! From what the host knows to the next batch.
//!
//! A batch is the grain of everything after it: the larger it is, the less often anybody has to decide and the fuller the
//! models' batches are; the smaller it is, the sooner its pages are searchable and the fewer page images exist at a time.
//! So a batch is sized in time, not in pages: what the slowest stage gets through in half a second, which is a page of a
//! scan or a dozen of plain text. The device's table says where to begin and how far measurement may lead away from it.

use weir_sdk::batching::{Batch, Device, DeviceKind, Situation};
use weir_sdk::{PageFacts, QueueState, Stage, StageTime};

/// What the tenant may set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tuning {
    /// Resolution of page images.
    pub(crate) dpi: u32,
    /// Longest wait of a passage for its embedding batch.
    pub(crate) linger_millis: u32,
    /// Pages in a batch; 0: by device and measurement.
    pub(crate) batch_pages: u32,
    /// Batches that may wait before a stage; 0: by size of the document.
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

/// Time a batch should occupy the slowest stage: as long as a partial embedding batch waits at most, so that neither holds
/// up the other.
const BATCH_MILLIS: f32 = 500.0;
/// How far a measured batch size may leave the device's.
const LEEWAY: f32 = 4.0;
/// Pages a stage must have measured before its time counts: the first ones include loading a model.
const ENOUGH_PAGES: u32 = 4;
/// A4 at 72 dpi; a page's area in it is how much there is to draw and to read.
const A4_POINTS: f32 = 595.0 * 842.0;

/// The next batch.
pub(crate) fn plan(tuning: &Tuning, situation: &Situation) -> Batch {
    let pages = pages(tuning, situation);
    Batch {
        pages,
        dpi: tuning.dpi,
        linger_millis: linger(tuning, situation, pages),
        queue_capacity: match tuning.queue_batches {
            0 => queue_capacity(situation.total_pages),
            batches => batches,
        },
    }
}

/// Batches that may wait before a stage: a longer document gets longer queues, for there the stages' pace differs over
/// longer stretches.
fn queue_capacity(total_pages: u32) -> u32 {
    match total_pages {
        0..50 => 4,
        50..200 => 8,
        200..1000 => 16,
        _ => 32,
    }
}

/// Pages a device takes at once before anything has been measured. Models of the size used here leave room for larger
/// batches from 16 GiB on, and little below 8 GiB.
fn device_pages(device: &Device) -> u32 {
    const GIB: u64 = 1 << 30;
    match device.kind {
        DeviceKind::Cpu => 1,
        DeviceKind::Gpu if device.memory_bytes >= 16 * GIB => 8,
        DeviceKind::Gpu if device.memory_bytes < 8 * GIB => 2,
        DeviceKind::Gpu => 4,
    }
}

fn pages(tuning: &Tuning, situation: &Situation) -> u32 {
    let taken = situation.total_pages.saturating_sub(situation.remaining_pages);
    // Never more than were taken before, so that the first page is searchable as soon as a page can be.
    let ramp = taken.max(1);
    let wanted = match tuning.batch_pages {
        0 => fitting(budget(situation), &situation.next),
        pages => pages,
    };
    wanted
        .min(ramp)
        .min(affordable(tuning.dpi, situation))
        .min(situation.remaining_pages)
        .clamp(1, 64)
}

/// How much a batch may hold, in ordinary pages.
fn budget(situation: &Situation) -> f32 {
    let base = device_pages(&situation.device) as f32;
    let measured = slowest(situation).map_or(base, |(_, millis)| {
        (BATCH_MILLIS / millis).clamp(base / LEEWAY, base * LEEWAY)
    });
    // A stage that is behind gains nothing from pages drawn for it now; their images would only wait with the others.
    if situation.queues.iter().any(is_behind) {
        measured / 2.0
    } else {
        measured
    }
}

/// Whether a queue is at least 80 % full.
fn is_behind(queue: &QueueState) -> bool {
    queue.capacity > 0 && u64::from(queue.depth) * 5 >= u64::from(queue.capacity) * 4
}

/// How many of the next pages fit a budget; at least one.
fn fitting(budget: f32, next: &[PageFacts]) -> u32 {
    let mut left = budget;
    let fits = next.iter().take_while(|page| {
        left -= weight(page);
        left >= 0.0
    });
    (fits.count() as u32).max(1)
}

/// A page's cost in ordinary pages: half of one if it is plain text, two if it is a scan, more if it is larger than A4.
fn weight(page: &PageFacts) -> f32 {
    let area = (page.width * page.height / A4_POINTS).clamp(1.0, 16.0);
    (0.5 + 1.5 * page.image_coverage.clamp(0.0, 1.0)) * area
}

/// Pages whose images take at most half of the memory that is free: the other half is for the documents and tenants that
/// ask next.
fn affordable(dpi: u32, situation: &Situation) -> u32 {
    let scale = f64::from(dpi) / 72.0;
    let mut free = situation.free_image_bytes as f64 / 2.0;
    let fits = situation.next.iter().take_while(|page| {
        free -= f64::from(page.width) * f64::from(page.height) * scale * scale * 3.0;
        free >= 0.0
    });
    fits.count() as u32
}

/// The stage that bounds the document and the milliseconds between two pages that leave it, all its workers together.
fn slowest(situation: &Situation) -> Option<(Stage, f32)> {
    situation
        .times
        .iter()
        .filter(|time| time.pages >= ENOUGH_PAGES && time.millis_per_page > 0.0)
        .map(|time| (time.stage, pace(situation, time)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
}

fn pace(situation: &Situation, time: &StageTime) -> f32 {
    let queue = situation.queues.iter().find(|queue| queue.stage == time.stage);
    time.millis_per_page / queue.map_or(1, |queue| queue.workers.max(1)) as f32
}

/// How long a passage waits for others. It waits for nothing where nothing else is under way: in the first batch, in the
/// last, and where the next page takes longer to come than the wait would be.
fn linger(tuning: &Tuning, situation: &Situation, pages: u32) -> u32 {
    let first = situation.remaining_pages >= situation.total_pages;
    let last = pages >= situation.remaining_pages;
    let gap = situation
        .times
        .iter()
        .filter(|time| matches!(time.stage, Stage::Rasterize | Stage::Read) && time.pages >= ENOUGH_PAGES)
        .map(|time| pace(situation, time))
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
        plan(&Tuning::default(), &s)
    }

    #[test]
    fn queues_grow_with_the_document() {
        let capacity = |pages| plan(&Tuning::default(), &situation(pages, pages, TEXT)).queue_capacity;
        assert_eq!(
            [1, 49, 50, 199, 200, 999, 1000].map(capacity),
            [4, 4, 8, 8, 16, 16, 32]
        );
    }

    #[test]
    fn batches_of_ordinary_pages_follow_the_device() {
        assert_eq!(with_device(DeviceKind::Gpu, 24).pages, 7); // a third of each page under images: a bit over ordinary
        assert_eq!(with_device(DeviceKind::Gpu, 12).pages, 3);
        assert_eq!(with_device(DeviceKind::Gpu, 4).pages, 1);
        assert_eq!(with_device(DeviceKind::Cpu, 64).pages, 1);
    }

    #[test]
    fn text_goes_in_larger_batches_than_scans() {
        let pages = |kind| plan(&Tuning::default(), &situation(300, 200, kind)).pages;
        assert_eq!((pages(TEXT), pages(SCAN)), (8, 2));
    }

    #[test]
    fn the_batch_ends_where_heavy_pages_begin() {
        let mut s = situation(300, 200, TEXT);
        for heavy in s.next.iter_mut().skip(3) {
            *heavy = page(SCAN);
        }
        assert_eq!(plan(&Tuning::default(), &s).pages, 4);
    }

    #[test]
    fn the_first_batch_is_one_page_and_the_next_ones_double() {
        let mut remaining = 100;
        let mut sizes = vec![];
        while sizes.len() < 6 {
            let batch = plan(&Tuning::default(), &situation(100, remaining, TEXT));
            sizes.push(batch.pages);
            remaining -= batch.pages;
        }
        assert_eq!(sizes, [1, 1, 2, 4, 8, 8]);
    }

    #[test]
    fn slow_stages_make_small_batches_and_quick_ones_large() {
        let mut s = situation(300, 200, TEXT);
        s.times = measured(Stage::Read, 2000.0); // a page a second with two workers
        assert_eq!(plan(&Tuning::default(), &s).pages, 2);
        s.times = measured(Stage::Embed, 20.0);
        assert_eq!(plan(&Tuning::default(), &s).pages, 32);
        s.times = vec![StageTime {
            stage: Stage::Read,
            millis_per_page: 9000.0,
            pages: 1,
        }]; // a model being loaded
        assert_eq!(plan(&Tuning::default(), &s).pages, 8);
    }

    #[test]
    fn a_stage_that_is_behind_halves_the_batch() {
        let mut s = situation(300, 200, TEXT);
        s.queues[3].depth = 26;
        assert_eq!(plan(&Tuning::default(), &s).pages, 4);
    }

    #[test]
    fn page_images_leave_half_of_the_free_memory() {
        let mut s = situation(300, 200, TEXT);
        s.free_image_bytes = 40 << 20; // a page at 150 dpi is 6.5 MB
        assert_eq!(plan(&Tuning::default(), &s).pages, 3);
        s.free_image_bytes = 0;
        assert_eq!(plan(&Tuning::default(), &s).pages, 1);
    }

    #[test]
    fn nobody_waits_where_nothing_comes() {
        let linger = |s: &Situation| plan(&Tuning::default(), s).linger_millis;
        assert_eq!(linger(&situation(100, 100, TEXT)), 0); // first
        assert_eq!(linger(&situation(100, 50, TEXT)), 500);
        assert_eq!(linger(&situation(100, 3, TEXT)), 0); // last
        let mut s = situation(100, 50, SCAN);
        s.times = measured(Stage::Read, 2500.0);
        assert_eq!(linger(&s), 0); // the next page is more than a second away
    }

    #[test]
    fn what_the_tenant_sets_stands_over_all_but_memory_and_the_ramp() {
        let tuning = Tuning {
            dpi: 300,
            linger_millis: 50,
            batch_pages: 16,
            queue_batches: 2,
        };
        assert_eq!(
            plan(&tuning, &situation(300, 200, SCAN)),
            Batch {
                pages: 16,
                dpi: 300,
                linger_millis: 50,
                queue_capacity: 2
            }
        );
    }

    #[test]
    fn odd_facts_make_a_batch_within_its_ranges() {
        let mut s = situation(0, 0, TEXT);
        s.next = vec![];
        assert_eq!(plan(&Tuning::default(), &s).pages, 1);
        s = situation(10, 5, (0, f32::NAN));
        s.next[0].width = f32::INFINITY;
        s.times = measured(Stage::Read, f32::NAN);
        let pages = plan(&Tuning::default(), &s).pages;
        assert!((1..=64).contains(&pages), "{pages}");
    }
}
