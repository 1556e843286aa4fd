//! Groups lines into headings, paragraphs, list items and tables.
//!
//! Most line breaks on a page only mark the right margin. The few that have a meaning are visible in the white space
//! around them: a larger distance, an indent, or a line that ends although the next word would have fit.

use crate::page::Rect;
use crate::page_text::Line;

/// A block of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MarkdownBlock {
    /// Level and text.
    Heading(u8, String),
    Paragraph(String),
    /// The list marker in Markdown, and the text.
    Item(String, String),
    /// Rows of cells, all with the same number of cells.
    Table(Vec<Vec<String>>),
}

/// Returns the blocks of a page. `lines` are in reading order, `headings` are (line, level), and `left_out` marks
/// lines to skip.
pub(super) fn group_lines_into_blocks(
    lines: &[Line],
    headings: &[(usize, u8)],
    left_out: &[bool],
) -> Vec<MarkdownBlock> {
    let pieces = join_lines_on_baseline(lines, headings, left_out);
    let pitch = median_line_pitch(&pieces);
    let mut blocks = Vec::new();
    let mut rest = pieces.as_slice();
    while let Some(first) = rest.first() {
        let rows = rest
            .iter()
            .take_while(|p| is_row_of_table_starting_with(p, first))
            .count();
        let taken = if rows >= 2 {
            let row = |p: &BaselineRow<'_>| p.cells.iter().map(|c| (*c).to_owned()).collect();
            blocks.push(MarkdownBlock::Table(rest.iter().take(rows).map(row).collect()));
            rows
        } else {
            let taken = 1 + rest
                .windows(2)
                .take_while(|pair| continues_block(pair, pitch))
                .count();
            blocks.push(build_text_block(
                rest.get(..taken).unwrap_or_default(),
                first.level,
            ));
            taken
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    blocks
}

/// The lines on one baseline.
struct BaselineRow<'a> {
    cells: Vec<&'a str>,
    level: Option<u8>,
    rect: Rect,
    /// Left edge of the text, after the marker of a list item.
    text_left: f32,
    size: f32,
    /// Whether it is from OCR, which reports heights of boxes instead of type sizes.
    is_ocr: bool,
}

impl BaselineRow<'_> {
    fn vertical_center(&self) -> f32 {
        self.rect.y + self.rect.height / 2.0
    }

    fn mean_char_width(&self) -> f32 {
        let chars: usize = self.cells.iter().map(|c| c.chars().count()).sum();
        self.rect.width / chars.max(1) as f32
    }

    fn ends_sentence(&self) -> bool {
        let closing = |c: char| matches!(c, '"' | '\'' | ')' | '”' | '’' | '»' | ']');
        self.cells.last().is_some_and(|t| {
            t.trim_end()
                .trim_end_matches(closing)
                .ends_with(['.', '!', '?', ':', '…'])
        })
    }

    fn first_word(&self) -> &str {
        self.cells
            .first()
            .and_then(|t| t.split_whitespace().next())
            .unwrap_or_default()
    }
}

fn join_lines_on_baseline<'a>(
    lines: &'a [Line],
    headings: &[(usize, u8)],
    left_out: &[bool],
) -> Vec<BaselineRow<'a>> {
    let mut pieces: Vec<BaselineRow<'a>> = Vec::with_capacity(lines.len());
    let mut headings = headings.iter().peekable();
    for (i, line) in lines.iter().enumerate() {
        while headings.next_if(|(at, _)| *at < i).is_some() {}
        let level = headings.next_if(|(at, _)| *at == i).map(|(_, level)| *level);
        if line.text.trim().is_empty() || left_out.get(i) == Some(&true) {
            continue;
        }
        match pieces.last_mut() {
            Some(piece) if piece.level == level && is_beside(&piece.rect, &line.rect) => {
                if let [first] = piece.cells.as_slice()
                    && split_list_marker(first).is_some_and(|(_, rest)| rest.is_empty())
                {
                    piece.text_left = line.rect.x;
                }
                piece.cells.push(&line.text);
                piece.rect = piece.rect.union(&line.rect);
            }
            _ => pieces.push(BaselineRow {
                cells: vec![&line.text],
                level,
                rect: line.rect,
                text_left: text_left_edge(line),
                size: line.size,
                is_ocr: line.confidence < 1.0,
            }),
        }
    }
    pieces
}

fn text_left_edge(line: &Line) -> f32 {
    let chars = line.text.chars().count().max(1) as f32;
    let marked =
        split_list_marker(&line.text).map_or(0, |(_, rest)| line.text.chars().count() - rest.chars().count());
    line.rect.x + line.rect.width * marked as f32 / chars
}

