//! The text layer of a page, as lines.
//!
//! PDFium gives characters one by one, in the order of the file, with spaces and line ends of its own guessing put in. A
//! line here is a run of characters on one baseline, in one direction, with no gap wider than [`COLUMN_GAP`], and none wider
//! than [`WIDE_SPACE`] where a column begins; so the halves of a two-column page and the cells of a table are lines of their
//! own, which is what finding the reading order needs. The order of the lines is left as it is.
//!
//! Distances are measured along and across the direction in which the line is written, so text up a margin or on a
//! rotated page works like any other; and between the boxes of characters, not from left to right, so Arabic and Hebrew
//! do, too.

use weir_core::layout::ColumnEdges;
use weir_core::page::Rect;
use weir_core::text::Line;

use super::pdfium::{Bounds, Document, Glyph, Page};
use crate::answers::{PAGE_LINES, PAGE_TEXT_BYTES};
use crate::protocol::Answer;
use crate::shared::Pulse;

/// A gap that ends a line, in sizes of the type. Words stand 0.2 to 0.4 apart, in justified text up to 1; columns 1.5
/// and more.
const COLUMN_GAP: f32 = 1.4;

/// A gap that is a space or a narrow gutter, in sizes of the type. Which of both it is only the whole page tells.
const WIDE_SPACE: f32 = 0.8;

/// A gap that is a space although the file has none, in sizes of the type.
const WORD_GAP: f32 = 0.17;

/// How far a character may lie off the baseline of its line, in sizes of the type: a superscript does, the next line not.
const BASELINE: f32 = 0.5;

/// Characters of a page that are looked at.
const CHARS: u32 = 2_000_000;

pub(super) fn text(document: &Document, index: u32, pulse: &Pulse) -> Answer {
    let Some(page) = document.page(index) else {
        return Answer::Unreadable("it cannot be parsed".into());
    };
    pulse.beat();
    let (Some(frame), Some(text)) = (Frame::of(&page), page.text()) else {
        return Answer::Text(Vec::new());
    };
    let mut lines = Lines::new(frame);
    for index in 0..text.chars().min(CHARS) {
        if index % 1024 == 0 {
            pulse.beat();
            if pulse.is_abandoned() {
                return Answer::Abandoned;
            }
        }
        if let Some(glyph) = text.glyph(index) {
            lines.add(&glyph);
        }
        if lines.is_full() {
            break;
        }
    }
    Answer::Text(lines.finish())
}

/// The page as it is seen: its box and its quarter turns.
#[derive(Debug, Clone, Copy)]
struct Frame {
    page: Bounds,
    turns: u8,
}

impl Frame {
    fn of(page: &Page<'_>) -> Option<Self> {
        let bounds = page.bounds()?;
        (bounds.right > bounds.left && bounds.top > bounds.bottom).then_some(Self {
            page: bounds,
            turns: page.rotation(),
        })
    }

    /// The share of the page's width and height, from its upper left corner as it is seen, at which a point lies.
    fn place(&self, x: f32, y: f32) -> (f32, f32) {
        let p = &self.page;
        let across = (x - p.left) / (p.right - p.left);
        let up = (y - p.bottom) / (p.top - p.bottom);
        match self.turns {
            0 => (across, 1.0 - up),
            1 => (up, across),
            2 => (1.0 - across, up),
            _ => (1.0 - up, 1.0 - across),
        }
    }

