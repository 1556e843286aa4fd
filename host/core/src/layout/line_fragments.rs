//! Joins lines that were split into fragments.
//!
//! OCR splits a line at wide spaces, and a text layer splits it where the font changes. Fragments would be taken for
//! columns, and no passage or heading could be found in them.

use std::collections::HashMap;

use super::column_left_edges::ColumnLeftEdges;
use super::line_box::{LineBox, median_or_zero};
use super::writing_systems::{is_in_unspaced_script, is_right_to_left};
use crate::page_text::Line;

/// Maximum distance of two fragments of one line, in characters.
const MAX_FRAGMENT_GAP: f32 = 1.5;
/// Maximum bytes of a joined line, so that the cost of joining is bounded by the text of the page.
const MAX_LINE_BYTES: usize = 1000;

/// Joins fragments on one baseline that are less than [`MAX_FRAGMENT_GAP`] apart, from left to right.
///
/// Fragments are processed from left to right and stored in horizontal strips of the page. So each fragment is
/// compared only with the few that end where it could start.
pub(super) fn join_fragments(lines: Vec<Line>) -> Vec<Line> {
    const RECENT: usize = 8;
    let mut order: Vec<usize> = (0..lines.len()).collect();
    let blocks: Vec<LineBox> = lines
        .iter()
        .enumerate()
        .map(|(i, l)| LineBox::from_line(i, l))
        .collect();
    let left = |i: &usize| blocks.get(*i).map_or(0.0, |b| b.left);
    order.sort_by(|a, b| left(a).total_cmp(&left(b)));
    let edges = ColumnLeftEdges::find_in_lines(&lines);
    let strip = median_or_zero(blocks.iter().map(LineBox::height)).max(1e-3);

    let mut lines: Vec<Option<Line>> = lines.into_iter().map(Some).collect();
    let mut joined: Vec<(usize, Line)> = Vec::with_capacity(lines.len());
    let mut strips: HashMap<i32, Vec<usize>> = HashMap::new();
    for i in order {
        let Some(line) = lines.get_mut(i).and_then(Option::take) else {
            continue;
        };
        let at = (LineBox::from_line(0, &line).vertical_center() / strip) as i32;
        let before = (at - 1..=at + 1)
            .filter_map(|s| strips.get(&s))
            .flat_map(|ends| ends.iter().rev().take(RECENT))
            .copied()
            .find(|&end| {
                joined.get(end).is_some_and(|(_, left)| {
                    is_continuation(left, &line)
                        && !edges.has_column_edge_between_boxes(&left.rect, &line.rect)
                })
            });
        match before.and_then(|end| joined.get_mut(end)) {
            Some((_, left)) => append_fragment(left, &line),
            None => {
                strips.entry(at).or_default().push(joined.len());
                joined.push((i, line));
            }
        }
    }
    joined.sort_by_key(|(i, _)| *i);
    joined.into_iter().map(|(_, line)| line).collect()
}

/// Returns whether `right` continues the line of `left`.
fn is_continuation(left: &Line, right: &Line) -> bool {
    if left.text.len().max(right.text.len()) > MAX_LINE_BYTES {
        return false;
    }
    let (a, b) = (LineBox::from_line(0, left), LineBox::from_line(0, right));
    let (low, high) = (a.height().min(b.height()), a.height().max(b.height()));
    let overlap = a.bottom.min(b.bottom) - a.top.max(b.top);
    let chars = (a.char_count + b.char_count).max(1) as f32;
    let char_width = (a.right - a.left + b.right - b.left) / chars;
    let gap = (b.left - a.right) / char_width.max(1e-6);
    let plain = |line: &Line| !line.text.is_empty() && !line.text.chars().any(is_right_to_left);
    high <= 2.0 * low
        && overlap >= 0.6 * low
        && (-1.0..=MAX_FRAGMENT_GAP).contains(&gap)
        && char_width < 0.05
        && plain(left)
        && plain(right)
}

fn append_fragment(left: &mut Line, right: &Line) {
    let (a, b) = (LineBox::from_line(0, left), LineBox::from_line(0, right));
    let chars = (a.char_count + b.char_count).max(1) as f32;
    let gap = (b.left - a.right) * chars / (a.right - a.left + b.right - b.left).max(1e-6);
    // OCR splits lines at spaces and pads its boxes, so the gap says nothing. A text layer also splits words.
    let is_word_boundary = gap > 0.2 || left.confidence < 1.0 || right.confidence < 1.0;
    let unspaced = |c: Option<char>| c.is_some_and(|c| is_in_unspaced_script(c) || c.is_whitespace());
    if is_word_boundary && !unspaced(left.text.chars().next_back()) && !unspaced(right.text.chars().next()) {
        left.text.push(' ');
    }
    left.text.push_str(&right.text);
    left.rect = left.rect.union(&right.rect);
    left.size = left.size.max(right.size);
    left.confidence =
        (left.confidence * a.char_count as f32 + right.confidence * b.char_count as f32) / chars;
}

#[cfg(test)]
#[path = "line_fragments_tests.rs"]
mod tests;