/// Returns whether `right` is to the right of `left` on the same baseline.
fn is_beside(left: &Rect, right: &Rect) -> bool {
    let overlap = left.bottom().min(right.bottom()) - left.y.max(right.y);
    overlap > 0.5 * left.height.min(right.height) && right.x >= left.right() - 0.25 * right.width
}

/// Returns whether a piece is a row of the table that starts with `first`.
fn is_row_of_table_starting_with(piece: &BaselineRow<'_>, first: &BaselineRow<'_>) -> bool {
    piece.cells.len() >= 2
        && piece.cells.len() == first.cells.len()
        && piece.level.is_none()
        && piece.cells.first().is_none_or(|c| split_list_marker(c).is_none())
}

/// Returns the median distance between lines, as a fraction of the page height.
fn median_line_pitch(pieces: &[BaselineRow<'_>]) -> f32 {
    let steps = pieces.windows(2).filter_map(|pair| match pair {
        [a, b] if is_below(a, b) => Some(b.vertical_center() - a.vertical_center()),
        _ => None,
    });
    let mut steps: Vec<f32> = steps.collect();
    steps.sort_by(f32::total_cmp);
    steps.get(steps.len() / 2).copied().unwrap_or(f32::MAX)
}

/// Returns whether `b` is below `a` in the same column.
fn is_below(a: &BaselineRow<'_>, b: &BaselineRow<'_>) -> bool {
    b.vertical_center() > a.vertical_center() && b.rect.x < a.rect.right() && a.rect.x < b.rect.right()
}

/// Returns whether the second piece belongs to the block of the first.
fn continues_block(pair: &[BaselineRow<'_>], pitch: f32) -> bool {
    let [a, b] = pair else {
        return false;
    };
    if a.level != b.level || b.cells.first().is_some_and(|c| split_list_marker(c).is_some()) {
        return false;
    }
    if !is_below(a, b) {
        // In the next column, a block continues only in the middle of a sentence.
        return !a.ends_sentence() && b.first_word().starts_with(char::is_lowercase);
    }
    let step = b.vertical_center() - a.vertical_center();
    if a.level.is_some() {
        return step < 2.0 * a.rect.height.max(b.rect.height);
    }
    let tolerance = if a.is_ocr || b.is_ocr { 0.35 } else { 0.12 };
    if step > 1.4 * pitch || (a.size - b.size).abs() > tolerance * a.size.max(b.size) {
        return false;
    }
    let width = b.mean_char_width();
    let indented = b.rect.x - a.text_left > 1.2 * width;
    let fitting = (b.first_word().chars().count() + 2) as f32 * width;
    let ended_early = b.rect.right() - a.rect.right() > fitting;
    !(a.ends_sentence() && (indented || ended_early))
}

fn build_text_block(pieces: &[BaselineRow<'_>], level: Option<u8>) -> MarkdownBlock {
    let mut text = String::new();
    let mut item = None;
    for (i, cell) in pieces.iter().flat_map(|p| &p.cells).map(|c| c.trim()).enumerate() {
        let cell = match split_list_marker(cell) {
            Some((marker, rest)) if i == 0 && level.is_none() => {
                item = Some(marker);
                rest
            }
            _ => cell,
        };
        append_line_dehyphenated(&mut text, cell);
    }
    match (level, item) {
        (Some(level), _) => MarkdownBlock::Heading(level, text),
        (None, Some(marker)) => MarkdownBlock::Item(marker, text),
        (None, None) => MarkdownBlock::Paragraph(text),
    }
}

/// Appends a line and removes the hyphen of a word that is split at the end of the previous line. A compound word
/// that is split at its own hyphen loses it: without a dictionary both look alike, and splits inside words are far
/// more common.
fn append_line_dehyphenated(text: &mut String, line: &str) {
    let broken = text
        .strip_suffix(['-', '\u{ad}', '\u{2010}'])
        .filter(|t| t.ends_with(char::is_alphabetic));
    match broken.map(str::len) {
        Some(length) if line.starts_with(char::is_lowercase) => text.truncate(length),
        _ if text.is_empty() || line.is_empty() => {}
        _ => text.push(' '),
    }
    text.extend(line.chars().filter(|&c| c != '\u{ad}' || line.ends_with(c)));
}

/// Returns the marker of a list item in Markdown and the rest of the text.
fn split_list_marker(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    let digits = first.trim_end_matches(['.', ')']);
    let number = digits.len() + 1 == first.len() && (1..=3).contains(&digits.len());
    if matches!(first, "•" | "◦" | "▪" | "‣" | "·" | "-" | "–" | "*") {
        Some(("-".to_owned(), rest.trim_start()))
    } else if number && digits.bytes().all(|b| b.is_ascii_digit()) {
        Some((first.to_owned(), rest.trim_start()))
    } else {
        None
    }
}
