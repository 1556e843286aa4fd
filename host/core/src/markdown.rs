//! Renders a document as Markdown.
//!
//! The result is the text in reading order under its headings, in paragraphs instead of lines, with page markers. The
//! renderer leaves out what it cannot know reliably: it joins lines only where the page shows that they belong
//! together, drops headers and footers only if they recur on most pages, and does not mark bold and italic text. Page
//! markers are HTML comments. Markdown tools keep them and do not display them. A page that a vision model
//! transcribed is already Markdown and stays unchanged ([`vision_markdown`]).

mod blocks;
mod escape;
mod page_lines_and_headings;
mod running_headers_and_footers;
pub mod vision_markdown;

use std::fmt::Write;

use crate::page_text::{Line, TextSource};
use crate::summary::DocumentSummaries;

use blocks::{MarkdownBlock, group_lines_into_blocks};
use escape::{escape_text, format_link_target};
pub use page_lines_and_headings::PageLinesAndHeadings;
pub(crate) use running_headers_and_footers::RunningHeadersAndFooters;

/// Renders the pages as one Markdown document with summaries, if there are any. It starts with `title`, unless that
/// is empty or a heading of the first page.
pub fn render_document(
    title: &str,
    summary: Option<&DocumentSummaries>,
    pages: &[PageLinesAndHeadings<'_>],
) -> String {
    let running = RunningHeadersAndFooters::find_in_pages(pages);
    let mut out = String::new();
    let mut title = Some(title.trim()).filter(|t| !t.is_empty());
    if let Some(summary) = summary {
        // The heading on the first page would come after the summary.
        if let Some(title) = title.take() {
            append_block_and_blank_line(&mut out, format_args!("# {}", escape_text(title)));
        }
        append_summaries(&mut out, summary);
    }
    for page in pages {
        let body = match page.source {
            TextSource::VisionModel => PageBody::Transcribed(page.lines),
            TextSource::TextLayer | TextSource::Ocr | TextSource::None => {
                PageBody::Blocks(group_lines_into_blocks(
                    page.lines,
                    &page.headings,
                    &running.mark_headers_and_footers(page.lines),
                ))
            }
        };
        if let Some(title) = title.take()
            && !body.has_heading_with_title(title)
        {
            append_block_and_blank_line(&mut out, format_args!("# {}", escape_text(title)));
        }
        let number = page.number;
        append_block_and_blank_line(&mut out, format_args!("<!-- page {number} -->"));
        if let Some(image) = page.image {
            append_block_and_blank_line(
                &mut out,
                format_args!("![Page {number}]({})", format_link_target(image)),
            );
        }
        match page.failed {
            Some(reason) => append_block_and_blank_line(
                &mut out,
                format_args!("> **Page {number} could not be read:** {}", escape_text(reason)),
            ),
            None => body.append_body_as_markdown(&mut out),
        }
    }
    out
}

/// Content of a page.
enum PageBody<'a> {
    Blocks(Vec<MarkdownBlock>),
    Transcribed(&'a [Line]),
}

impl PageBody<'_> {
    fn has_heading_with_title(&self, title: &str) -> bool {
        match self {
            Self::Blocks(blocks) => blocks
                .iter()
                .any(|b| matches!(b, MarkdownBlock::Heading(_, text) if text.eq_ignore_ascii_case(title))),
            Self::Transcribed(lines) => vision_markdown::find_headings(lines).iter().any(|(at, _)| {
                let line = lines.get(*at);
                line.is_some_and(|l| {
                    vision_markdown::trim_heading_and_emphasis_marks(&l.text).eq_ignore_ascii_case(title)
                })
            }),
        }
    }

    fn append_body_as_markdown(&self, out: &mut String) {
        match self {
            Self::Blocks(blocks) => blocks.iter().for_each(|b| append_page_block(out, b)),
            Self::Transcribed(lines) => vision_markdown::append_lines_escaping_html(out, lines),
        }
    }
}

fn append_summaries(out: &mut String, of: &DocumentSummaries) {
    let Some(whole) = &of.summary else { return };
    append_block_and_blank_line(out, format_args!("## Summary"));
    append_block_and_blank_line(out, format_args!("{}", escape_text(&whole.text)));
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
        let text = escape_text(&summary.text);
        append_block_and_blank_line(out, format_args!("**{}** ({pages}). {text}", escape_text(title)));
    }
}

fn append_page_block(out: &mut String, of: &MarkdownBlock) {
    match of {
        MarkdownBlock::Heading(level, text) => {
            let marks = "######".get(..usize::from(*level).clamp(1, 6)).unwrap_or("#");
            append_block_and_blank_line(out, format_args!("{marks} {}", escape_text(text)));
        }
        MarkdownBlock::Paragraph(text) => {
            append_block_and_blank_line(out, format_args!("{}", escape_text(text)))
        }
        MarkdownBlock::Item(marker, text) => {
            append_block_and_blank_line(out, format_args!("{marker} {}", escape_text(text)))
        }
        MarkdownBlock::Table(rows) => append_table(out, rows),
    }
}

/// Appends a table. Its first row becomes the header, because Markdown has no tables without one.
fn append_table(out: &mut String, rows: &[Vec<String>]) {
    for (i, row) in rows.iter().enumerate() {
        for cell in row {
            let _ = write!(out, "| {} ", escape_text(cell));
        }
        out.push_str("|\n");
        if i == 0 {
            row.iter().for_each(|_| out.push_str("| --- "));
            out.push_str("|\n");
        }
    }
    out.push('\n');
}

/// Appends a block and a blank line.
fn append_block_and_blank_line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{text}\n\n");
}

#[cfg(test)]
#[path = "markdown/tests.rs"]
mod tests;
