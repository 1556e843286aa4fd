//! A document as Markdown.
//!
//! What a reader, or a model, wants from a PDF: its text in reading order under its headings, in paragraphs rather than
//! lines, with the page each part came from. Nothing is guessed that would be worse wrong than missing: lines are joined
//! where the page says they belong together, headers and footers go only where they recur on most pages, bold and italics
//! are not marked. Page markers are HTML comments, so they survive every Markdown tool and show in none. A page that a
//! vision model read is Markdown already and stays as it was written (`transcribed`).

mod escape;
mod paragraphs;
mod running;
pub mod transcribed;

use std::fmt::Write;

use crate::id::PageNumber;
use crate::summary::DocumentSummary;
use crate::text::{Line, TextSource};

use escape::{escaped, link_target};
use paragraphs::{Block, blocks};
pub(crate) use running::RunningLines;

/// A page of the document.
#[derive(Debug, Clone)]
pub struct MarkdownPage<'a> {
    /// The page.
    pub number: PageNumber,
    /// How its lines were come by.
    pub source: TextSource,
    /// Its lines in reading order, see [`reading_order`](crate::layout::reading_order).
    pub lines: &'a [Line],
    /// The headings among them: index of the line and level, see [`headings`](crate::layout::headings).
    pub headings: Vec<(usize, u8)>,
    /// Path or URL of its image, seen from the Markdown file.
    pub image: Option<&'a str>,
    /// Why it could not be read; a page that failed shows this in place of its text.
    pub failed: Option<&'a str>,
}

/// The pages as one Markdown document that begins with `title`, unless that is empty or a heading of the first page already, and
/// with the summaries, if there are any.
pub fn render(title: &str, summary: Option<&DocumentSummary>, pages: &[MarkdownPage<'_>]) -> String {
    let running = RunningLines::of(pages);
    let mut out = String::new();
    let mut title = Some(title.trim()).filter(|t| !t.is_empty());
    if let Some(summary) = summary {
        // The pages' own heading would come too late.
        if let Some(title) = title.take() {
            block(&mut out, format_args!("# {}", escaped(title)));
        }
        summaries(&mut out, summary);
    }
    for page in pages {
        let body = match page.source {
            TextSource::VisionModel => Body::Transcribed(page.lines),
            TextSource::TextLayer | TextSource::Ocr | TextSource::None => {
                Body::Blocks(blocks(page.lines, &page.headings, &running.among(page.lines)))
            }
        };
        if let Some(title) = title.take()
            && !body.has_heading(title)
        {
            block(&mut out, format_args!("# {}", escaped(title)));
        }
        let number = page.number;
        block(&mut out, format_args!("<!-- page {number} -->"));
        if let Some(image) = page.image {
            block(&mut out, format_args!("![Page {number}]({})", link_target(image)));
        }
        match page.failed {
            Some(reason) => block(
                &mut out,
                format_args!("> **Page {number} could not be read:** {}", escaped(reason)),
            ),
            None => body.write(&mut out),
        }
    }
    out
}

/// What stands on a page.
enum Body<'a> {
    Blocks(Vec<Block>),
    Transcribed(&'a [Line]),
}

impl Body<'_> {
    fn has_heading(&self, title: &str) -> bool {
        match self {
            Self::Blocks(blocks) => blocks
                .iter()
                .any(|b| matches!(b, Block::Heading(_, text) if text.eq_ignore_ascii_case(title))),
            Self::Transcribed(lines) => transcribed::headings(lines).iter().any(|(at, _)| {
                let line = lines.get(*at);
                line.is_some_and(|l| transcribed::heading_text(&l.text).eq_ignore_ascii_case(title))
            }),
        }
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Blocks(blocks) => blocks.iter().for_each(|b| write(out, b)),
            Self::Transcribed(lines) => transcribed::write(out, lines),
        }
    }
}

fn summaries(out: &mut String, of: &DocumentSummary) {
    let Some(whole) = &of.summary else { return };
    block(out, format_args!("## Summary"));
    block(out, format_args!("{}", escaped(&whole.text)));
    if of.sections.len() < 2 {
        return;
    }
    for section in &of.sections {
        let Some(summary) = &section.summary else { continue };
        let title = section.title.as_deref().unwrap_or("Untitled");
        let pages = match (section.first_page, section.last_page) {
            (first, last) if first == last => format!("page {first}"),
            (first, last) => format!("pages {first}–{last}"),
        };
        let text = escaped(&summary.text);
        block(out, format_args!("**{}** ({pages}). {text}", escaped(title)));
    }
}

fn write(out: &mut String, of: &Block) {
    match of {
        Block::Heading(level, text) => {
            let marks = "######".get(..usize::from(*level).clamp(1, 6)).unwrap_or("#");
            block(out, format_args!("{marks} {}", escaped(text)));
        }
        Block::Paragraph(text) => block(out, format_args!("{}", escaped(text))),
        Block::Item(marker, text) => block(out, format_args!("{marker} {}", escaped(text))),
        Block::Table(rows) => table(out, rows),
    }
}

/// A table; its first row becomes the head, since Markdown knows no table without one.
fn table(out: &mut String, rows: &[Vec<String>]) {
    for (i, row) in rows.iter().enumerate() {
        for cell in row {
            let _ = write!(out, "| {} ", escaped(cell));
        }
        out.push_str("|\n");
        if i == 0 {
            row.iter().for_each(|_| out.push_str("| --- "));
            out.push_str("|\n");
        }
    }
    out.push('\n');
}

/// Appends a block and the blank line that ends it.
fn block(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{text}\n\n");
}

#[cfg(test)]
#[path = "markdown/tests.rs"]
mod tests;
