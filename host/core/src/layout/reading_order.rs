//! Sorts the lines of a page into reading order by recursive cuts.
//!
//! The method is the XY-cut (Nagy and Seth, "Hierarchical representation of optically scanned documents", 1984) with
//! three changes:
//!
//! - The plain XY-cut cuts at the widest gap, and so splits columns where their paragraph breaks align. Here the page
//!   is first cut into rows. Adjacent rows are joined again as long as one gutter runs through all of them. So a
//!   heading across the page separates the columns above it from those below it. Regions of columns whose baselines
//!   do not match are found before that, in `column_regions.rs`.
//! - Rows of short cells on common baselines are a table and are read row by row.
//! - Headers and footers are separated first. Otherwise a page number could end up in the left column.
//!
//! Malicious boxes cost no more than normal ones: coordinates are clamped to the page, the minimum width of a gutter
//! limits their number, and the depth of the recursion is limited. Each level of the recursion costs one sort.

use super::column_regions::find_column_region_rows;
use super::line_box::{LineBox, median_or_zero};
use super::line_fragments::join_fragments;
use super::writing_systems::is_right_to_left;
use crate::page_text::Line;

/// Minimum width of a gutter as a fraction of the page width: 6 pt on A4, less than any printed gutter and more than
/// a space.
const MIN_GUTTER_WIDTH: f32 = 0.01;
/// Minimum width of a gutter in a region of columns, where many lines show the same gutter.
const MIN_REGION_GUTTER_WIDTH: f32 = 0.0025;
/// Outside of such a region, a gap of fewer character widths with few lines beside it is a wide space in justified
/// text.
const WIDE_SPACE_CHARS: f32 = 4.5;
/// Maximum number of lines that counts as few.
const FEW_LINES: usize = 2;
/// Maximum depth of the recursion. Columns in columns in columns have depth three.
const MAX_CUT_DEPTH: u32 = 8;
/// Height of the header and footer margins as a fraction of the page height.
const MARGIN_HEIGHT: f32 = 0.09;
/// Minimum characters of a line of running text. Most cells of a table are shorter.
const MIN_PROSE_CHARS: usize = 22;

/// Returns the lines in the order in which a person reads them: the header, the columns from left to right, each from
/// top to bottom, headings before their text, tables row by row, and the footer.
///
/// Vertical text in a margin comes before the footer, in its original order. Fragments of one line that are close
/// together on a baseline, as OCR returns them, become one line. Lines whose box is not finite come last. A page that
/// is mostly in a right-to-left script is returned unchanged, because its columns run the other way. The result is
/// deterministic.
pub fn sort_into_reading_order(lines: Vec<Line>) -> Vec<Line> {
    if is_mostly_right_to_left(&lines) {
        return lines;
    }
    let (placed, unplaced): (Vec<Line>, Vec<Line>) = lines.into_iter().partition(|line| {
        let r = &line.rect;
        [r.x, r.y, r.width, r.height].iter().all(|v| v.is_finite())
    });
    let lines = join_fragments(placed);
    let blocks: Vec<LineBox> = lines
        .iter()
        .enumerate()
        .map(|(i, l)| LineBox::from_line(i, l))
        .collect();
    // Vertical text in a margin is beside all other lines, so no rows could be separated.
    let (vertical, horizontal): (Vec<LineBox>, Vec<LineBox>) =
        blocks.into_iter().partition(LineBox::is_vertical_text);
    let [header, body, footer] = split_header_body_footer(horizontal);
    let mut order = Vec::with_capacity(lines.len());
    append_in_reading_order(header, MAX_CUT_DEPTH, &mut order);
    append_in_reading_order(body, MAX_CUT_DEPTH, &mut order);
    order.extend(vertical.iter().map(|b| b.line_index));
    append_in_reading_order(footer, MAX_CUT_DEPTH, &mut order);
    let mut lines: Vec<Option<Line>> = lines.into_iter().map(Some).collect();
    order
        .into_iter()
        .filter_map(|i| lines.get_mut(i).and_then(Option::take))
        .chain(unplaced)
        .collect()
}

/// A horizontal interval, as fractions of the page width.
type HorizontalSpan = (f32, f32);

