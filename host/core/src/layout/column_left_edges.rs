//! Finds the left edges of columns of running text.

use crate::page::Rect;
use crate::page_text::Line;

/// Tolerance of the left edges of a column's lines, as a fraction of the page width: 2.4 pt on A4.
const EDGE_TOLERANCE: f32 = 0.004;
/// Minimum characters of a line of running text.
const LONG_LINE_CHARS: usize = 15;
/// Minimum letters of a line. Dot leaders and bullets have none.
const MIN_LETTERS: usize = 3;
/// Minimum number of lines that start at an edge. Also the minimum number of long lines that end to the left of it.
const MIN_LINES: usize = 3;

/// The left edges of a page's columns of running text, except that of the first column.
///
/// Several lines start at the left edge of a column, and fewer lines cross the edge than start at it. The text after a
/// wide space in justified text does not count as an edge, because most lines have no space at that position.
#[derive(Debug, Clone, Default)]
pub struct ColumnLeftEdges(Vec<f32>);

impl ColumnLeftEdges {
    /// Finds the edges. The running time is proportional to the number of lines times the number of distinct left
    /// edges. There are at most 250 distinct edges.
    pub fn find_in_lines(lines: &[Line]) -> Self {
        let has_letters = |line: &&Line| {
            line.text
                .chars()
                .filter(|c| c.is_alphabetic())
                .nth(MIN_LETTERS - 1)
                .is_some()
        };
        let lines: Vec<(Rect, bool)> = lines
            .iter()
            .filter(|line| line.rect.x.is_finite() && line.rect.width.is_finite())
            .filter(has_letters)
            .map(|line| (line.rect, line.text.chars().nth(LONG_LINE_CHARS - 1).is_some()))
            .collect();
        let mut lefts: Vec<f32> = lines
            .iter()
            .map(|(rect, _)| rect.x)
            .filter(|x| (0.0..1.0).contains(x))
            .collect();
        lefts.sort_by(f32::total_cmp);
        let mut edges = Vec::new();
        let mut rest = lefts.as_slice();
        while let Some(&edge) = rest.first() {
            let count = rest.partition_point(|left| *left <= edge + EDGE_TOLERANCE);
            rest = rest.get(count..).unwrap_or_default();
            if count < MIN_LINES {
                continue;
            }
            let mut before = 0;
            let mut over = 0;
            for (rect, is_long) in &lines {
                before += usize::from(*is_long && rect.right() <= edge + EDGE_TOLERANCE);
                over += usize::from(
                    rect.x < edge - 2.0 * EDGE_TOLERANCE && rect.right() > edge + 2.0 * EDGE_TOLERANCE,
                );
            }
            if before >= MIN_LINES && over < count {
                edges.push(edge);
            }
        }
        Self(edges)
    }

    /// Returns whether a column starts between two adjacent boxes.
    pub fn has_column_edge_between_boxes(&self, a: &Rect, b: &Rect) -> bool {
        let (left, right) = if a.x <= b.x { (a, b) } else { (b, a) };
        let from = left.right() - EDGE_TOLERANCE;
        let edge = self.0.get(self.0.partition_point(|edge| *edge < from));
        edge.is_some_and(|edge| *edge <= right.x + EDGE_TOLERANCE)
    }
}
