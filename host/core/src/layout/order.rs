//! Reading order by recursive cuts.
//!
//! The method is the XY-cut (Nagy and Seth, "Hierarchical representation of optically scanned documents", 1984) with
//! three changes. Plain XY-cut cuts at the widest gap, and tears columns apart wherever their paragraph breaks happen to
//! align; here the page is first cut into its rows, and neighbouring rows are put together again for as long as one
//! gutter runs through all of them, so a heading across the page parts the columns above it from those below. Regions of
//! columns whose lines are not level are found before that, in `columns.rs`. Rows of
//! short cells that stand on common baselines are a table and are read row by row. And headers and footers are set apart
//! before all else, since nothing else keeps a page number from ending up in the left column.
//!
//! Hostile boxes cost no more than honest ones: coordinates are clamped to the page, a gutter has a least width, which
//! bounds how many there can be, and the recursion has a depth. Every level is a sort.

use super::block::{Block, median};
use super::columns::column_regions;
use super::fragments::join_fragments;
use super::script::is_right_to_left;
use crate::text::Line;

/// A gutter is at least this share of the page's width: 6 pt on A4, less than any printed gutter, more than a space.
const GUTTER: f32 = 0.01;
/// In a region of columns, where many lines agree on a gutter, it may be this narrow.
const NARROW_GUTTER: f32 = 0.0025;
/// Outside of such a region, white of fewer character widths with few lines beside it is a wide space in justified text.
const SPACE: f32 = 4.5;
/// So many lines are few.
const FEW: usize = 2;
/// How often a region is cut again. Columns within columns within columns are three.
const DEPTH: u32 = 8;
/// Headers and footers stand in this share of the page's height, at the top and at the bottom.
const MARGIN: f32 = 0.09;
/// Lines of prose are at least this long, in characters; cells of a table are mostly shorter.
const PROSE: usize = 22;

/// The lines in the order a person reads them: header, columns from left to right, each from top to bottom, headings
/// before what they head, tables row by row, footer.
///
/// Text that runs up or down a margin comes before the footer, as it came. Fragments of one line that stand close together on a baseline, as OCR leaves them, become one line. Lines whose box is
/// not a number come last. A page that is mostly in a right-to-left script is returned as it came: its columns
/// run the other way, and its source knows better. The same lines always give the same order.
pub fn reading_order(lines: Vec<Line>) -> Vec<Line> {
    if mostly_right_to_left(&lines) {
        return lines;
    }
    let (placed, unplaced): (Vec<Line>, Vec<Line>) = lines.into_iter().partition(|line| {
        let r = &line.rect;
        [r.x, r.y, r.width, r.height].iter().all(|v| v.is_finite())
    });
    let lines = join_fragments(placed);
    let blocks: Vec<Block> = lines.iter().enumerate().map(|(i, l)| Block::of(i, l)).collect();
    // A line that runs up the margin stands beside all others, and no row could be told from the next.
    let (upright, level): (Vec<Block>, Vec<Block>) = blocks.into_iter().partition(Block::is_upright);
    let [header, body, footer] = apart_from_margins(level);
    let mut order = Vec::with_capacity(lines.len());
    cut(header, DEPTH, &mut order);
    cut(body, DEPTH, &mut order);
    order.extend(upright.iter().map(|b| b.line));
    cut(footer, DEPTH, &mut order);
    let mut lines: Vec<Option<Line>> = lines.into_iter().map(Some).collect();
    order
        .into_iter()
        .filter_map(|i| lines.get_mut(i).and_then(Option::take))
        .chain(unplaced)
        .collect()
}

/// An interval of the page's width.
type Span = (f32, f32);

fn mostly_right_to_left(lines: &[Line]) -> bool {
    let (mut rtl, mut letters) = (0_usize, 0_usize);
    for c in lines
        .iter()
        .flat_map(|l| l.text.chars())
        .filter(|c| c.is_alphabetic())
    {
        letters += 1;
        rtl += usize::from(is_right_to_left(c));
    }
    rtl * 2 > letters
}

/// Header, body and footer. A line is a header or footer if it stands in the margin with white between it and the body; a
/// page's number is one above the margin, too.
fn apart_from_margins(mut blocks: Vec<Block>) -> [Vec<Block>; 3] {
    let gap = 1.3 * median(blocks.iter().map(Block::height));
    blocks.sort_by(|a, b| a.top.total_cmp(&b.top));
    // The last white stripe that begins in the upper margin ends the header; the first in the lower one begins the footer.
    let (mut header, mut footer) = (0, blocks.len());
    let mut bottom = 0.0_f32;
    for (i, block) in blocks.iter().enumerate() {
        if i > 0 && block.top - bottom > gap {
            let is_page_number = block.is_number && i + 1 == blocks.len();
            if bottom < MARGIN {
                header = i;
            } else if (block.top > 1.0 - MARGIN || is_page_number) && footer == blocks.len() {
                footer = i;
            }
        }
        bottom = bottom.max(block.bottom);
    }
    let below = blocks.split_off(footer.min(blocks.len()));
    let body = blocks.split_off(header.min(blocks.len()));
    [blocks, body, below]
}

