//! Regions of a page that are set in columns of running text.
//!
//! The baselines of two columns rarely agree: one column begins with a heading, or its paragraphs are spaced differently.
//! Then no row has lines of both columns, and the gutter shows only over many rows. So the page's width is divided into
//! narrow cells, and for each cell the runs of rows are found in which no line covers it. A run with enough running text
//! on both sides, side by side, is a region of columns.
//!
//! The cost is the number of lines times [`CELLS`].

use std::collections::BTreeMap;
use std::ops::Range;

use super::block::Block;

/// Cells across the page's width: 1.5 pt each on A4. A gutter contains a whole cell if it is twice as wide.
const CELLS: usize = 400;
/// Lines with fewer characters are no evidence of running text.
const LONG: usize = 15;
/// Each side of a gutter has at least this many long lines.
const LINES: usize = 3;

/// The lines on one side of a cell.
#[derive(Debug, Clone, Copy)]
struct Side {
    /// Long lines.
    long: usize,
    top: f32,
    bottom: f32,
}

impl Side {
    const EMPTY: Self = Self {
        long: 0,
        top: f32::MAX,
        bottom: f32::MIN,
    };

    fn add(&mut self, block: &Block) {
        self.long += usize::from(block.chars >= LONG);
        self.top = self.top.min(block.top);
        self.bottom = self.bottom.max(block.bottom);
    }

    fn height(&self) -> f32 {
        self.bottom - self.top
    }
}

/// Consecutive rows in which no line covers a cell.
#[derive(Debug, Clone, Copy)]
struct Run {
    start: usize,
    left: Side,
    right: Side,
}

impl Run {
    const fn starting_at(start: usize) -> Self {
        Self {
            start,
            left: Side::EMPTY,
            right: Side::EMPTY,
        }
    }

    /// Long lines on the side that has fewer of them; `None` if they are too few or the sides do not stand side by side.
    fn evidence(&self) -> Option<usize> {
        let (left, right) = (&self.left, &self.right);
        let fewer = left.long.min(right.long);
        if fewer < LINES {
            return None;
        }
        let overlap = left.bottom.min(right.bottom) - left.top.max(right.top);
        (overlap >= 0.5 * left.height().min(right.height())).then_some(fewer)
    }
}

/// The ranges of `rows` that are set in columns of running text, from top to bottom. Ranges do not overlap.
pub(super) fn column_regions(rows: &[Vec<Block>]) -> Vec<Range<usize>> {
    let mut open: Vec<Run> = vec![Run::starting_at(0); CELLS];
    let mut found: Vec<(usize, Range<usize>)> = Vec::new();
    let mut close = |run: &Run, end: usize| {
        if let Some(evidence) = run.evidence() {
            found.push((evidence, run.start..end));
        }
    };
    for (i, row) in rows.iter().enumerate() {
        for block in row {
            for run in open.get_mut(covered_cells(block)).unwrap_or_default() {
                close(run, i);
                *run = Run::starting_at(i + 1);
            }
        }
        for block in row {
            let covered = covered_cells(block);
            // A run that begins after this row has no line of it.
            let is_open = |run: &&mut Run| run.start <= i;
            for run in open.iter_mut().skip(covered.end).filter(is_open) {
                run.left.add(block);
            }
            for run in open.iter_mut().take(covered.start).filter(is_open) {
                run.right.add(block);
            }
        }
    }
    for run in &open {
        close(run, rows.len());
    }
    without_overlaps(found)
}

/// The cells that a block covers, in part or in whole.
fn covered_cells(block: &Block) -> Range<usize> {
    let cells = CELLS as f32;
    let start = ((block.left * cells).floor() as usize).min(CELLS - 1);
    let end = ((block.right * cells).ceil() as usize).min(CELLS);
    start..end.max(start + 1)
}

/// Of the runs found, those with the most evidence that do not overlap.
fn without_overlaps(mut found: Vec<(usize, Range<usize>)>) -> Vec<Range<usize>> {
    found.sort_by(|(a, x), (b, y)| b.cmp(a).then(y.len().cmp(&x.len())).then(x.start.cmp(&y.start)));
    found.dedup();
    let mut kept: BTreeMap<usize, usize> = BTreeMap::new();
    for (_, rows) in found {
        let before = kept.range(..rows.end).next_back();
        if before.is_none_or(|(_, end)| *end <= rows.start) {
            kept.insert(rows.start, rows.end);
        }
    }
    kept.into_iter().map(|(start, end)| start..end).collect()
}

#[cfg(test)]
#[path = "columns_tests.rs"]
mod tests;
