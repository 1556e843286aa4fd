//! What is known of a page before it is drawn.

use weir_core::page::PageFacts;

use super::pdfium::{Bounds, Document};
use crate::answers::unreadable;
use crate::shared::Pulse;

/// Objects of a page that are looked at for images. PDFium has parsed all of them by then; a page with more of them is
/// a drawing, not a scan.
const OBJECTS: u32 = 20_000;

/// Cells to a side of the grid on which covered area is counted.
const CELLS: u8 = 64;

pub(super) fn facts(document: &Document, index: u32, pulse: &Pulse) -> PageFacts {
    let Some(page) = document.page(index) else {
        return unreadable(index);
    };
    pulse.beat();
    let (width, height) = page.size();
    let mut coverage = Coverage::default();
    if let Some(bounds) = page.bounds() {
        page.images(OBJECTS, pulse, &mut |image| coverage.add(&bounds, &image));
    }
    PageFacts {
        number: index.saturating_add(1),
        width,
        height,
        text_chars: page.text().map_or(0, |text| text.chars()),
        image_coverage: coverage.share(),
        readable: true,
    }
}

/// The area under images, on a grid of cells: a cell counts if its centre lies in an image. Scans often come as strips or
/// as a background with masks laid over it; adding up areas would count those twice.
struct Coverage {
    rows: [u64; CELLS as usize],
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            rows: [0; CELLS as usize],
        }
    }
}

impl Coverage {
    fn add(&mut self, page: &Bounds, image: &Bounds) {
        let columns = cells(page.left, page.right, image.left, image.right);
        let rows = cells(page.bottom, page.top, image.bottom, image.top);
        let filled = columns.fold(0_u64, |bits, column| bits | 1 << column);
        for (row, bits) in (0..CELLS).zip(&mut self.rows) {
            if rows.contains(&row) {
                *bits |= filled;
            }
        }
    }

    fn share(&self) -> f32 {
        let filled: u32 = self.rows.iter().map(|row| row.count_ones()).sum();
        filled as f32 / (f32::from(CELLS) * f32::from(CELLS))
    }
}

/// The cells between `from` and `to` whose centres lie between `low` and `high`.
fn cells(from: f32, to: f32, low: f32, high: f32) -> std::ops::Range<u8> {
    if !(from < to && low < high) {
        return 0..0;
    }
    let cell = |at: f32| {
        let cell = ((at - from) / (to - from) * f32::from(CELLS) - 0.5).ceil();
        // A conversion from float saturates, and takes what is no number for zero.
        (cell as u8).min(CELLS)
    };
    cell(low)..cell(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(left: f32, bottom: f32, right: f32, top: f32) -> Bounds {
        Bounds {
            left,
            bottom,
            right,
            top,
        }
    }

    #[test]
    fn overlapping_images_are_counted_once_and_clipped() {
        let page = bounds(0.0, 0.0, 200.0, 100.0);
        let mut coverage = Coverage::default();
        coverage.add(&page, &bounds(0.0, 0.0, 100.0, 100.0));
        assert_eq!(coverage.share(), 0.5);
        coverage.add(&page, &bounds(-500.0, -1e9, 100.0, 1e9));
        assert_eq!(coverage.share(), 0.5);
        coverage.add(&page, &bounds(50.0, 50.0, 200.0, 100.0));
        assert_eq!(coverage.share(), 0.75);
    }

    #[test]
    fn thin_strips_add_up() {
        let page = bounds(0.0, 0.0, 100.0, 100.0);
        let mut coverage = Coverage::default();
        for strip in 0..1000 {
            let bottom = strip as f32 * 0.1;
            coverage.add(&page, &bounds(0.0, bottom, 100.0, bottom + 0.1));
        }
        assert_eq!(coverage.share(), 1.0);
    }

    #[test]
    fn nonsense_covers_nothing() {
        let mut coverage = Coverage::default();
        coverage.add(&bounds(0.0, 0.0, 0.0, 0.0), &bounds(0.0, 0.0, 1.0, 1.0));
        let page = bounds(0.0, 0.0, 10.0, 10.0);
        coverage.add(&page, &bounds(f32::NAN, f32::NAN, f32::NAN, f32::NAN));
        coverage.add(&page, &bounds(9.0, 9.0, 1.0, 1.0));
        assert_eq!(coverage.share(), 0.0);
    }
}
