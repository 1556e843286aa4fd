//! The text of a page: lines with boxes, and the plain text made of them.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::id::{DocumentId, PageNumber};
use crate::page::Rect;

/// How a page's text was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextSource {
    /// The PDF's own text.
    TextLayer,
    /// Recognized in the page image.
    Ocr,
    /// Written down by a vision model that was shown the page image. The lines are Markdown, blank ones among them, in the
    /// order the model gave them. It does not say where a line stands, so each has the page as its box: that is all that is
    /// known, and a box made up from the line's number would be taken for more.
    VisionModel,
    /// The page was not read.
    None,
}

/// A line of text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The text, without a line break.
    pub text: String,
    /// Where it stands.
    #[serde(rename = "box")]
    pub rect: Rect,
    /// Height of its type in points: the font size for a text layer, the box height for OCR, 0 where a vision model read it.
    pub size: f32,
    /// From 0 to 1; 1 for a text layer, 0 where a vision model read it, since it does not say how sure it is.
    pub confidence: f32,
}

/// The text of a page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PageText {
    /// How it was come by.
    pub source: TextSource,
    /// The lines, in reading order.
    pub lines: Vec<Line>,
}

impl PageText {
    /// The text of a page that has none.
    pub const EMPTY: Self = Self {
        source: TextSource::None,
        lines: Vec::new(),
    };

    /// The lines joined by `\n`, with the range of bytes each takes.
    pub fn plain(&self) -> PlainText {
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
        PlainText { text, lines }
    }

    /// The smallest box around the lines that `range` of the plain text touches.
    pub fn rect_of(&self, plain: &PlainText, range: &Range<usize>) -> Rect {
        self.lines
            .iter()
            .zip(&plain.lines)
            .filter(|(_, at)| at.start < range.end && range.start < at.end)
            .map(|(line, _)| line.rect)
            .reduce(|a, b| a.union(&b))
            .unwrap_or(Rect::PAGE)
    }
}

/// The text of a page as it is kept under [`crate::search::lines_key`], with what is needed to place it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PageLines {
    /// The document.
    pub document: DocumentId,
    /// The page.
    pub page: PageNumber,
    /// Width in points.
    pub width: f32,
    /// Height in points.
    pub height: f32,
    /// How the text was come by.
    pub source: TextSource,
    /// The lines, in reading order.
    pub lines: Vec<Line>,
}

/// A page's text as one string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlainText {
    /// Lines joined by `\n`.
    pub text: String,
    /// Each line's bytes in `text`.
    pub lines: Vec<Range<usize>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, y: f32) -> Line {
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
    fn a_range_is_boxed_by_the_lines_it_touches() {
        let page = PageText {
            source: TextSource::Ocr,
            lines: vec![line("one", 0.1), line("two", 0.2), line("three", 0.3)],
        };
        let plain = page.plain();
        assert_eq!(plain.text, "one\ntwo\nthree");
        let rect = page.rect_of(&plain, &(4..9));
        assert_eq!((rect.y, rect.bottom()), (0.2, 0.3 + 0.02));
        assert_eq!(page.rect_of(&plain, &(0..3)), page.lines[0].rect);
    }
}
