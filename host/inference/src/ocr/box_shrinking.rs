//! Shrinks the box of a text line to the foreground in it.
//!
//! The detector's boxes are loose where text is dense and small: their height depends on the surroundings as much as on the
//! type. The recognizer scales every line to the same height. A loose box thus leads to small letters and lost dots, and its
//! height is a poor measure of the font size. The height of the foreground solves both.

use super::ocr_image::OcrImage;
use super::text_boxes::TextBox;

/// Number of samples along each row.
const SAMPLES_PER_ROW: usize = 512;

/// A row belongs to the line if it has at least this share of the strongest row's contrast. The share is low enough for the few
/// strokes that ascend or descend, and too high for the noise of a scan.
const MIN_ROW_CONTRAST_SHARE: f32 = 0.1;

/// Padding around the foreground: a factor on its height, and pixels for the blur of a scan. A lower factor makes the scaled line
/// longer, and the recognizer's time grows with that length. From a factor of 1.15 to 1.35, the time falls by a tenth and the
/// errors stay the same.
const FOREGROUND_PADDING: (f32, f32) = (1.3, 5.0);

/// The rows of a box that contain foreground.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ForegroundRowSpan {
    /// Distance from the center of the box to the center of the foreground, downward, in pixels.
    offset: f32,
    /// Height of the foreground in pixels.
    pub(crate) height: f32,
}

/// Finds the rows around the center of a box that contain its line. The contrast along each row decides, so dark and light
/// paper work alike. Neighboring lines that reach into the box are excluded if a blank row separates them.
pub(crate) fn find_foreground_row_span(image: &OcrImage, line: &TextBox) -> Option<ForegroundRowSpan> {
    let contrasts = row_contrasts(image, line);
    let min_contrast = contrasts.iter().copied().fold(f32::INFINITY, f32::min);
    let (middle, max_contrast) = contrasts
        .iter()
        .copied()
        .enumerate()
        .skip(contrasts.len() / 4)
        .take(contrasts.len().div_ceil(2))
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    let is_blank =
        |contrast: &f32| *contrast <= min_contrast + MIN_ROW_CONTRAST_SHARE * (max_contrast - min_contrast);
    let (above, below) = contrasts.split_at_checked(middle)?;
    let top = above.iter().rposition(is_blank).map_or(0, |blank| blank + 1);
    let bottom = below
        .iter()
        .position(is_blank)
        .map_or(contrasts.len(), |blank| middle + blank);
    (bottom > top).then(|| ForegroundRowSpan {
        offset: (top + bottom) as f32 / 2.0 - contrasts.len() as f32 / 2.0,
        height: (bottom - top) as f32,
    })
}

/// Returns the box, no higher than its foreground requires.
pub(crate) fn shrink_box_to_foreground(line: &TextBox, foreground: &ForegroundRowSpan) -> TextBox {
    let height = foreground
        .height
        .mul_add(FOREGROUND_PADDING.0, FOREGROUND_PADDING.1);
    if height >= line.height {
        return *line;
    }
    let slack = (line.height - height) / 2.0;
    let offset = foreground.offset.clamp(-slack, slack);
    let (_, [vx, vy]) = line.axes();
    TextBox {
        x: line.x + offset * vx,
        y: line.y + offset * vy,
        height,
        ..*line
    }
}

/// Returns the variance of brightness along each pixel row of a box, from its top.
fn row_contrasts(image: &OcrImage, line: &TextBox) -> Vec<f32> {
    let ([ux, uy], [vx, vy]) = line.axes();
    let [left, top] = line.corners()[0];
    let step = (line.width / SAMPLES_PER_ROW as f32).max(1.0);
    let count = (line.width / step) as usize;
    (0..line.height.round() as usize)
        .map(|row| {
            let v = row as f32 + 0.5;
            let (mut sum, mut squares) = (0.0, 0.0);
            for n in 0..count {
                let u = (n as f32 + 0.5) * step;
                let value = image.brightness_at_nearest_pixel(left + u * ux + v * vx, top + u * uy + v * vy);
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

    /// An image with noise and striped lines in these rows.
    fn image_with_striped_lines(rows: &[std::ops::Range<usize>]) -> OcrImage {
        let mut pixels: Vec<u8> = (0..400u32 * 100)
            .map(|n| 220 + (n.wrapping_mul(2_654_435_761) >> 28) as u8)
            .collect();
        for y in rows.iter().cloned().flatten() {
            for x in (40..360).filter(|x| x % 6 < 2) {
                pixels[y * 400 + x] = 30;
            }
        }
        OcrImage {
            width: 400,
            height: 100,
            channels: 1,
            stride: 400,
            pixels: Arc::new(pixels),
        }
    }

    const LOOSE_BOX: TextBox = TextBox {
        x: 200.0,
        y: 50.0,
        width: 330.0,
        height: 34.0,
        angle: 0.0,
    };

    #[test]
    fn loose_box_shrinks_to_its_line_and_excludes_neighbors() {
        let image = image_with_striped_lines(&[26..36, 42..52, 58..68]);
        let foreground = find_foreground_row_span(&image, &LOOSE_BOX).unwrap();
        assert_eq!((foreground.offset, foreground.height), (-3.0, 10.0));
        let fit = shrink_box_to_foreground(&LOOSE_BOX, &foreground);
        assert!(
            (fit.y - 47.0).abs() < 0.01 && (fit.height - 18.0).abs() < 0.01,
            "{fit:?}"
        );
        assert_eq!((fit.x, fit.width), (LOOSE_BOX.x, LOOSE_BOX.width));
    }

    #[test]
    fn tight_box_is_unchanged() {
        let image = image_with_striped_lines(std::slice::from_ref(&(34..66)));
        let foreground = find_foreground_row_span(&image, &LOOSE_BOX).unwrap();
        assert_eq!(foreground.height, 32.0);
        assert_eq!(shrink_box_to_foreground(&LOOSE_BOX, &foreground), LOOSE_BOX);
    }

    #[test]
    fn box_without_height_has_no_foreground() {
        let flat = TextBox {
            height: 0.0,
            ..LOOSE_BOX
        };
        assert_eq!(
            find_foreground_row_span(&image_with_striped_lines(&[]), &flat),
            None
        );
    }
}
