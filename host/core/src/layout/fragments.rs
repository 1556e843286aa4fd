//! Lines that came in pieces.
//!
//! OCR parts a line at wide spaces, a text layer wherever its producer changed fonts. Left in pieces, a line would be
//! cut into columns of its own, and no passage or heading could be matched in it.

use std::collections::HashMap;

use super::block::{Block, median};
use super::edges::ColumnEdges;
use super::script::{is_right_to_left, is_unspaced};
use crate::text::Line;

/// Fragments further apart than this many characters are not one line.
const FRAGMENT_GAP: f32 = 1.5;
/// No line grows beyond this many bytes, so that joining costs no more than the page has text.
const LONGEST: usize = 1000;
/// Joins what stands on one baseline with less than [`FRAGMENT_GAP`] between, left to right.
///
/// Fragments are visited from left to right and filed in strips of the page's height, so that each looks only at the few
/// that end where it could begin.
pub(super) fn join_fragments(lines: Vec<Line>) -> Vec<Line> {
    const RECENT: usize = 8;
    let mut order: Vec<usize> = (0..lines.len()).collect();
    let blocks: Vec<Block> = lines.iter().enumerate().map(|(i, l)| Block::of(i, l)).collect();
    let left = |i: &usize| blocks.get(*i).map_or(0.0, |b| b.left);
    order.sort_by(|a, b| left(a).total_cmp(&left(b)));
    let edges = ColumnEdges::of(&lines);
    let strip = median(blocks.iter().map(Block::height)).max(1e-3);

    let mut lines: Vec<Option<Line>> = lines.into_iter().map(Some).collect();
    let mut joined: Vec<(usize, Line)> = Vec::with_capacity(lines.len());
    let mut strips: HashMap<i32, Vec<usize>> = HashMap::new();
    for i in order {
        let Some(line) = lines.get_mut(i).and_then(Option::take) else {
            continue;
        };
        let at = (Block::of(0, &line).middle() / strip) as i32;
        let before = (at - 1..=at + 1)
            .filter_map(|s| strips.get(&s))
            .flat_map(|ends| ends.iter().rev().take(RECENT))
            .copied()
            .find(|&end| {
                joined
                    .get(end)
                    .is_some_and(|(_, left)| is_continued(left, &line) && !edges.part(&left.rect, &line.rect))
            });
        match before.and_then(|end| joined.get_mut(end)) {
            Some((_, left)) => join(left, &line),
            None => {
                strips.entry(at).or_default().push(joined.len());
                joined.push((i, line));
            }
        }
    }
    joined.sort_by_key(|(i, _)| *i);
    joined.into_iter().map(|(_, line)| line).collect()
}

/// Whether `right` goes on where `left` ends.
fn is_continued(left: &Line, right: &Line) -> bool {
    if left.text.len().max(right.text.len()) > LONGEST {
        return false;
    }
    let (a, b) = (Block::of(0, left), Block::of(0, right));
    let (low, high) = (a.height().min(b.height()), a.height().max(b.height()));
    let overlap = a.bottom.min(b.bottom) - a.top.max(b.top);
    let chars = (a.chars + b.chars).max(1) as f32;
    let char_width = (a.right - a.left + b.right - b.left) / chars;
    let gap = (b.left - a.right) / char_width.max(1e-6);
    let plain = |line: &Line| !line.text.is_empty() && !line.text.chars().any(is_right_to_left);
    high <= 2.0 * low
        && overlap >= 0.6 * low
        && (-1.0..=FRAGMENT_GAP).contains(&gap)
        && char_width < 0.05
        && plain(left)
        && plain(right)
}

fn join(left: &mut Line, right: &Line) {
    let (a, b) = (Block::of(0, left), Block::of(0, right));
    let chars = (a.chars + b.chars).max(1) as f32;
    let gap = (b.left - a.right) * chars / (a.right - a.left + b.right - b.left).max(1e-6);
    // OCR parts a line at spaces and pads its boxes, so there a gap says nothing; a text layer parts words too.
    let parted = gap > 0.2 || left.confidence < 1.0 || right.confidence < 1.0;
    let unspaced = |c: Option<char>| c.is_some_and(|c| is_unspaced(c) || c.is_whitespace());
    if parted && !unspaced(left.text.chars().next_back()) && !unspaced(right.text.chars().next()) {
        left.text.push(' ');
    }
    left.text.push_str(&right.text);
    left.rect = left.rect.union(&right.rect);
    left.size = left.size.max(right.size);
    left.confidence = (left.confidence * a.chars as f32 + right.confidence * b.chars as f32) / chars;
}

#[cfg(test)]
#[path = "fragments_tests.rs"]
mod tests;
