//! The input of the Markdown renderer for one page.

use crate::id::PageNumber;
use crate::page_text::{Line, TextSource};

/// A page of the document.
#[derive(Debug, Clone)]
pub struct PageLinesAndHeadings<'a> {
    /// The page.
    pub number: PageNumber,
    /// How its text was obtained.
    pub source: TextSource,
    /// Its lines in reading order, see [`sort_into_reading_order`](crate::layout::sort_into_reading_order).
    pub lines: &'a [Line],
    /// Its headings: line index and level, see [`detect_page_headings`](crate::layout::detect_page_headings).
    pub headings: Vec<(usize, u8)>,
    /// Path or URL of its image, relative to the Markdown file.
    pub image: Option<&'a str>,
    /// Why the page could not be read. It is shown in place of the text.
    pub failed: Option<&'a str>,
}
