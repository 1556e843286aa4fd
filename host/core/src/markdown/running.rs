//! Headers and footers that run through a document.
//!
//! They are text, but not of the page they stand on: kept, they cut every paragraph that crosses a page and repeat a title
//! a hundred times. Dropping real text would be worse, so a line goes only if it stands in the margin and its like,
//! digits aside, stands in the same margin of more than half the pages.

use std::collections::{HashMap, HashSet};

use super::MarkdownPage;
use crate::text::Line;

/// Share of the page's height, at the top and at the bottom, where headers and footers stand.
const MARGIN: f32 = 0.1;
/// With fewer pages, recurring says little.
const LEAST_PAGES: usize = 4;
/// Longer lines are not headers.
const LONGEST: usize = 200;

/// A margin (true for the upper) and a text without its digits.
type Key = (bool, String);

pub(super) struct RunningLines(HashSet<Key>);

impl RunningLines {
    pub(super) fn of(pages: &[MarkdownPage<'_>]) -> Self {
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

    /// The lines that belong to the page itself.
    pub(super) fn without<'a>(&self, lines: &'a [Line]) -> impl Iterator<Item = &'a Line> {
        lines
            .iter()
            .filter(|line| self.0.is_empty() || !key(line).is_some_and(|key| self.0.contains(&key)))
    }
}

fn key(line: &Line) -> Option<Key> {
    let top = line.rect.bottom() < MARGIN;
    let bottom = line.rect.y > 1.0 - MARGIN;
    ((top || bottom) && line.text.len() <= LONGEST).then(|| {
        let letters = line
            .text
            .chars()
            .filter(|c| !c.is_numeric() && !c.is_whitespace());
        (top, letters.flat_map(char::to_lowercase).collect())
    })
}
