//! Headers and footers that run through a document.
//!
//! They are text, but not of the page they stand on: kept, they cut every paragraph that crosses a page and repeat a title
//! a hundred times. Dropping real text would be worse, so a line goes only if it stands in the margin and its like,
//! digits aside, stands in the same margin of more than half the pages, or if it stands there beside one that does, as
//! the chapter's title stands beside the book's.

use std::collections::{HashMap, HashSet};

use super::MarkdownPage;
use crate::page::Rect;
use crate::text::Line;

/// Share of the page's height, at the top and at the bottom, where headers and footers stand.
const MARGIN: f32 = 0.1;
/// With fewer pages, recurring says little.
const LEAST_PAGES: usize = 4;
/// Longer lines are not headers.
const LONGEST: usize = 200;

/// A margin (true for the upper) and a text without its digits.
type Key = (bool, String);

pub(crate) struct RunningLines(HashSet<Key>);

impl RunningLines {
    pub(crate) fn of(pages: &[MarkdownPage<'_>]) -> Self {
        let mut seen: HashMap<Key, usize> = HashMap::new();
        let mut read = 0;
        for page in pages.iter().filter(|p| !p.lines.is_empty()) {
            read += 1;
            for key in page.lines.iter().filter_map(key).collect::<HashSet<_>>() {
                *seen.entry(key).or_default() += 1;
            }
        }
        let running = |(key, pages): (Key, usize)| (read >= LEAST_PAGES && pages * 2 > read).then_some(key);
        Self(seen.into_iter().filter_map(running).collect())
    }

    /// Which of a page's lines are headers or footers.
    pub(crate) fn among(&self, lines: &[Line]) -> Vec<bool> {
        let margin: Vec<(Key, &Line)> = lines.iter().filter_map(|line| Some((key(line)?, line))).collect();
        let running: Vec<&Line> = margin
            .iter()
            .filter(|(key, _)| self.0.contains(key))
            .map(|(_, line)| *line)
            .collect();
        let beside = |line: &Line| running.iter().take(8).any(|r| is_level(&r.rect, &line.rect));
        lines
            .iter()
            .map(|line| !running.is_empty() && is_in_margin(line) && beside(line))
            .collect()
    }
}

fn is_level(a: &Rect, b: &Rect) -> bool {
    a.bottom().min(b.bottom()) - a.y.max(b.y) > 0.5 * a.height.min(b.height)
}

fn is_in_margin(line: &Line) -> bool {
    line.text.len() <= LONGEST && (line.rect.bottom() < MARGIN || line.rect.y > 1.0 - MARGIN)
}

fn key(line: &Line) -> Option<Key> {
    is_in_margin(line).then(|| {
        let letters = line
            .text
            .chars()
            .filter(|c| !c.is_numeric() && !c.is_whitespace());
        (
            line.rect.bottom() < MARGIN,
            letters.flat_map(char::to_lowercase).collect(),
        )
    })
}