/// Appends the lines of a region in reading order.
fn cut(blocks: Vec<Block>, depth: u32, order: &mut Vec<usize>) {
    if blocks.len() < 2 || depth == 0 {
        return by_rows(blocks, order);
    }
    for group in groups(rows(blocks)) {
        if group.gutters.is_empty() || group.is_table() {
            for row in group.rows {
                by_rows(row, order);
            }
        } else {
            let gutters = group.between_columns();
            for column in columns(group.rows.into_iter().flatten(), &gutters) {
                cut(column, depth - 1, order);
            }
        }
    }
}

/// Cuts at every height that no line's core crosses, from top to bottom.
fn rows(mut blocks: Vec<Block>) -> Vec<Vec<Block>> {
    blocks.sort_by(|a, b| a.core().0.total_cmp(&b.core().0));
    let mut rows: Vec<Vec<Block>> = Vec::new();
    let mut bottom = f32::MIN;
    for block in blocks {
        let (top, end) = block.core();
        match rows.last_mut() {
            Some(row) if top < bottom => row.push(block),
            _ => rows.push(vec![block]),
        }
        bottom = bottom.max(end);
    }
    rows
}

/// Neighbouring rows that the same gutters run through.
struct Group {
    rows: Vec<Vec<Block>>,
    /// White from the top of the group to its bottom, with lines on both sides.
    gutters: Vec<Span>,
    /// The white of all its rows, margins included.
    white: Vec<Span>,
    left: f32,
    right: f32,
    /// Whether it is a region of columns of running text.
    is_region: bool,
}

impl Group {
    /// A region of columns, as [`column_regions`] found it.
    fn of_region(rows: Vec<Vec<Block>>) -> Self {
        Self {
            is_region: true,
            ..Self::of(rows, NARROW_GUTTER)
        }
    }

    fn of(rows: Vec<Vec<Block>>, narrowest: f32) -> Self {
        let white = white(rows.iter().flatten(), narrowest);
        let left = rows.iter().flatten().map(|b| b.left).fold(1.0, f32::min);
        let right = rows.iter().flatten().map(|b| b.right).fold(0.0, f32::max);
        Self {
            rows,
            gutters: within(&white, left, right),
            white,
            left,
            right,
            is_region: false,
        }
    }

    /// Takes the rows of `next` in if a gutter is left that one of the two had alone.
    fn take(&mut self, next: Self) -> Result<(), Self> {
        let white = common(&self.white, &next.white);
        let (left, right) = (self.left.min(next.left), self.right.max(next.right));
        let gutters = within(&white, left, right);
        if gutters.is_empty() || (self.gutters.is_empty() && next.gutters.is_empty()) {
            return Err(next);
        }
        *self = Self {
            rows: std::mem::take(&mut self.rows),
            gutters,
            white,
            left,
            right,
            is_region: false,
        };
        self.rows.extend(next.rows);
        Ok(())
    }

    /// Whether its columns are those of a table: at most one of them is prose, and what stands in the others has something
    /// beside it on its baseline. Lines of two columns of text are level by chance, too.
    fn is_table(&self) -> bool {
        let (rows, gutters) = (&self.rows, &self.gutters);
        let columns = columns(rows.iter().flatten().copied(), gutters);
        let prose: Vec<bool> = columns.iter().map(|c| is_prose(c)).collect();
        let cells = (0..columns.len()).filter(|c| prose.get(*c) == Some(&false));
        let (level, all) = level_blocks(rows, gutters, cells, |own, other| own != other);
        let share = if self.is_region { 85 } else { 70 };
        prose.iter().filter(|p| **p).count() <= 1 && level * 100 >= all * share
    }

    /// The gutters without those that part bullets, numbers or the cells of a table from what stands beside them, and
    /// without wide spaces.
    fn between_columns(&self) -> Vec<Span> {
        let (rows, gutters) = (&self.rows, &self.gutters);
        let columns = columns(rows.iter().flatten().copied(), gutters);
        let prose: Vec<bool> = columns.iter().map(|c| is_prose(c)).collect();
        let is_part = |column: usize, of: usize| {
            let (level, all) = level_blocks(rows, gutters, [column].into_iter(), |_, other| other == of);
            prose.get(column) == Some(&false) && level * 10 >= all * 7
        };
        let parts = |left: usize| is_part(left, left + 1) || is_part(left + 1, left);
        let widths = rows
            .iter()
            .flatten()
            .map(|b| (b.right - b.left) / b.chars.max(1) as f32);
        let narrowest = if self.is_region {
            0.0
        } else {
            SPACE * median(widths)
        };
        let lines = |column: usize| columns.get(column).map_or(0, Vec::len);
        let is_space = |left: usize, gutter: &Span| {
            gutter.1 - gutter.0 < narrowest && lines(left).min(lines(left + 1)) <= FEW
        };
        gutters
            .iter()
            .enumerate()
            .filter(|(i, gutter)| !is_space(*i, gutter) && !parts(*i))
            .map(|(_, gutter)| *gutter)
            .collect()
    }
}

