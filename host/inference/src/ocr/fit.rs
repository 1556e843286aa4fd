//! How high a line really is. The detector's boxes are loose where text is dense and small: their height follows the
//! surroundings as much as the type. The recognizer sees every line at the same height, so a loose box means small letters
//! and lost dots, and the height says little about the size of the type. The ink says both.

use super::boxes::TextBox;
use super::picture::Picture;

/// Samples along a line.
const SAMPLES: usize = 512;

/// Share of the strongest row's contrast from which a row belongs to the line: enough for the few strokes that rise or
/// hang, too much for grain.
const STROKES: f32 = 0.1;

/// Room around the ink: a share of the ink's height, and pixels for the blur of a scan. The recognizer's time is in the
/// length of lines, which it wants equally high: between shares of 1.15 and 1.35 it falls by a tenth and errors stay.
const ROOM: (f32, f32) = (1.3, 5.0);

/// Rows of ink in a box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct InkRows {
    /// From the middle of the box to the middle of the ink, downwards, pixels.
    offset: f32,
    /// Height of the ink, pixels.
    pub(crate) height: f32,
}

/// The rows around the middle of a box that hold its line. Contrast along each row tells, whatever is dark and whatever is
/// light; lines above and below that reach into the box are left out where a blank row parts them.
pub(crate) fn ink_rows(picture: &Picture, line: &TextBox) -> Option<InkRows> {
    let contrasts = contrasts(picture, line);
    let least = contrasts.iter().copied().fold(f32::INFINITY, f32::min);
    let (middle, most) = contrasts
        .iter()
        .copied()
        .enumerate()
        .skip(contrasts.len() / 4)
        .take(contrasts.len().div_ceil(2))
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    let is_blank = |contrast: &f32| *contrast <= least + STROKES * (most - least);
    let (above, below) = contrasts.split_at_checked(middle)?;
    let top = above.iter().rposition(is_blank).map_or(0, |blank| blank + 1);
    let bottom = below
        .iter()
        .position(is_blank)
        .map_or(contrasts.len(), |blank| middle + blank);
    (bottom > top).then(|| InkRows {
        offset: (top + bottom) as f32 / 2.0 - contrasts.len() as f32 / 2.0,
        height: (bottom - top) as f32,
    })
}

/// The box, no higher than its ink needs.
pub(crate) fn fitted(line: &TextBox, ink: &InkRows) -> TextBox {
    let height = ink.height.mul_add(ROOM.0, ROOM.1);
    if height >= line.height {
        return *line;
    }
    let slack = (line.height - height) / 2.0;
    let offset = ink.offset.clamp(-slack, slack);
    let (_, [vx, vy]) = line.axes();
    TextBox {
        x: line.x + offset * vx,
        y: line.y + offset * vy,
        height,
        ..*line
    }
}

/// Variance of brightness along each row of pixels of a box, from its top.
fn contrasts(picture: &Picture, line: &TextBox) -> Vec<f32> {
    let ([ux, uy], [vx, vy]) = line.axes();
    let [left, top] = line.corners()[0];
    let step = (line.width / SAMPLES as f32).max(1.0);
    let count = (line.width / step) as usize;
    (0..line.height.round() as usize)
        .map(|row| {
            let v = row as f32 + 0.5;
            let (mut sum, mut squares) = (0.0, 0.0);
            for n in 0..count {
                let u = (n as f32 + 0.5) * step;
                let value = picture.nearest(left + u * ux + v * vx, top + u * uy + v * vy);
                sum += value;
                squares += value * value;
            }
            let mean = sum / count.max(1) as f32;
            (squares / count.max(1) as f32 - mean * mean).max(0.0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Lines of stripes at these heights, on grainy paper.
    fn page(rows: &[std::ops::Range<usize>]) -> Picture {
        let mut pixels: Vec<u8> = (0..400u32 * 100)
            .map(|n| 220 + (n.wrapping_mul(2_654_435_761) >> 28) as u8)
            .collect();
        for y in rows.iter().cloned().flatten() {
            for x in (40..360).filter(|x| x % 6 < 2) {
                pixels[y * 400 + x] = 30;
            }
        }
        Picture {
            width: 400,
            height: 100,
            channels: 1,
            stride: 400,
            pixels: Arc::new(pixels),
        }
    }

    const LOOSE: TextBox = TextBox {
        x: 200.0,
        y: 50.0,
        width: 330.0,
        height: 34.0,
        angle: 0.0,
    };

    #[test]
    fn a_loose_box_closes_around_its_line_and_leaves_its_neighbours_out() {
        let picture = page(&[26..36, 42..52, 58..68]);
        let ink = ink_rows(&picture, &LOOSE).unwrap();
        assert_eq!((ink.offset, ink.height), (-3.0, 10.0));
        let fit = fitted(&LOOSE, &ink);
        assert!(
            (fit.y - 47.0).abs() < 0.01 && (fit.height - 18.0).abs() < 0.01,
            "{fit:?}"
        );
        assert_eq!((fit.x, fit.width), (LOOSE.x, LOOSE.width));
    }

    #[test]
    fn a_tight_box_stays_as_it_is() {
        let picture = page(std::slice::from_ref(&(34..66)));
        let ink = ink_rows(&picture, &LOOSE).unwrap();
        assert_eq!(ink.height, 32.0);
        assert_eq!(fitted(&LOOSE, &ink), LOOSE);
    }

    #[test]
    fn a_box_of_nothing_has_no_ink() {
        let flat = TextBox { height: 0.0, ..LOOSE };
        assert_eq!(ink_rows(&page(&[]), &flat), None);
    }
}
