//! The facts of a page that are known before it is drawn.

use weir_core::page::PageFacts;

use super::pdfium::{Bounds, Document};
use crate::response_validation::unreadable_page_facts;
use crate::shared_memory::Heartbeat;

/// Maximum number of objects on a page that are checked for images. PDFium has parsed all of them by then. A page with more objects
/// is a drawing, not a scan.
const MAX_SCANNED_OBJECTS: u32 = 20_000;

/// Cells along each side of the grid that measures the covered area.
const GRID_SIDE_CELLS: u8 = 64;

pub(super) fn read_page_facts(document: &Document, index: u32, heartbeat: &Heartbeat) -> PageFacts {
    let Some(page) = document.load_page(index) else {
        return unreadable_page_facts(index);
    };
    heartbeat.record_beat();
    let (width, height) = page.size();
    let mut coverage = CoverageGrid::default();
    if let Some(bounds) = page.bounds() {
        page.visit_image_bounds(MAX_SCANNED_OBJECTS, heartbeat, &mut |image| {
            coverage.mark_image_area(&bounds, &image)
        });
    }
    PageFacts {
        number: index.saturating_add(1),
        width,
        height,
        text_chars: page.load_text().map_or(0, |text| text.char_count()),
        image_coverage: coverage.covered_share(),
        readable: true,
    }
}

/// The area covered by images, on a grid of cells. A cell counts as covered if its center lies in an image. Scans often consist of
/// strips, or of a background with masks over it; a sum of their areas would count those parts twice.
struct CoverageGrid {
    rows: [u64; GRID_SIDE_CELLS as usize],
}

impl Default for CoverageGrid {
    fn default() -> Self {
        Self {
            rows: [0; GRID_SIDE_CELLS as usize],
        }
    }
}

impl CoverageGrid {
    fn mark_image_area(&mut self, page: &Bounds, image: &Bounds) {
        let columns = covered_cell_range(page.left, page.right, image.left, image.right);
        let rows = covered_cell_range(page.bottom, page.top, image.bottom, image.top);
        let filled = columns.fold(0_u64, |bits, column| bits | 1 << column);
        for (row, bits) in (0..GRID_SIDE_CELLS).zip(&mut self.rows) {
            if rows.contains(&row) {
                *bits |= filled;
            }
        }
    }

    fn covered_share(&self) -> f32 {
        let filled: u32 = self.rows.iter().map(|row| row.count_ones()).sum();
        filled as f32 / (f32::from(GRID_SIDE_CELLS) * f32::from(GRID_SIDE_CELLS))
    }
}

/// Returns the cells between `from` and `to` whose centers lie between `low` and `high`.
fn covered_cell_range(from: f32, to: f32, low: f32, high: f32) -> std::ops::Range<u8> {
    if !(from < to && low < high) {
        return 0..0;
    }
    let cell = |at: f32| {
        let cell = ((at - from) / (to - from) * f32::from(GRID_SIDE_CELLS) - 0.5).ceil();
        // A conversion from float saturates and turns NaN into zero.
        (cell as u8).min(GRID_SIDE_CELLS)
    };
    cell(low)..cell(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_bounds(left: f32, bottom: f32, right: f32, top: f32) -> Bounds {
        Bounds {
            left,
            bottom,
            right,
            top,
        }
    }

    #[test]
    fn overlapping_images_are_counted_once_and_clipped() {
        let page = make_bounds(0.0, 0.0, 200.0, 100.0);
        let mut coverage = CoverageGrid::default();
        coverage.mark_image_area(&page, &make_bounds(0.0, 0.0, 100.0, 100.0));
        assert_eq!(coverage.covered_share(), 0.5);
        coverage.mark_image_area(&page, &make_bounds(-500.0, -1e9, 100.0, 1e9));
        assert_eq!(coverage.covered_share(), 0.5);
        coverage.mark_image_area(&page, &make_bounds(50.0, 50.0, 200.0, 100.0));
        assert_eq!(coverage.covered_share(), 0.75);
    }

    #[test]
    fn thin_image_strips_add_up_to_full_coverage() {
        let page = make_bounds(0.0, 0.0, 100.0, 100.0);
        let mut coverage = CoverageGrid::default();
        for strip in 0..1000 {
            let bottom = strip as f32 * 0.1;
            coverage.mark_image_area(&page, &make_bounds(0.0, bottom, 100.0, bottom + 0.1));
        }
        assert_eq!(coverage.covered_share(), 1.0);
    }

    #[test]
    fn invalid_bounds_cover_nothing() {
        let mut coverage = CoverageGrid::default();
        coverage.mark_image_area(&make_bounds(0.0, 0.0, 0.0, 0.0), &make_bounds(0.0, 0.0, 1.0, 1.0));
        let page = make_bounds(0.0, 0.0, 10.0, 10.0);
        coverage.mark_image_area(&page, &make_bounds(f32::NAN, f32::NAN, f32::NAN, f32::NAN));
        coverage.mark_image_area(&page, &make_bounds(9.0, 9.0, 1.0, 1.0));
        assert_eq!(coverage.covered_share(), 0.0);
    }
}
