//! Lines to headings, paragraphs, list items and tables.
//!
//! A line break on a page is nearly always the margin's doing. The few that mean something show in the white around them:
//! a larger step down, an indent, a line that ends although the next word would have fitted.

use crate::page::Rect;
use crate::text::Line;

/// A part of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Block {
    /// Level and text.
    Heading(u8, String),
    Paragraph(String),
    /// The marker, as Markdown has it, and the text.
    Item(String, String),
    /// Rows of cells, all of one length.
    Table(Vec<Vec<String>>),
}

/// The blocks of a page, from its lines in reading order, its headings as (line, level), and which lines to leave out.
pub(super) fn blocks(lines: &[Line], headings: &[(usize, u8)], left_out: &[bool]) -> Vec<Block> {
    let pieces = pieces(lines, headings, left_out);
    let pitch = pitch(&pieces);
    let mut blocks = Vec::new();
    let mut rest = pieces.as_slice();
    while let Some(first) = rest.first() {
        let rows = rest.iter().take_while(|p| is_row(p, first)).count();
        let taken = if rows >= 2 {
            let row = |p: &Piece<'_>| p.cells.iter().map(|c| (*c).to_owned()).collect();
            blocks.push(Block::Table(rest.iter().take(rows).map(row).collect()));
            rows
        } else {
            let taken = 1 + rest.windows(2).take_while(|pair| goes_on(pair, pitch)).count();
            blocks.push(prose(rest.get(..taken).unwrap_or_default(), first.level));
            taken
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    blocks
}

/// What stands on one baseline.
struct Piece<'a> {
    cells: Vec<&'a str>,
    level: Option<u8>,
    rect: Rect,
    /// Where its text begins, behind a list item's marker.
    left: f32,
    size: f32,
    /// From OCR: heights of boxes, not sizes of type.
    rough: bool,
}

impl Piece<'_> {
    fn middle(&self) -> f32 {
        self.rect.y + self.rect.height / 2.0
    }

    fn char_width(&self) -> f32 {
        let chars: usize = self.cells.iter().map(|c| c.chars().count()).sum();
        self.rect.width / chars.max(1) as f32
    }

    fn ends_a_sentence(&self) -> bool {
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

fn pieces<'a>(lines: &'a [Line], headings: &[(usize, u8)], left_out: &[bool]) -> Vec<Piece<'a>> {
    let mut pieces: Vec<Piece<'a>> = Vec::with_capacity(lines.len());
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
                    && marker(first).is_some_and(|(_, rest)| rest.is_empty())
                {
                    piece.left = line.rect.x;
                }
                piece.cells.push(&line.text);
                piece.rect = piece.rect.union(&line.rect);
            }
            _ => pieces.push(Piece {
                cells: vec![&line.text],
                level,
                rect: line.rect,
                left: text_left(line),
                size: line.size,
                rough: line.confidence < 1.0,
            }),
        }
    }
    pieces
}

fn text_left(line: &Line) -> f32 {
    let chars = line.text.chars().count().max(1) as f32;
    let marked = marker(&line.text).map_or(0, |(_, rest)| line.text.chars().count() - rest.chars().count());
    line.rect.x + line.rect.width * marked as f32 / chars
}

/// Whether `right` stands to the right of `left`, on its baseline.
fn is_beside(left: &Rect, right: &Rect) -> bool {
    let overlap = left.bottom().min(right.bottom()) - left.y.max(right.y);
    overlap > 0.5 * left.height.min(right.height) && right.x >= left.right() - 0.25 * right.width
}

/// Whether a piece is a row of the table that begins with `first`.
fn is_row(piece: &Piece<'_>, first: &Piece<'_>) -> bool {
    piece.cells.len() >= 2
        && piece.cells.len() == first.cells.len()
        && piece.level.is_none()
        && piece.cells.first().is_none_or(|c| marker(c).is_none())
}

/// The usual step from line to line, as a share of the page's height.
fn pitch(pieces: &[Piece<'_>]) -> f32 {
    let steps = pieces.windows(2).filter_map(|pair| match pair {
        [a, b] if is_below(a, b) => Some(b.middle() - a.middle()),
        _ => None,
    });
    let mut steps: Vec<f32> = steps.collect();
    steps.sort_by(f32::total_cmp);
    steps.get(steps.len() / 2).copied().unwrap_or(f32::MAX)
}

/// Whether `b` stands below `a` in the same column.
fn is_below(a: &Piece<'_>, b: &Piece<'_>) -> bool {
    b.middle() > a.middle() && b.rect.x < a.rect.right() && a.rect.x < b.rect.right()
}

/// Whether the second of two lines belongs to the first's block.
fn goes_on(pair: &[Piece<'_>], pitch: f32) -> bool {
    let [a, b] = pair else {
        return false;
    };
    if a.level != b.level || b.cells.first().is_some_and(|c| marker(c).is_some()) {
        return false;
    }
    if !is_below(a, b) {
        // On to the next column: only what is plainly in mid-sentence goes on there.
        return !a.ends_a_sentence() && b.first_word().starts_with(char::is_lowercase);
    }
    let step = b.middle() - a.middle();
    if a.level.is_some() {
        return step < 2.0 * a.rect.height.max(b.rect.height);
    }
    let tolerance = if a.rough || b.rough { 0.35 } else { 0.12 };
    if step > 1.4 * pitch || (a.size - b.size).abs() > tolerance * a.size.max(b.size) {
        return false;
    }
    let width = b.char_width();
    let indented = b.rect.x - a.left > 1.2 * width;
    let fitting = (b.first_word().chars().count() + 2) as f32 * width;
    let ended_early = b.rect.right() - a.rect.right() > fitting;
    !(a.ends_a_sentence() && (indented || ended_early))
}

fn prose(pieces: &[Piece<'_>], level: Option<u8>) -> Block {
    let mut text = String::new();
    let mut item = None;
    for (i, cell) in pieces.iter().flat_map(|p| &p.cells).map(|c| c.trim()).enumerate() {
        let cell = match marker(cell) {
            Some((marker, rest)) if i == 0 && level.is_none() => {
                item = Some(marker);
                rest
            }
            _ => cell,
        };
        append(&mut text, cell);
    }
    match (level, item) {
        (Some(level), _) => Block::Heading(level, text),
        (None, Some(marker)) => Block::Item(marker, text),
        (None, None) => Block::Paragraph(text),
    }
}

/// Appends a line, with the hyphen of a word broken at the end of the last undone. A compound that was broken at its own
/// hyphen loses it: without a dictionary the two look alike, and breaks inside words are by far the more common.
fn append(text: &mut String, line: &str) {
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

/// A list item's marker as Markdown writes it, and what follows it.
fn marker(text: &str) -> Option<(String, &str)> {
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
