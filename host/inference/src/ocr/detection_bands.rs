//! Splits a page into horizontal bands for text detection.
//!
//! The detector needs about 200 bytes of working memory for each input pixel, which is 200 MB for a page at 120 dpi. It needs
//! to see a line and its surroundings, but not the whole page. It therefore gets one band after the other. Bands are cut at
//! blank strips if there are any; blank strips and margins are skipped.
//!
//! Without a blank strip (a rotated scan, a picture, a ruled table), bands overlap by more than the height of a line. A line
//! that is cut in one band is complete in the next. Of two boxes at the same place the larger one is the complete line.

use super::ocr_image::{ForegroundMask, PixelRegion};
use super::text_boxes::TextBox;

/// Height of a band in pixels of the detector's input: about ten lines. Lower bands need proportionally less memory, but more of
/// their pixels are margin.
const BAND_HEIGHT: f32 = 256.0;

/// Overlap of bands without a blank strip between them, in pixels of the detector's input. It covers the largest type that is
/// read across a cut, and the rise of a line from one side of the page to the other.
const BAND_OVERLAP: f32 = 112.0;

/// Splits a page into the bands that contain foreground, for detection at `scale`.
pub(crate) fn split_into_foreground_bands(
    mask: &ForegroundMask,
    page_height: usize,
    scale: f32,
) -> Vec<PixelRegion> {
    let (height, overlap) = ((BAND_HEIGHT / scale) as usize, (BAND_OVERLAP / scale) as usize);
    let mut bands = Vec::new();
    let mut from = 0;
    while let Some(rest) = mask.foreground_bounds_in_rows(from, page_height) {
        from = rest.y;
        // A last band that is slightly too high costs less than an additional band.
        if rest.height <= height + height / 4 {
            bands.push(rest);
            break;
        }
        let gap = mask.middle_of_tallest_blank_strip(from + height / 2, from + height);
        bands.extend(mask.foreground_bounds_in_rows(from, gap.unwrap_or(from + height)));
        from = gap.unwrap_or(from + height - overlap);
    }
    bands
}

/// Keeps one of the boxes that two bands detected for the same line.
pub(crate) fn remove_duplicate_boxes(mut boxes: Vec<TextBox>) -> Vec<TextBox> {
    boxes.sort_by(|a, b| (b.width * b.height).total_cmp(&(a.width * a.height)));
    let mut unique_boxes: Vec<TextBox> = Vec::with_capacity(boxes.len());
    for candidate in boxes {
        if !unique_boxes
            .iter()
            .any(|whole| box_contains_center_line_of(whole, &candidate))
        {
            unique_boxes.push(candidate);
        }
    }
    unique_boxes
}

/// Returns whether the middle line of `part` lies inside `whole`.
fn box_contains_center_line_of(whole: &TextBox, part: &TextBox) -> bool {
    let ([ux, uy], [vx, vy]) = whole.axes();
    let ([px, py], _) = part.axes();
    [-0.4f32, 0.0, 0.4].into_iter().all(|share| {
        let x = part.x + share * part.width * px - whole.x;
        let y = part.y + share * part.width * py - whole.y;
        (x * ux + y * uy).abs() <= whole.width / 2.0 && (x * vx + y * vy).abs() <= whole.height / 2.0
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ocr::ocr_image::OcrImage;

    /// The foreground mask of a page 100 pixels wide that is black from 32 to 68 in these rows.
    fn mask_with_foreground_rows(height: usize, rows: &[std::ops::Range<usize>]) -> ForegroundMask {
        let mut pixels = vec![255u8; 100 * height];
        for y in rows.iter().cloned().flatten() {
            pixels[y * 100 + 32..y * 100 + 68].fill(0);
        }
        OcrImage {
            width: 100,
            height,
            channels: 1,
            stride: 100,
            pixels: Arc::new(pixels),
        }
        .foreground_mask()
    }

    #[test]
    fn bands_are_cut_at_blank_strips_and_skip_blank_parts() {
        let lines: Vec<_> = (0..40).map(|n| 40 + n * 24..56 + n * 24).collect();
        let mut rows = lines.clone();
        rows.push(1500..1516);
        let bands = split_into_foreground_bands(&mask_with_foreground_rows(1800, &rows), 1800, 1.0);
        for line in &rows {
            let inside = |b: &&PixelRegion| b.y <= line.start && b.y + b.height >= line.end;
            assert_eq!(bands.iter().filter(inside).count(), 1, "{line:?} {bands:?}");
        }
        assert!(
            bands
                .iter()
                .all(|b| b.height <= 400 && (b.x, b.width) == (32, 36)),
            "{bands:?}"
        );
        assert_eq!(bands.last().map(|b| (b.y, b.height)), Some((1500, 16)));
        assert!(split_into_foreground_bands(&mask_with_foreground_rows(300, &[]), 300, 1.0).is_empty());
    }

    #[test]
    fn bands_without_a_blank_strip_overlap_and_cover_the_page() {
        for scale in [1.0, 0.5, 2.0] {
            let bands = split_into_foreground_bands(
                &mask_with_foreground_rows(3000, std::slice::from_ref(&(100..2900))),
                3000,
                scale,
            );
            assert_eq!(
                (bands[0].y, bands.last().map(|b| b.y + b.height)),
                (100, Some(2900))
            );
            for pair in bands.windows(2) {
                let common = pair[0].y + pair[0].height - pair[1].y;
                assert!(
                    (common as f32 * scale - BAND_OVERLAP).abs() <= 4.0 * scale,
                    "{bands:?}"
                );
            }
        }
    }

    #[test]
    fn duplicate_detection_keeps_the_larger_box() {
        let whole = TextBox {
            x: 100.0,
            y: 50.0,
            width: 180.0,
            height: 20.0,
            angle: 0.01,
        };
        let cut = TextBox {
            x: 60.0,
            width: 90.0,
            height: 12.0,
            ..whole
        };
        let next = TextBox { y: 74.0, ..whole };
        let beside = TextBox {
            x: 250.0,
            width: 100.0,
            ..whole
        };
        let unique_boxes = remove_duplicate_boxes(vec![cut, whole, next, beside, whole]);
        assert_eq!(unique_boxes, [whole, next, beside]);
    }
}
