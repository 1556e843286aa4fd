//! Reads the text layer of a page as lines.
//!
//! PDFium returns characters one by one, in the order of the file, and inserts spaces and line ends that it infers. A line here is a
//! run of characters on one baseline and in one direction. A gap wider than [`COLUMN_GAP`] ends the line; where a column starts, a
//! gap wider than [`WIDE_SPACE_GAP`] does. The halves of a two-column page and the cells of a table thus become separate lines, which
//! the detection of the reading order needs. The lines keep the order of the file.
//!
//! Distances are measured along and across the writing direction, so text in a margin or on a rotated page needs no special case.
//! Gaps are measured between the boxes of characters and not from left to right, so Arabic and Hebrew need none either.

use weir_core::layout::ColumnLeftEdges;
use weir_core::page::Rect;
use weir_core::page_text::Line;

use super::pdfium::{Bounds, Document, Glyph, Page};
use crate::protocol::WorkerResponse;
use crate::response_validation::{MAX_PAGE_LINES, MAX_PAGE_TEXT_BYTES};
use crate::shared_memory::Heartbeat;

/// A gap that ends a line, in multiples of the font size. Words stand 0.2 to 0.4 apart, in justified text up to 1; columns stand at
/// least 1.5 apart.
const COLUMN_GAP: f32 = 1.4;

/// A gap that is either a space or a narrow gutter, in multiples of the font size. Only the whole page shows which one it is.
const WIDE_SPACE_GAP: f32 = 0.8;

/// A gap that counts as a space although the file has none, in multiples of the font size.
const WORD_GAP: f32 = 0.17;

/// Maximum distance of a character from the baseline of its line, in multiples of the font size. A superscript lies within it; the
/// next line does not.
const MAX_BASELINE_OFFSET: f32 = 0.5;

/// Maximum number of characters that are read on a page.
const MAX_PAGE_CHARS: u32 = 2_000_000;

pub(super) fn read_page_text(document: &Document, index: u32, heartbeat: &Heartbeat) -> WorkerResponse {
    let Some(page) = document.load_page(index) else {
        return WorkerResponse::PageUnreadable("it cannot be parsed".into());
    };
    heartbeat.record_beat();
    let (Some(frame), Some(text)) = (
        PointsToPageFractions::from_page_bounds_and_rotation(&page),
        page.load_text(),
    ) else {
        return WorkerResponse::PageText(Vec::new());
    };
    let mut lines = LineAssembler::new(frame);
    for index in 0..text.char_count().min(MAX_PAGE_CHARS) {
        if index % 1024 == 0 {
            heartbeat.record_beat();
            if heartbeat.is_canceled() {
                return WorkerResponse::Canceled;
            }
        }
        if let Some(glyph) = text.read_glyph(index) {
            lines.add_glyph(&glyph);
        }
        if lines.has_reached_text_limit() {
            break;
        }
    }
    WorkerResponse::PageText(lines.finish_page())
}

/// The displayed page: its bounds and its rotation.
#[derive(Debug, Clone, Copy)]
struct PointsToPageFractions {
    page_bounds: Bounds,
    quarter_turns: u8,
}

impl PointsToPageFractions {
    fn from_page_bounds_and_rotation(page: &Page<'_>) -> Option<Self> {
        let bounds = page.bounds()?;
        (bounds.right > bounds.left && bounds.top > bounds.bottom).then_some(Self {
            page_bounds: bounds,
            quarter_turns: page.quarter_turns(),
        })
    }

    /// Converts a point to shares of the page's width and height, from the upper left corner of the displayed page.
    fn point_to_page_fractions(self, x: f32, y: f32) -> (f32, f32) {
        let p = &self.page_bounds;
        let across = (x - p.left) / (p.right - p.left);
        let up = (y - p.bottom) / (p.top - p.bottom);
        match self.quarter_turns {
            0 => (across, 1.0 - up),
            1 => (up, across),
            2 => (1.0 - across, up),
            _ => (1.0 - up, 1.0 - across),
        }
    }

    /// Converts a box to shares of the page, clipped to the page; `None` if it lies outside.
    fn to_page_rect(self, b: &Bounds) -> Option<Rect> {
        let (x0, y0) = self.point_to_page_fractions(b.left, b.bottom);
        let (x1, y1) = self.point_to_page_fractions(b.right, b.top);
        let (left, right) = (x0.min(x1).clamp(0.0, 1.0), x0.max(x1).clamp(0.0, 1.0));
        let (upper, lower) = (y0.min(y1).clamp(0.0, 1.0), y0.max(y1).clamp(0.0, 1.0));
        (right > left && lower > upper).then_some(Rect {
            x: left,
            y: upper,
            width: right - left,
            height: lower - upper,
        })
    }
}