    /// A box in shares of the page, cut to the page; `None` if it lies outside.
    fn rect(&self, b: &Bounds) -> Option<Rect> {
        let (x0, y0) = self.place(b.left, b.bottom);
        let (x1, y1) = self.place(b.right, b.top);
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

/// A line being put together.
#[derive(Debug)]
struct Current {
    text: String,
    bounds: Bounds,
    /// Unit vector along the writing.
    along: (f32, f32),
    origin: (f32, f32),
    /// Where the last character lies along the writing.
    last: (f32, f32),
    /// Size of the largest type, in points.
    size: f32,
    space: bool,
    hyphen: bool,
    /// Whether only a wide space parts it from the line before.
    is_continued: bool,
}

struct Lines {
    frame: Frame,
    lines: Vec<Line>,
    /// The lines, by index and ascending, that only a wide space parts from the one before.
    continued: Vec<usize>,
    bytes: usize,
    current: Option<Current>,
}

impl Lines {
    fn new(frame: Frame) -> Self {
        Self {
            frame,
            lines: Vec::new(),
            continued: Vec::new(),
            bytes: 0,
            current: None,
        }
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= PAGE_LINES || self.bytes >= PAGE_TEXT_BYTES
    }

    fn add(&mut self, glyph: &Glyph) {
        // PDFium marks a hyphen at a line's end by codes that are no characters.
        let hyphen = glyph.hyphen || matches!(glyph.code, 0x02 | 0xad | 0xfffe);
        let char = if hyphen {
            '-'
        } else {
            char::from_u32(glyph.code).unwrap_or('\0')
        };
        if char.is_whitespace() {
            if let Some(line) = &mut self.current {
                line.space = true;
            }
            return;
        }
        if glyph.generated || char.is_control() || matches!(char, '\u{feff}' | '\u{ffff}') {
            return;
        }
        let Some(letter) = Letter::of(glyph) else {
            return;
        };
        let gap = self
            .current
            .as_ref()
            .and_then(|line| letter.gap_on_baseline(line));
        let is_continued = gap.is_some_and(|gap| gap < COLUMN_GAP);
        if gap.is_none_or(|gap| gap >= WIDE_SPACE) {
            let before = self.lines.len();
            self.end();
            let was_kept = self.lines.len() > before;
            self.current = Some(letter.begin(char, glyph, is_continued && was_kept));
        } else if let Some(line) = &mut self.current {
            letter.join(line, char, glyph);
        }
        if let Some(line) = &mut self.current {
            // A soft hyphen shows only where the line ends.
            line.hyphen = hyphen && glyph.code == 0xad;
            if line.text.len() > PAGE_TEXT_BYTES {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        let Some(line) = self.current.take() else {
            return;
        };
        let Some(rect) = self.frame.rect(&line.bounds) else {
            return;
        };
        if self.bytes + line.text.len() > PAGE_TEXT_BYTES {
            self.bytes = PAGE_TEXT_BYTES;
            return;
        }
        self.bytes += line.text.len();
        if line.is_continued {
            self.continued.push(self.lines.len());
        }
        self.lines.push(Line {
            text: line.text,
            rect,
            size: line.size,
            confidence: 1.0,
        });
    }

    fn finish(mut self) -> Vec<Line> {
        self.end();
        let edges = ColumnEdges::of(&self.lines);
        let mut continued = self.continued.into_iter().peekable();
        let mut lines: Vec<Line> = Vec::with_capacity(self.lines.len());
        let mut last: Option<Rect> = None;
        for (i, line) in self.lines.into_iter().enumerate() {
            let is_continued = continued.next_if_eq(&i).is_some();
            let before = last.replace(line.rect);
            match (lines.last_mut(), before) {
                (Some(left), Some(before)) if is_continued && !edges.part(&before, &line.rect) => {
                    left.text.push(' ');
                    left.text.push_str(&line.text);
                    left.rect = left.rect.union(&line.rect);
                    left.size = left.size.max(line.size);
                }
                _ => lines.push(line),
            }
        }
        lines
    }
}

/// A character's geometry.
struct Letter {
    along: (f32, f32),
    /// In points.
    size: f32,
    origin: (f32, f32),
    bounds: Bounds,
}

impl Letter {
    fn of(glyph: &Glyph) -> Option<Self> {
        let m = &glyph.matrix;
        let (length, height) = (m.a.hypot(m.b), m.c.hypot(m.d));
        let size = glyph.size.abs() * height;
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
            along: (m.a / length, m.b / length),
            size,
            origin: glyph.origin,
            bounds: b,
        })
    }

    /// Where the box begins and ends along a direction.
    fn extent(&self, (x, y): (f32, f32)) -> (f32, f32) {
        let b = &self.bounds;
        let spread = |u: f32, low: f32, high: f32| (u * low).min(u * high)..(u * low).max(u * high);
        let (h, v) = (spread(x, b.left, b.right), spread(y, b.bottom, b.top));
        (h.start + v.start, h.end + v.end)
    }

    fn gap(&self, line: &Current) -> f32 {
        let (begin, end) = self.extent(line.along);
        (begin - line.last.1).max(line.last.0 - end).max(0.0)
    }

    /// The gap to a line on whose baseline the letter stands, in sizes of the type.
    fn gap_on_baseline(&self, line: &Current) -> Option<f32> {
        let size = line.size.max(self.size);
        let (x, y) = line.along;
        let straight = x * self.along.0 + y * self.along.1 > 0.98;
        let off = (self.origin.0 - line.origin.0) * -y + (self.origin.1 - line.origin.1) * x;
        (straight && off.abs() < BASELINE * size).then(|| self.gap(line) / size)
    }

    fn begin(&self, char: char, glyph: &Glyph, is_continued: bool) -> Current {
        let mut line = Current {
            text: String::new(),
            bounds: self.bounds,
            along: self.along,
            origin: self.origin,
            last: self.extent(self.along),
            size: self.size,
            space: false,
            hyphen: false,
            is_continued,
        };
        push(&mut line.text, char, glyph.code);
        line
    }

    fn join(&self, line: &mut Current, char: char, glyph: &Glyph) {
        if line.hyphen {
            line.text.pop();
        }
        if line.space || self.gap(line) > WORD_GAP * self.size.max(line.size * 0.5) {
            line.text.push(' ');
        }
        line.space = false;
        push(&mut line.text, char, glyph.code);
        let (a, b) = (&mut line.bounds, &self.bounds);
        a.left = a.left.min(b.left);
        a.right = a.right.max(b.right);
        a.bottom = a.bottom.min(b.bottom);
        a.top = a.top.max(b.top);
        line.last = self.extent(line.along);
        line.size = line.size.max(self.size);
    }
}

/// Appends a character, ligatures taken apart so that words can be found.
fn push(text: &mut String, char: char, code: u32) {
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