/// The regions of columns, and between them what the gutters of neighbouring rows tell.
fn groups(rows: Vec<Vec<Block>>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let regions = column_regions(&rows);
    let mut rows = rows.into_iter();
    let mut at = 0;
    for region in regions {
        groups.extend(neighbours(rows.by_ref().take(region.start - at)));
        at = region.end;
        let columns = rows.by_ref().take(region.len()).collect();
        groups.push(Group::of_region(columns));
    }
    groups.extend(neighbours(rows));
    groups
}

/// Puts neighbouring rows together for as long as one gutter runs through all of them.
fn neighbours(rows: impl Iterator<Item = Vec<Block>>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for row in rows {
        let row = Group::of(vec![row], GUTTER);
        match groups.last_mut() {
            Some(group) => {
                if let Err(row) = group.take(row) {
                    groups.push(row);
                }
            }
            None => groups.push(row),
        }
    }
    groups
}

/// Where no block stands, from the page's left edge to its right, as spans of at least `narrowest`.
fn white<'a>(blocks: impl Iterator<Item = &'a Block>, narrowest: f32) -> Vec<Span> {
    let mut spans: Vec<Span> = blocks.map(|b| (b.left, b.right)).collect();
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut white = Vec::new();
    let mut end = 0.0_f32;
    for (left, right) in spans.into_iter().chain([(1.0, 1.0)]) {
        if left - end >= narrowest {
            white.push((end, left));
        }
        end = end.max(right);
    }
    white
}

/// The spans that have something to their left and to their right.
fn within(white: &[Span], left: f32, right: f32) -> Vec<Span> {
    let inside = |s: &&Span| s.0 > left && s.1 < right;
    white.iter().filter(inside).copied().collect()
}

/// What two sets of spans have in common.
fn common(a: &[Span], b: &[Span]) -> Vec<Span> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut spans = Vec::new();
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        let (left, right) = (x.0.max(y.0), x.1.min(y.1));
        if right - left >= GUTTER {
            spans.push((left, right));
        }
        if x.1 < y.1 {
            a.next();
        } else {
            b.next();
        }
    }
    spans
}

/// The column of a block: how many gutters are to its left.
fn column_of(block: &Block, gutters: &[Span]) -> usize {
    gutters.partition_point(|g| g.0 < block.right)
}

fn columns(blocks: impl Iterator<Item = Block>, gutters: &[Span]) -> Vec<Vec<Block>> {
    let mut columns = vec![Vec::new(); gutters.len() + 1];
    for block in blocks {
        if let Some(column) = columns.get_mut(column_of(&block, gutters)) {
            column.push(block);
        }
    }
    columns
}

/// Of the blocks in some columns, how many have one beside them on their baseline, in a column that will do; and of how many.
fn level_blocks(
    rows: &[Vec<Block>],
    gutters: &[Span],
    columns: impl Iterator<Item = usize>,
    will_do: impl Fn(usize, usize) -> bool,
) -> (usize, usize) {
    /// Rows of more are not looked at in full: they are not those of a table.
    const ROW: usize = 64;
    let columns: Vec<usize> = columns.collect();
    let (mut level, mut all) = (0, 0);
    for row in rows {
        for block in row {
            let own = column_of(block, gutters);
            if columns.binary_search(&own).is_err() {
                continue;
            }
            let beside = |b: &Block| will_do(own, column_of(b, gutters)) && b.is_level_with(block);
            all += 1;
            level += usize::from(row.iter().take(ROW).any(beside));
        }
    }
    (level, all)
}

/// Whether lines are those of running text: long, and most of them as wide as their column.
fn is_prose(column: &[Block]) -> bool {
    let left = column.iter().map(|b| b.left).fold(1.0, f32::min);
    let right = column.iter().map(|b| b.right).fold(0.0, f32::max);
    // Wide spaces part a line of justified text.
    let lines = level_rows(column.to_vec());
    let is_long = |line: &&Vec<Block>| {
        let start = line.iter().map(|b| b.left).fold(1.0, f32::min);
        let end = line.iter().map(|b| b.right).fold(0.0, f32::max);
        line.iter().map(|b| b.chars).sum::<usize>() >= PROSE && end - start >= 0.75 * (right - left)
    };
    lines.iter().filter(is_long).count() * 2 >= lines.len()
}

/// Appends the lines from top to bottom, and from left to right those that stand side by side.
fn by_rows(blocks: Vec<Block>, order: &mut Vec<usize>) {
    for mut row in level_rows(blocks) {
        row.sort_by(|a, b| a.left.total_cmp(&b.left).then(a.line.cmp(&b.line)));
        order.extend(row.iter().map(|b| b.line));
    }
}

/// The blocks that stand on one baseline each, from top to bottom.
fn level_rows(mut blocks: Vec<Block>) -> Vec<Vec<Block>> {
    blocks.sort_by(|a, b| a.middle().total_cmp(&b.middle()));
    let mut rows: Vec<Vec<Block>> = Vec::new();
    for block in blocks {
        match rows.last_mut() {
            Some(row) if row.first().is_some_and(|first| block.is_level_with(first)) => row.push(block),
            _ => rows.push(vec![block]),
        }
    }
    rows
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
