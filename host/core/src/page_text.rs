//! The text of a page: lines with bounding boxes, and their plain text.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::id::{DocumentId, PageNumber};
use crate::page::Rect;

/// How the text of a page was obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextSource {
    /// Read from the text layer of the PDF.
    TextLayer,
    /// Recognized in the page image by OCR.
    Ocr,
    /// Transcribed from the page image by a vision model. The lines are Markdown in the order of the model's output,
    /// blank lines included. The model does not report positions, so the rectangle of each line is the whole page. A
    /// rectangle that is guessed from the line number would look more exact than it is.
    VisionModel,
    /// The page was not read.
    None,
}

/// A line of text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The text, without a line break.
    pub text: String,
    /// Position on the page.
    #[serde(rename = "box")]
    pub rect: Rect,
    /// Type size in points: the font size for a text layer, the height of the box for OCR, 0 for a vision model.
    pub size: f32,
    /// Confidence from 0 to 1. It is 1 for a text layer, and 0 for a vision model, which does not report it.
    pub confidence: f32,
}

/// The text of a page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PageText {
    /// How the text was obtained.
    pub source: TextSource,
    /// The lines, in reading order.
    pub lines: Vec<Line>,
}

impl PageText {
    /// The text of a page without text.
    pub const EMPTY: Self = Self {
        source: TextSource::None,
        lines: Vec::new(),
    };

    /// Joins the lines by `\n` and returns the byte range of each line.
    pub fn to_plain_text(&self) -> PlainText {
        let mut text = String::with_capacity(self.lines.iter().map(|l| l.text.len() + 1).sum());
        let mut lines = Vec::with_capacity(self.lines.len());
        for (i, line) in self.lines.iter().enumerate() {
            if i > 0 {
                text.push('\n');
            }
            let start = text.len();
            text.push_str(&line.text);
            lines.push(start..text.len());
        }
        PlainText {
            text,
            line_ranges: lines,
        }
    }

    /// Returns the smallest rectangle around the lines that overlap `range` of the plain text.
    pub fn bounding_box_of_range(&self, plain: &PlainText, range: &Range<usize>) -> Rect {
        self.lines
            .iter()
            .zip(&plain.line_ranges)
            .filter(|(_, at)| at.start < range.end && range.start < at.end)
            .map(|(line, _)| line.rect)
            .reduce(|a, b| a.union(&b))
            .unwrap_or(Rect::WHOLE_PAGE)
    }
}

/// The text of a page with the size of the page, as stored under [`crate::search::page_lines_blob_key`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredPageText {
    /// The document.
    pub document: DocumentId,
    /// The page.
    pub page: PageNumber,
    /// Width in points.
    pub width: f32,
    /// Height in points.
    pub height: f32,
    /// How the text was obtained.
    pub source: TextSource,
    /// The lines, in reading order.
    pub lines: Vec<Line>,
}

/// The text of a page as one string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlainText {
    /// Lines joined by `\n`.
    pub text: String,
    /// Byte range of each line in `text`.
    pub line_ranges: Vec<Range<usize>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_line(text: &str, y: f32) -> Line {
        Line {
            text: text.into(),
            rect: Rect {
                x: 0.1,
                y,
                width: 0.5,
                height: 0.02,
            },
            size: 10.0,
            confidence: 1.0,
        }
    }

    #[test]
    fn bounding_box_covers_the_lines_of_a_range() {
        let page = PageText {
            source: TextSource::Ocr,
            lines: vec![
                make_line("one", 0.1),
                make_line("two", 0.2),
                make_line("three", 0.3),
            ],
        };
        let plain = page.to_plain_text();
        assert_eq!(plain.text, "one\ntwo\nthree");
        let rect = page.bounding_box_of_range(&plain, &(4..9));
        assert_eq!((rect.y, rect.bottom()), (0.2, 0.3 + 0.02));
        assert_eq!(page.bounding_box_of_range(&plain, &(0..3)), page.lines[0].rect);
    }
}