/// A line under construction.
#[derive(Debug)]
struct LineBuilder {
    text: String,
    bounds: Bounds,
    /// Unit vector in the writing direction.
    direction: (f32, f32),
    origin: (f32, f32),
    /// Extent of the last character in the writing direction.
    last_extent: (f32, f32),
    /// Largest font size, in points.
    size: f32,
    has_pending_space: bool,
    ends_with_soft_hyphen: bool,
    /// Whether only a wide space separates it from the line before. Such a line is joined to the line before unless a column
    /// starts between them.
    follows_wide_space: bool,
}

struct LineAssembler {
    frame: PointsToPageFractions,
    lines: Vec<Line>,
    /// Indexes of the lines that only a wide space separates from the line before, in ascending order.
    lines_after_wide_space: Vec<usize>,
    text_bytes: usize,
    current: Option<LineBuilder>,
}

impl LineAssembler {
    fn new(frame: PointsToPageFractions) -> Self {
        Self {
            frame,
            lines: Vec::new(),
            lines_after_wide_space: Vec::new(),
            text_bytes: 0,
            current: None,
        }
    }

    fn has_reached_text_limit(&self) -> bool {
        self.lines.len() >= MAX_PAGE_LINES || self.text_bytes >= MAX_PAGE_TEXT_BYTES
    }

    fn add_glyph(&mut self, glyph: &Glyph) {
        // PDFium marks a hyphen at the end of a line with codes that are no characters.
        let hyphen = glyph.is_hyphen || matches!(glyph.code_point, 0x02 | 0xad | 0xfffe);
        let char = if hyphen {
            '-'
        } else {
            char::from_u32(glyph.code_point).unwrap_or('\0')
        };
        if char.is_whitespace() {
            if let Some(line) = &mut self.current {
                line.has_pending_space = true;
            }
            return;
        }
        if glyph.is_generated || char.is_control() || matches!(char, '\u{feff}' | '\u{ffff}') {
            return;
        }
        let Some(letter) = GlyphGeometry::from_glyph(glyph) else {
            return;
        };
        let gap = self
            .current
            .as_ref()
            .and_then(|line| letter.relative_gap_if_on_baseline(line));
        let is_below_column_gap = gap.is_some_and(|gap| gap < COLUMN_GAP);
        if gap.is_none_or(|gap| gap >= WIDE_SPACE_GAP) {
            let before = self.lines.len();
            self.finish_line();
            let was_line_added = self.lines.len() > before;
            self.current = Some(letter.start_line(char, glyph, is_below_column_gap && was_line_added));
        } else if let Some(line) = &mut self.current {
            letter.append_to_line(line, char, glyph);
        }
        if let Some(line) = &mut self.current {
            // A soft hyphen is visible only at the end of a line.
            line.ends_with_soft_hyphen = hyphen && glyph.code_point == 0xad;
            if line.text.len() > MAX_PAGE_TEXT_BYTES {
                self.finish_line();
            }
        }
    }

    fn finish_line(&mut self) {
        let Some(line) = self.current.take() else {
            return;
        };
        let Some(rect) = self.frame.to_page_rect(&line.bounds) else {
            return;
        };
        if self.text_bytes + line.text.len() > MAX_PAGE_TEXT_BYTES {
            self.text_bytes = MAX_PAGE_TEXT_BYTES;
            return;
        }
        self.text_bytes += line.text.len();
        if line.follows_wide_space {
            self.lines_after_wide_space.push(self.lines.len());
        }
        self.lines.push(Line {
            text: line.text,
            rect,
            size: line.size,
            confidence: 1.0,
        });
    }

    fn finish_page(mut self) -> Vec<Line> {
        self.finish_line();
        let edges = ColumnLeftEdges::find_in_lines(&self.lines);
        let mut continued = self.lines_after_wide_space.into_iter().peekable();
        let mut lines: Vec<Line> = Vec::with_capacity(self.lines.len());
        let mut last: Option<Rect> = None;
        for (i, line) in self.lines.into_iter().enumerate() {
            let follows_wide_space = continued.next_if_eq(&i).is_some();
            let previous_rect = last.replace(line.rect);
            match (lines.last_mut(), previous_rect) {
                (Some(previous_line), Some(before))
                    if follows_wide_space && !edges.has_column_edge_between_boxes(&before, &line.rect) =>
                {
                    previous_line.text.push(' ');
                    previous_line.text.push_str(&line.text);
                    previous_line.rect = previous_line.rect.union(&line.rect);
                    previous_line.size = previous_line.size.max(line.size);
                }
                _ => lines.push(line),
            }
        }
        lines
    }
}

