//! Finds regions of a page with columns of running text.
//!
//! The baselines of two columns rarely match: one column starts with a heading, or its paragraphs have other gaps.
//! Then no row has lines of both columns, and the gutter is visible only across many rows. So the width of the page
//! is divided into narrow cells. For each cell, the search finds runs of rows in which no line covers the cell. A run
//! with enough running text on both sides, at the same height, is a region of columns.
//!
//! The cost is the number of lines times [`GRID_CELLS`].

use std::collections::BTreeMap;
use std::ops::Range;

use super::line_box::LineBox;

/// Cells across the width of the page: 1.5 pt each on A4. A gutter contains a whole cell if it is twice as wide.
const GRID_CELLS: usize = 400;
/// Minimum characters of a line that counts as running text.
const LONG_LINE_CHARS: usize = 15;
/// Minimum number of long lines on each side of a gutter.
const MIN_LONG_LINES: usize = 3;

/// The lines on one side of a cell.
#[derive(Debug, Clone, Copy)]
struct GutterSideStats {
    /// Number of long lines.
    long_lines: usize,
    top: f32,
    bottom: f32,
}

impl GutterSideStats {
    const EMPTY: Self = Self {
        long_lines: 0,
        top: f32::MAX,
        bottom: f32::MIN,
    };

    fn add_line(&mut self, block: &LineBox) {
        self.long_lines += usize::from(block.char_count >= LONG_LINE_CHARS);
        self.top = self.top.min(block.top);
        self.bottom = self.bottom.max(block.bottom);
    }

    fn gutter_side_height(&self) -> f32 {
        self.bottom - self.top
    }
}

/// Consecutive rows in which no line covers a cell.
#[derive(Debug, Clone, Copy)]
struct GutterRowRun {
    start_row: usize,
    left: GutterSideStats,
    right: GutterSideStats,
}

impl GutterRowRun {
    const fn starting_at(start: usize) -> Self {
        Self {
            start_row: start,
            left: GutterSideStats::EMPTY,
            right: GutterSideStats::EMPTY,
        }
    }

    /// Returns the number of long lines on the side with fewer; `None` if there are too few, or if the sides are not
    /// at the same height.
    fn count_evidence_lines(&self) -> Option<usize> {
        let (left, right) = (&self.left, &self.right);
        let fewer = left.long_lines.min(right.long_lines);
        if fewer < MIN_LONG_LINES {
            return None;
        }
        let overlap = left.bottom.min(right.bottom) - left.top.max(right.top);
        (overlap >= 0.5 * left.gutter_side_height().min(right.gutter_side_height())).then_some(fewer)
    }
}

/// Returns the ranges of `rows` with columns of running text, from top to bottom. The ranges do not overlap.
pub(super) fn find_column_region_rows(rows: &[Vec<LineBox>]) -> Vec<Range<usize>> {
    let mut open: Vec<GutterRowRun> = vec![GutterRowRun::starting_at(0); GRID_CELLS];
    let mut found: Vec<(usize, Range<usize>)> = Vec::new();
    let mut close = |run: &GutterRowRun, end: usize| {
        if let Some(evidence) = run.count_evidence_lines() {
            found.push((evidence, run.start_row..end));
        }
    };
    for (i, row) in rows.iter().enumerate() {
        for block in row {
            for run in open.get_mut(covered_cells(block)).unwrap_or_default() {
                close(run, i);
                *run = GutterRowRun::starting_at(i + 1);
            }
        }
        for block in row {
            let covered = covered_cells(block);
            // A run that starts after this row has no line of it.
            let is_open = |run: &&mut GutterRowRun| run.start_row <= i;
            for run in open.iter_mut().skip(covered.end).filter(is_open) {
                run.left.add_line(block);
            }
            for run in open.iter_mut().take(covered.start).filter(is_open) {
                run.right.add_line(block);
            }
        }
    }
    for run in &open {
        close(run, rows.len());
    }
    select_non_overlapping(found)
}

/// Returns the cells that a box covers, partly or fully.
fn covered_cells(block: &LineBox) -> Range<usize> {
    let cells = GRID_CELLS as f32;
    let start = ((block.left * cells).floor() as usize).min(GRID_CELLS - 1);
    let end = ((block.right * cells).ceil() as usize).min(GRID_CELLS);
    start..end.max(start + 1)
}

/// Returns those runs with the most evidence that do not overlap.
fn select_non_overlapping(mut found: Vec<(usize, Range<usize>)>) -> Vec<Range<usize>> {
    found.sort_by(|(a, x), (b, y)| b.cmp(a).then(y.len().cmp(&x.len())).then(x.start.cmp(&y.start)));
    found.dedup();
    let mut selected: BTreeMap<usize, usize> = BTreeMap::new();
    for (_, rows) in found {
        let before = selected.range(..rows.end).next_back();
        if before.is_none_or(|(_, end)| *end <= rows.start) {
            selected.insert(rows.start, rows.end);
        }
    }
    selected.into_iter().map(|(start, end)| start..end).collect()
}

#[cfg(test)]
#[path = "column_regions_tests.rs"]
mod tests;
