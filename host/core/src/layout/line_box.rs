//! The box of a line, clamped to the page, with the facts that the reading order needs.

use crate::page_text::Line;

#[derive(Debug, Clone, Copy)]
pub(super) struct LineBox {
    pub(super) line_index: usize,
    pub(super) left: f32,
    pub(super) right: f32,
    pub(super) top: f32,
    pub(super) bottom: f32,
    pub(super) char_count: usize,
    /// Whether the text is a number, such as a page number.
    pub(super) is_number: bool,
}

impl LineBox {
    pub(super) fn from_line(line: usize, of: &Line) -> Self {
        let (left, top) = (of.rect.x.clamp(0.0, 1.0), of.rect.y.clamp(0.0, 1.0));
        Self {
            line_index: line,
            left,
            right: of.rect.right().clamp(left, 1.0),
            top,
            bottom: of.rect.bottom().clamp(top, 1.0),
            char_count: of.text.chars().count(),
            is_number: of.text.len() <= 8
                && of.text.contains(|c: char| c.is_ascii_digit())
                && !of.text.contains(char::is_alphabetic),
        }
    }

    pub(super) fn vertical_center(&self) -> f32 {
        f32::midpoint(self.top, self.bottom)
    }

    pub(super) fn height(&self) -> f32 {
        self.bottom - self.top
    }

    pub(super) fn is_vertical_text(&self) -> bool {
        self.char_count > 1 && self.height() > 3.0 * (self.right - self.left)
    }

    /// Returns whether both are on one baseline, as far as boxes show it. The tolerance is a fraction of the taller
    /// box, because the box of a bullet is much smaller than its line.
    pub(super) fn shares_baseline_with(&self, other: &Self) -> bool {
        (self.vertical_center() - other.vertical_center()).abs() <= 0.3 * self.height().max(other.height())
    }

    /// Returns the middle half of its height. Boxes of adjacent lines touch or overlap (ascenders, padding of OCR, a
    /// slight skew), but their middles do not.
    pub(super) fn vertical_middle_half(&self) -> (f32, f32) {
        let quarter = self.height() / 4.0;
        (self.top + quarter, self.bottom - quarter)
    }
}

pub(super) fn median_or_zero(values: impl Iterator<Item = f32>) -> f32 {
    let mut values: Vec<f32> = values.collect();
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