/// Position, direction and size of a character.
struct GlyphGeometry {
    direction: (f32, f32),
    /// Font size in points.
    size: f32,
    origin: (f32, f32),
    bounds: Bounds,
}

impl GlyphGeometry {
    fn from_glyph(glyph: &Glyph) -> Option<Self> {
        let m = &glyph.matrix;
        let (length, height) = (m.a.hypot(m.b), m.c.hypot(m.d));
        let size = glyph.font_size.abs() * height;
        let b = glyph.bounds;
        let finite = [
            size,
            length,
            b.left,
            b.right,
            b.bottom,
            b.top,
            glyph.origin.0,
            glyph.origin.1,
        ];
        if !finite.iter().all(|n| n.is_finite()) || length <= 0.0 || size <= 0.0 {
            return None;
        }
        Some(Self {
            direction: (m.a / length, m.b / length),
            size,
            origin: glyph.origin,
            bounds: b,
        })
    }

    /// Returns where the box begins and ends in a direction.
    fn extent_along(&self, (x, y): (f32, f32)) -> (f32, f32) {
        let b = &self.bounds;
        let spread = |u: f32, low: f32, high: f32| (u * low).min(u * high)..(u * low).max(u * high);
        let (h, v) = (spread(x, b.left, b.right), spread(y, b.bottom, b.top));
        (h.start + v.start, h.end + v.end)
    }

    fn gap_to_line(&self, line: &LineBuilder) -> f32 {
        let (begin, end) = self.extent_along(line.direction);
        (begin - line.last_extent.1)
            .max(line.last_extent.0 - end)
            .max(0.0)
    }

    /// Returns the gap to a line in multiples of the font size; `None` if the character is not on the line's baseline.
    fn relative_gap_if_on_baseline(&self, line: &LineBuilder) -> Option<f32> {
        let size = line.size.max(self.size);
        let (x, y) = line.direction;
        let has_same_direction = x * self.direction.0 + y * self.direction.1 > 0.98;
        let baseline_offset = (self.origin.0 - line.origin.0) * -y + (self.origin.1 - line.origin.1) * x;
        (has_same_direction && baseline_offset.abs() < MAX_BASELINE_OFFSET * size)
            .then(|| self.gap_to_line(line) / size)
    }

    fn start_line(&self, char: char, glyph: &Glyph, follows_wide_space: bool) -> LineBuilder {
        let mut line = LineBuilder {
            text: String::new(),
            bounds: self.bounds,
            direction: self.direction,
            origin: self.origin,
            last_extent: self.extent_along(self.direction),
            size: self.size,
            has_pending_space: false,
            ends_with_soft_hyphen: false,
            follows_wide_space,
        };
        push_expanding_ligatures(&mut line.text, char, glyph.code_point);
        line
    }

    fn append_to_line(&self, line: &mut LineBuilder, char: char, glyph: &Glyph) {
        if line.ends_with_soft_hyphen {
            line.text.pop();
        }
        if line.has_pending_space || self.gap_to_line(line) > WORD_GAP * self.size.max(line.size * 0.5) {
            line.text.push(' ');
        }
        line.has_pending_space = false;
        push_expanding_ligatures(&mut line.text, char, glyph.code_point);
        let (a, b) = (&mut line.bounds, &self.bounds);
        a.left = a.left.min(b.left);
        a.right = a.right.max(b.right);
        a.bottom = a.bottom.min(b.bottom);
        a.top = a.top.max(b.top);
        line.last_extent = self.extent_along(line.direction);
        line.size = line.size.max(self.size);
    }
}

/// Appends a character. Ligatures are expanded so that searches find the words.
fn push_expanding_ligatures(text: &mut String, char: char, code: u32) {
    match code {
        0xfb00 => text.push_str("ff"),
        0xfb01 => text.push_str("fi"),
        0xfb02 => text.push_str("fl"),
        0xfb03 => text.push_str("ffi"),
        0xfb04 => text.push_str("ffl"),
        0xfb05 | 0xfb06 => text.push_str("st"),
        _ => text.push(char),
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
