//! Where columns of running text begin.

use crate::page::Rect;
use crate::text::Line;

/// How far the left edges of a column's lines differ, as a share of the page's width: 2.4 pt on A4.
const EDGE: f32 = 0.004;
/// Lines of running text are at least this long, in characters.
const LONG: usize = 15;
/// A line has at least this many letters; dot leaders and bullets have none.
const LETTERS: usize = 3;
/// So many lines at least begin at an edge, and so many stand to its left.
const LINES: usize = 3;

/// The left edges of a page's columns of running text, but for the first column's.
///
/// Lines of a column begin at its left edge, and few of the page's run over it. The wide spaces of justified text are where
/// most lines have none.
#[derive(Debug, Clone, Default)]
pub struct ColumnEdges(Vec<f32>);

impl ColumnEdges {
    /// Finds the edges. The cost is the number of lines times that of different left edges, of which there are at most 250.
    pub fn of(lines: &[Line]) -> Self {
        let has_letters = |line: &&Line| {
            line.text
                .chars()
                .filter(|c| c.is_alphabetic())
                .nth(LETTERS - 1)
                .is_some()
        };
        let lines: Vec<(Rect, bool)> = lines
            .iter()
            .filter(|line| line.rect.x.is_finite() && line.rect.width.is_finite())
            .filter(has_letters)
            .map(|line| (line.rect, line.text.chars().nth(LONG - 1).is_some()))
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
            let count = rest.partition_point(|left| *left <= edge + EDGE);
            rest = rest.get(count..).unwrap_or_default();
            if count < LINES {
                continue;
            }
            let mut before = 0;
            let mut over = 0;
            for (rect, is_long) in &lines {
                before += usize::from(*is_long && rect.right() <= edge + EDGE);
                over += usize::from(rect.x < edge - 2.0 * EDGE && rect.right() > edge + 2.0 * EDGE);
            }
            if before >= LINES && over < count {
                edges.push(edge);
            }
        }
        Self(edges)
    }

    /// Whether a column begins between two boxes that stand beside each other.
    pub fn part(&self, a: &Rect, b: &Rect) -> bool {
        let (left, right) = if a.x <= b.x { (a, b) } else { (b, a) };
        let from = left.right() - EDGE;
        let edge = self.0.get(self.0.partition_point(|edge| *edge < from));
        edge.is_some_and(|edge| *edge <= right.x + EDGE)
    }
}
