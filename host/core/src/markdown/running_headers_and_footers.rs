//! Detects running headers and footers of a document.
//!
//! They are not part of the text of their page: they would interrupt every paragraph that crosses a page and repeat a
//! title a hundred times. Removing real text would be worse. So a line is removed only if it is in the margin and the
//! same text without digits is in the same margin of more than half of the pages. A line beside such a line is
//! removed, too, for example the title of the chapter beside that of the book.

use std::collections::{HashMap, HashSet};

use super::page_lines_and_headings::PageLinesAndHeadings;
use crate::page::Rect;
use crate::page_text::Line;

/// Height of the header and footer margins as a fraction of the page height.
const MARGIN_HEIGHT: f32 = 0.1;
/// Minimum number of pages to detect running lines.
const MIN_PAGES: usize = 4;
/// Maximum bytes of a running line.
const MAX_LINE_BYTES: usize = 200;

/// A margin (true for the upper one) and a text without digits.
type MarginTextKey = (bool, String);

pub(crate) struct RunningHeadersAndFooters(HashSet<MarginTextKey>);

impl RunningHeadersAndFooters {
    pub(crate) fn find_in_pages(pages: &[PageLinesAndHeadings<'_>]) -> Self {
        let mut seen: HashMap<MarginTextKey, usize> = HashMap::new();
        let mut read = 0;
        for page in pages.iter().filter(|p| !p.lines.is_empty()) {
            read += 1;
            for key in page
                .lines
                .iter()
                .filter_map(margin_text_key)
                .collect::<HashSet<_>>()
            {
                *seen.entry(key).or_default() += 1;
            }
        }
        let running =
            |(key, pages): (MarginTextKey, usize)| (read >= MIN_PAGES && pages * 2 > read).then_some(key);
        Self(seen.into_iter().filter_map(running).collect())
    }

    /// Returns for each line of a page whether it is a running header or footer.
    pub(crate) fn mark_headers_and_footers(&self, lines: &[Line]) -> Vec<bool> {
        let margin: Vec<(MarginTextKey, &Line)> = lines
            .iter()
            .filter_map(|line| Some((margin_text_key(line)?, line)))
            .collect();
        let running: Vec<&Line> = margin
            .iter()
            .filter(|(key, _)| self.0.contains(key))
            .map(|(_, line)| *line)
            .collect();
        let beside = |line: &Line| {
            running
                .iter()
                .take(8)
                .any(|r| overlaps_vertically(&r.rect, &line.rect))
        };
        lines
            .iter()
            .map(|line| !running.is_empty() && is_in_header_or_footer_margin(line) && beside(line))
            .collect()
    }
}

fn overlaps_vertically(a: &Rect, b: &Rect) -> bool {
    a.bottom().min(b.bottom()) - a.y.max(b.y) > 0.5 * a.height.min(b.height)
}

fn is_in_header_or_footer_margin(line: &Line) -> bool {
    line.text.len() <= MAX_LINE_BYTES
        && (line.rect.bottom() < MARGIN_HEIGHT || line.rect.y > 1.0 - MARGIN_HEIGHT)
}

fn margin_text_key(line: &Line) -> Option<MarginTextKey> {
    is_in_header_or_footer_margin(line).then(|| {
        let letters = line
            .text
            .chars()
            .filter(|c| !c.is_numeric() && !c.is_whitespace());
        (
            line.rect.bottom() < MARGIN_HEIGHT,
            letters.flat_map(char::to_lowercase).collect(),
        )
    })
}
