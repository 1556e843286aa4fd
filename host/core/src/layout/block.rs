//! What ordering needs of a line: its box, clamped to the page, and its length.

use crate::text::Line;

/// What ordering needs of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) line: usize,
    pub(super) left: f32,
    pub(super) right: f32,
    pub(super) top: f32,
    pub(super) bottom: f32,
    pub(super) chars: usize,
    /// Whether it is a number, as a page's is.
    pub(super) is_number: bool,
}

impl Block {
    pub(super) fn of(line: usize, of: &Line) -> Self {
        let (left, top) = (of.rect.x.clamp(0.0, 1.0), of.rect.y.clamp(0.0, 1.0));
        Self {
            line,
            left,
            right: of.rect.right().clamp(left, 1.0),
            top,
            bottom: of.rect.bottom().clamp(top, 1.0),
            chars: of.text.chars().count(),
            is_number: of.text.len() <= 8
                && of.text.contains(|c: char| c.is_ascii_digit())
                && !of.text.contains(char::is_alphabetic),
        }
    }

    pub(super) fn middle(&self) -> f32 {
        f32::midpoint(self.top, self.bottom)
    }

    pub(super) fn height(&self) -> f32 {
        self.bottom - self.top
    }

    pub(super) fn is_upright(&self) -> bool {
        self.chars > 1 && self.height() > 3.0 * (self.right - self.left)
    }

    /// Whether both stand on one baseline, as near as boxes tell: that of a bullet is a fraction of its line's height.
    pub(super) fn is_level_with(&self, other: &Self) -> bool {
        (self.middle() - other.middle()).abs() <= 0.3 * self.height().max(other.height())
    }

    /// The middle half of its height. Boxes of neighbouring lines touch or overlap (ascenders, OCR's padding, a slight
    /// skew), their middles do not.
    pub(super) fn core(&self) -> (f32, f32) {
        let quarter = self.height() / 4.0;
        (self.top + quarter, self.bottom - quarter)
    }
}

pub(super) fn median(values: impl Iterator<Item = f32>) -> f32 {
    let mut values: Vec<f32> = values.collect();
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