fn is_mostly_right_to_left(lines: &[Line]) -> bool {
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

/// Returns header, body and footer. A line belongs to the header or footer if it is in the margin and a gap separates
/// it from the body. A page number belongs to the footer even above the margin.
fn split_header_body_footer(mut blocks: Vec<LineBox>) -> [Vec<LineBox>; 3] {
    let gap = 1.3 * median_or_zero(blocks.iter().map(LineBox::height));
    blocks.sort_by(|a, b| a.top.total_cmp(&b.top));
    // The last gap that starts in the upper margin ends the header. The first gap in the lower margin starts the
    // footer.
    let (mut header, mut footer) = (0, blocks.len());
    let mut bottom = 0.0_f32;
    for (i, block) in blocks.iter().enumerate() {
        if i > 0 && block.top - bottom > gap {
            let is_page_number = block.is_number && i + 1 == blocks.len();
            if bottom < MARGIN_HEIGHT {
                header = i;
            } else if (block.top > 1.0 - MARGIN_HEIGHT || is_page_number) && footer == blocks.len() {
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
fn append_in_reading_order(blocks: Vec<LineBox>, depth: u32, order: &mut Vec<usize>) {
    if blocks.len() < 2 || depth == 0 {
        return append_row_by_row(blocks, order);
    }
    for group in group_rows_by_column_region_or_common_gutter(split_into_rows(blocks)) {
        if group.inner_gutters.is_empty() || group.is_table() {
            for row in group.rows {
                append_row_by_row(row, order);
            }
        } else {
            let gutters = group.column_gutters();
            for column in split_into_columns(group.rows.into_iter().flatten(), &gutters) {
                append_in_reading_order(column, depth - 1, order);
            }
        }
    }
}

/// Cuts at every height that no line's middle half crosses. Returns the rows from top to bottom.
fn split_into_rows(mut blocks: Vec<LineBox>) -> Vec<Vec<LineBox>> {
    blocks.sort_by(|a, b| a.vertical_middle_half().0.total_cmp(&b.vertical_middle_half().0));
    let mut rows: Vec<Vec<LineBox>> = Vec::new();
    let mut bottom = f32::MIN;
    for block in blocks {
        let (top, end) = block.vertical_middle_half();
        match rows.last_mut() {
            Some(row) if top < bottom => row.push(block),
            _ => rows.push(vec![block]),
        }
        bottom = bottom.max(end);
    }
    rows
}

/// Adjacent rows with common gutters.
struct RowGroup {
    rows: Vec<Vec<LineBox>>,
    /// Vertical gaps through all rows with lines on both sides.
    inner_gutters: Vec<HorizontalSpan>,
    /// Vertical gaps through all rows, margins included.
    white_spans: Vec<HorizontalSpan>,
    left: f32,
    right: f32,
    /// Whether the group is a region with columns of running text.
    is_region: bool,
}

impl RowGroup {
    /// Creates a group from a region that [`find_column_region_rows`] returned.
    fn from_column_region(rows: Vec<Vec<LineBox>>) -> Self {
        Self {
            is_region: true,
            ..Self::from_rows(rows, MIN_REGION_GUTTER_WIDTH)
        }
    }

    fn from_rows(rows: Vec<Vec<LineBox>>, narrowest: f32) -> Self {
        let white = find_spans_without_boxes(rows.iter().flatten(), narrowest);
        let left = rows.iter().flatten().map(|b| b.left).fold(1.0, f32::min);
        let right = rows.iter().flatten().map(|b| b.right).fold(0.0, f32::max);
        Self {
            rows,
            inner_gutters: select_inner_spans(&white, left, right),
            white_spans: white,
            left,
            right,
            is_region: false,
        }
    }

    /// Merges `next` if a gutter remains and at least one of the two had a gutter. Returns `next` otherwise.
    fn merge_if_common_gutter(&mut self, next: Self) -> Result<(), Self> {
        let white = intersect_spans(&self.white_spans, &next.white_spans);
        let (left, right) = (self.left.min(next.left), self.right.max(next.right));
        let gutters = select_inner_spans(&white, left, right);
        if gutters.is_empty() || (self.inner_gutters.is_empty() && next.inner_gutters.is_empty()) {
            return Err(next);
        }
        *self = Self {
            rows: std::mem::take(&mut self.rows),
            inner_gutters: gutters,
            white_spans: white,
            left,
            right,
            is_region: false,
        };
        self.rows.extend(next.rows);
        Ok(())
    }

    /// Returns whether the columns form a table: at most one of them is running text, and most cells of the others
    /// have a neighbor on their baseline. Lines of two text columns share a baseline by chance, too.
    fn is_table(&self) -> bool {
        let (rows, gutters) = (&self.rows, &self.inner_gutters);
        let columns = split_into_columns(rows.iter().flatten().copied(), gutters);
        let prose: Vec<bool> = columns.iter().map(|c| is_prose_column(c)).collect();
        let cells = (0..columns.len()).filter(|c| prose.get(*c) == Some(&false));
        let (sharing, all) = count_boxes_sharing_baseline(rows, gutters, cells, |own, other| own != other);
        let share = if self.is_region { 85 } else { 70 };
        prose.iter().filter(|p| **p).count() <= 1 && sharing * 100 >= all * share
    }

    /// Returns the gutters that separate columns. Gaps after bullets and numbers, gaps between table cells and wide
    /// spaces are left out.
    fn column_gutters(&self) -> Vec<HorizontalSpan> {
        let (rows, gutters) = (&self.rows, &self.inner_gutters);
        let columns = split_into_columns(rows.iter().flatten().copied(), gutters);
        let prose: Vec<bool> = columns.iter().map(|c| is_prose_column(c)).collect();
        let is_part = |column: usize, of: usize| {
            let (sharing, all) =
                count_boxes_sharing_baseline(rows, gutters, [column].into_iter(), |_, other| other == of);
            prose.get(column) == Some(&false) && sharing * 10 >= all * 7
        };
        let parts = |left: usize| is_part(left, left + 1) || is_part(left + 1, left);
        let widths = rows
            .iter()
            .flatten()
            .map(|b| (b.right - b.left) / b.char_count.max(1) as f32);
        let narrowest = if self.is_region {
            0.0
        } else {
            WIDE_SPACE_CHARS * median_or_zero(widths)
        };
        let lines = |column: usize| columns.get(column).map_or(0, Vec::len);
        let is_space = |left: usize, gutter: &HorizontalSpan| {
            gutter.1 - gutter.0 < narrowest && lines(left).min(lines(left + 1)) <= FEW_LINES
        };
        gutters
            .iter()
            .enumerate()
            .filter(|(i, gutter)| !is_space(*i, gutter) && !parts(*i))
            .map(|(_, gutter)| *gutter)
            .collect()
    }
}

/// Groups the rows: each region of columns is a group, and the rows between regions are grouped by their common
/// gutters.
fn group_rows_by_column_region_or_common_gutter(rows: Vec<Vec<LineBox>>) -> Vec<RowGroup> {
    let mut groups: Vec<RowGroup> = Vec::new();
    let regions = find_column_region_rows(&rows);
    let mut rows = rows.into_iter();
    let mut at = 0;
    for region in regions {
        groups.extend(group_rows_by_common_gutter(rows.by_ref().take(region.start - at)));
        at = region.end;
        let columns = rows.by_ref().take(region.len()).collect();
        groups.push(RowGroup::from_column_region(columns));
    }
    groups.extend(group_rows_by_common_gutter(rows));
    groups
}

/// Groups adjacent rows as long as one gutter runs through all of them.
fn group_rows_by_common_gutter(rows: impl Iterator<Item = Vec<LineBox>>) -> Vec<RowGroup> {
    let mut groups: Vec<RowGroup> = Vec::new();
    for row in rows {
        let row = RowGroup::from_rows(vec![row], MIN_GUTTER_WIDTH);
        match groups.last_mut() {
            Some(group) => {
                if let Err(row) = group.merge_if_common_gutter(row) {
                    groups.push(row);
                }
            }
            None => groups.push(row),
        }
    }
    groups
}

/// Returns the gaps without boxes, from the left edge of the page to the right, that are at least `narrowest` wide.
fn find_spans_without_boxes<'a>(
    blocks: impl Iterator<Item = &'a LineBox>,
    narrowest: f32,
) -> Vec<HorizontalSpan> {
    let mut spans: Vec<HorizontalSpan> = blocks.map(|b| (b.left, b.right)).collect();
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

/// Returns the gaps that are strictly between `left` and `right`.
fn select_inner_spans(white: &[HorizontalSpan], left: f32, right: f32) -> Vec<HorizontalSpan> {
    let inside = |s: &&HorizontalSpan| s.0 > left && s.1 < right;
    white.iter().filter(inside).copied().collect()
}

/// Returns the intersection of two lists of gaps.
fn intersect_spans(a: &[HorizontalSpan], b: &[HorizontalSpan]) -> Vec<HorizontalSpan> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut spans = Vec::new();
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        let (left, right) = (x.0.max(y.0), x.1.min(y.1));
        if right - left >= MIN_GUTTER_WIDTH {
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

/// Returns the column of a box: the number of gutters to its left.
fn column_index(block: &LineBox, gutters: &[HorizontalSpan]) -> usize {
    gutters.partition_point(|g| g.0 < block.right)
}

fn split_into_columns(
    blocks: impl Iterator<Item = LineBox>,
    gutters: &[HorizontalSpan],
) -> Vec<Vec<LineBox>> {
    let mut columns = vec![Vec::new(); gutters.len() + 1];
    for block in blocks {
        if let Some(column) = columns.get_mut(column_index(&block, gutters)) {
            column.push(block);
        }
    }
    columns
}

/// Counts the boxes in some columns that have another box on their baseline in an accepted column. Returns this count
/// and the number of all boxes in these columns.
fn count_boxes_sharing_baseline(
    rows: &[Vec<LineBox>],
    gutters: &[HorizontalSpan],
    columns: impl Iterator<Item = usize>,
    accepts_columns: impl Fn(usize, usize) -> bool,
) -> (usize, usize) {
    /// Rows with more boxes are searched only up to here, because tables do not have so many columns.
    const MAX_ROW_BOXES: usize = 64;
    let columns: Vec<usize> = columns.collect();
    let (mut sharing, mut all) = (0, 0);
    for row in rows {
        for block in row {
            let own = column_index(block, gutters);
            if columns.binary_search(&own).is_err() {
                continue;
            }
            let is_on_same_baseline =
                |b: &LineBox| accepts_columns(own, column_index(b, gutters)) && b.shares_baseline_with(block);
            all += 1;
            sharing += usize::from(row.iter().take(MAX_ROW_BOXES).any(is_on_same_baseline));
        }
    }
    (sharing, all)
}

/// Returns whether lines are running text: at least half of them are long and nearly as wide as their column.
fn is_prose_column(column: &[LineBox]) -> bool {
    let left = column.iter().map(|b| b.left).fold(1.0, f32::min);
    let right = column.iter().map(|b| b.right).fold(0.0, f32::max);
    // Wide spaces split a line of justified text.
    let lines = split_by_baseline(column.to_vec());
    let is_long = |line: &&Vec<LineBox>| {
        let start = line.iter().map(|b| b.left).fold(1.0, f32::min);
        let end = line.iter().map(|b| b.right).fold(0.0, f32::max);
        line.iter().map(|b| b.char_count).sum::<usize>() >= MIN_PROSE_CHARS
            && end - start >= 0.75 * (right - left)
    };
    lines.iter().filter(is_long).count() * 2 >= lines.len()
}

/// Appends lines from top to bottom, and lines on one baseline from left to right.
fn append_row_by_row(blocks: Vec<LineBox>, order: &mut Vec<usize>) {
    for mut row in split_by_baseline(blocks) {
        row.sort_by(|a, b| a.left.total_cmp(&b.left).then(a.line_index.cmp(&b.line_index)));
        order.extend(row.iter().map(|b| b.line_index));
    }
}

/// Groups the boxes by baseline, from top to bottom.
fn split_by_baseline(mut blocks: Vec<LineBox>) -> Vec<Vec<LineBox>> {
    blocks.sort_by(|a, b| a.vertical_center().total_cmp(&b.vertical_center()));
    let mut rows: Vec<Vec<LineBox>> = Vec::new();
    for block in blocks {
        match rows.last_mut() {
            Some(row) if row.first().is_some_and(|first| block.shares_baseline_with(first)) => {
                row.push(block)
            }
            _ => rows.push(vec![block]),
        }
    }
    rows
}

#[cfg(test)]
#[path = "reading_order_tests.rs"]
mod tests;
