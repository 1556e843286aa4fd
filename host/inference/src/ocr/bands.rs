//! A page in bands. The detector's working memory is some 200 bytes for each pixel it looks at, 300 MB for a page at
//! 150 dpi, and it needs to see a line and its surroundings, not the page. So it is given one band after the other, cut
//! where the paper is blank if it is; blank strips and margins are not looked at at all.
//!
//! Where nothing is blank (a turned scan, a picture, a ruled table) bands overlap by more than a line is high. A line that
//! is cut in one band is whole in the next, and of two boxes in the same place the larger is the whole one.

use super::boxes::TextBox;
use super::picture::{Ink, Region};

/// Height of a band, pixels of the detector's input.
const HEIGHT: f32 = 320.0;

/// Overlap of bands without a blank strip between them, pixels of the detector's input: the largest type that is read
/// whole across a cut, or the rise of a line from one side of the page to the other.
const OVERLAP: f32 = 112.0;

/// The bands of a page that will be looked at at `scale`, with ink in each.
pub(crate) fn of(ink: &Ink, page_height: usize, scale: f32) -> Vec<Region> {
    let (height, overlap) = ((HEIGHT / scale) as usize, (OVERLAP / scale) as usize);
    let mut bands = Vec::new();
    let mut from = 0;
    while let Some(rest) = ink.within(from, page_height) {
        from = rest.y;
        // A last band slightly too high costs less than one more.
        if rest.height <= height + height / 4 {
            bands.push(rest);
            break;
        }
        let gap = ink.gap(from + height / 2, from + height);
        bands.extend(ink.within(from, gap.unwrap_or(from + height)));
        from = gap.unwrap_or(from + height - overlap);
    }
    bands
}

/// Leaves one of the boxes that two bands found of the same line.
pub(crate) fn without_doubles(mut boxes: Vec<TextBox>) -> Vec<TextBox> {
    boxes.sort_by(|a, b| (b.width * b.height).total_cmp(&(a.width * a.height)));
    let mut kept: Vec<TextBox> = Vec::with_capacity(boxes.len());
    for one in boxes {
        if !kept.iter().any(|whole| covers(whole, &one)) {
            kept.push(one);
        }
    }
    kept
}

/// Whether the middle line of `part` lies inside `whole`.
fn covers(whole: &TextBox, part: &TextBox) -> bool {
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
    use crate::ocr::picture::Picture;

    /// A page 100 wide with ink, from 32 to 68, in these rows.
    fn ink(height: usize, rows: &[std::ops::Range<usize>]) -> Ink {
        let mut pixels = vec![255u8; 100 * height];
        for y in rows.iter().cloned().flatten() {
            pixels[y * 100 + 32..y * 100 + 68].fill(0);
        }
        Picture {
            width: 100,
            height,
            channels: 1,
            stride: 100,
            pixels: Arc::new(pixels),
        }
        .ink()
    }

    #[test]
    fn cuts_go_through_blank_strips_and_blank_parts_are_left_out() {
        let lines: Vec<_> = (0..40).map(|n| 40 + n * 24..56 + n * 24).collect();
        let mut rows = lines.clone();
        rows.push(1500..1516);
        let bands = of(&ink(1800, &rows), 1800, 1.0);
        for line in &rows {
            let inside = |b: &&Region| b.y <= line.start && b.y + b.height >= line.end;
            assert_eq!(bands.iter().filter(inside).count(), 1, "{line:?} {bands:?}");
        }
        assert!(
            bands
                .iter()
                .all(|b| b.height <= 400 && (b.x, b.width) == (32, 36)),
            "{bands:?}"
        );
        assert_eq!(bands.last().map(|b| (b.y, b.height)), Some((1500, 16)));
        assert!(of(&ink(300, &[]), 300, 1.0).is_empty());
    }

    #[test]
    fn without_a_blank_strip_bands_overlap_and_cover_everything() {
        for scale in [1.0, 0.5, 2.0] {
            let bands = of(&ink(3000, std::slice::from_ref(&(100..2900))), 3000, scale);
            assert_eq!(
                (bands[0].y, bands.last().map(|b| b.y + b.height)),
                (100, Some(2900))
            );
            for pair in bands.windows(2) {
                let common = pair[0].y + pair[0].height - pair[1].y;
                assert!(
                    (common as f32 * scale - OVERLAP).abs() <= 4.0 * scale,
                    "{bands:?}"
                );
            }
        }
    }

    #[test]
    fn of_a_line_found_twice_the_whole_one_stays() {
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
        let kept = without_doubles(vec![cut, whole, next, beside, whole]);
        assert_eq!(kept, [whole, next, beside]);
    }
}
