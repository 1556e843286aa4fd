//! Crops one text line from a page and straightens it. It samples the box directly into the recognizer's input. Rotation and
//! scaling suffice to map a rotated rectangle to an upright one. One pass thus replaces the two of PaddleOCR (a perspective
//! crop at the resolution of the page, then a resize), and each pixel is interpolated only once.

use super::ocr_image::OcrImage;
use super::text_boxes::TextBox;

/// Height of a line in the recognizer's input, in pixels.
pub(crate) const LINE_HEIGHT: usize = 48;

/// Maximum number of samples along each axis of an output pixel. A line that is more than this many times as high as
/// [`LINE_HEIGHT`] loses thin strokes.
const MAX_SAMPLES_PER_AXIS: usize = 8;

/// Fills the planes in `out`, each `LINE_HEIGHT × width`, with values from −1 to 1. Only the first `filled` columns are written.
/// They may extend beyond the right side of the box and then show the pixels of the page there.
pub(crate) fn crop_and_straighten_line(
    image: &OcrImage,
    line: &TextBox,
    columns_per_box: f32,
    (width, filled): (usize, usize),
    out: &mut [f32],
) {
    match image.channels {
        1 => crop_line_of_channel_count::<1>(image, line, columns_per_box, (width, filled), out),
        _ => crop_line_of_channel_count::<3>(image, line, columns_per_box, (width, filled), out),
    }
}

fn crop_line_of_channel_count<const C: usize>(
    image: &OcrImage,
    line: &TextBox,
    columns_per_box: f32,
    (width, filled): (usize, usize),
    out: &mut [f32],
) {
    let ([ux, uy], [vx, vy]) = line.axes();
    let [left, top] = line.corners()[0];
    let across = line.height / LINE_HEIGHT as f32;
    let along = line.width / columns_per_box.max(1.0);
    let samples_per_axis = (across.max(along).round() as usize).clamp(1, MAX_SAMPLES_PER_AXIS);
    let share = 1.0 / (samples_per_axis * samples_per_axis) as f32;
    let mut planes = out.chunks_exact_mut(LINE_HEIGHT * width);
    let (first, second, third) = (planes.next(), planes.next(), planes.next());
    let mut planes = [first, second, third].map(|p| p.unwrap_or_default().chunks_exact_mut(width));
    let mut row = vec![[0f32; C]; filled];
    for j in 0..LINE_HEIGHT {
        row.fill([0.0; C]);
        for fine_j in 0..samples_per_axis {
            let v = (j as f32 + (fine_j as f32 + 0.5) / samples_per_axis as f32) * across;
            for fine_i in 0..samples_per_axis {
                let u = (fine_i as f32 + 0.5) / samples_per_axis as f32 * along;
                // Coordinates are those of pixel edges, but a pixel's value is that of its center; hence half a pixel less.
                let x = left + u * ux + v * vx - 0.5;
                let y = top + u * uy + v * vy - 0.5;
                add_bilinear_samples_to_row(image, (x, y), (along * ux, along * uy), &mut row);
            }
        }
        for (channel, plane) in planes.iter_mut().enumerate() {
            let Some(target) = plane.next() else { continue };
            for (value, sums) in target.iter_mut().zip(&row) {
                let sum = sums.get(channel).or(sums.first()).copied().unwrap_or_default();
                *value = sum * share / 127.5 - 1.0;
            }
        }
    }
}

/// Adds the bilinear sample at `start + n × step` to each element of `row`; outside the image the edge pixels repeat.
fn add_bilinear_samples_to_row<const C: usize>(
    image: &OcrImage,
    start: (f32, f32),
    step: (f32, f32),
    row: &mut [[f32; C]],
) {
    let (stride, pixels) = (image.stride, image.pixels.as_bytes());
    let (last_x, last_y) = ((image.width - 1) as f32, (image.height - 1) as f32);
    for (n, sums) in row.iter_mut().enumerate() {
        let x = (n as f32).mul_add(step.0, start.0).clamp(0.0, last_x);
        let y = (n as f32).mul_add(step.1, start.1).clamp(0.0, last_y);
        // The last row and column are reached from the one before, so that there are always four neighbors.
        let (x0, y0) = (
            x.min(last_x - 1.0).max(0.0) as usize,
            y.min(last_y - 1.0).max(0.0) as usize,
        );
        let (fx, fy) = (x - x0 as f32, y - y0 as f32);
        let at = y0 * stride + x0 * C;
        let right = if last_x >= 1.0 { C } else { 0 };
        let below = if last_y >= 1.0 { stride } else { 0 };
        let upper = pixels.get(at..at + right + C).unwrap_or_default();
        let lower = pixels.get(at + below..at + below + right + C).unwrap_or_default();
        for (channel, sum) in sums.iter_mut().enumerate() {
            let pick = |row: &[u8], at: usize| row.get(at).copied().map_or(255.0, f32::from);
            let a = pick(upper, channel);
            let b = pick(upper, channel + right);
            let c = pick(lower, channel);
            let d = pick(lower, channel + right);
            let top = (b - a).mul_add(fx, a);
            let bottom = (d - c).mul_add(fx, c);
            *sum += (bottom - top).mul_add(fy, top);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn image_from_shading(width: usize, height: usize, shade: impl Fn(f32, f32) -> f32) -> OcrImage {
        let pixels: Vec<u8> = (0..width * height)
            .map(|n| shade((n % width) as f32 + 0.5, (n / width) as f32 + 0.5) as u8)
            .collect();
        OcrImage {
            width,
            height,
            channels: 1,
            stride: width,
            pixels: Arc::new(pixels),
        }
    }

    /// A line that is dark along its first half and light along its second.
    fn half_dark_line_shading(line: TextBox) -> impl Fn(f32, f32) -> f32 {
        let ([ux, uy], [vx, vy]) = line.axes();
        move |x, y| {
            let (x, y) = (x - line.x, y - line.y);
            let (u, v) = (x * ux + y * uy, x * vx + y * vy);
            if v.abs() <= line.height / 2.0 && u.abs() <= line.width / 2.0 && u < 0.0 {
                0.0
            } else {
                255.0
            }
        }
    }

    #[test]
    fn rotated_box_is_straightened() {
        for degrees in [0.0f32, 2.0, -10.0, 90.0, 180.0] {
            let line = TextBox {
                x: 150.0,
                y: 150.0,
                width: 200.0,
                height: 40.0,
                angle: degrees.to_radians(),
            };
            let mut out = vec![9.0; 3 * LINE_HEIGHT * 240];
            crop_and_straighten_line(
                &image_from_shading(300, 300, half_dark_line_shading(line)),
                &line,
                240.0,
                (240, 240),
                &mut out,
            );
            for row in out.chunks(240).take(LINE_HEIGHT).skip(3).take(LINE_HEIGHT - 6) {
                assert!(row[4..116].iter().all(|v| *v < -0.95), "{degrees}");
                assert!(row[124..236].iter().all(|v| *v > 0.95), "{degrees}");
            }
            assert!(out.iter().all(|v| v.abs() < 1.0001));
        }
    }

    #[test]
    fn tall_line_is_downscaled_by_averaging() {
        // Stripes one pixel wide, and a line eight times as high as the output.
        let stripes = image_from_shading(500, 500, |x, _| {
            if (x as usize).is_multiple_of(2) {
                0.0
            } else {
                255.0
            }
        });
        let line = TextBox {
            x: 250.0,
            y: 250.0,
            width: 400.0,
            height: 384.0,
            angle: 0.0,
        };
        let mut out = vec![0.0; 3 * LINE_HEIGHT * 50];
        crop_and_straighten_line(&stripes, &line, 50.0, (50, 50), &mut out);
        assert!(out.iter().all(|v| v.abs() < 0.2));
    }

    #[test]
    fn box_beyond_the_page_repeats_edge_pixels() {
        let line = TextBox {
            x: 0.0,
            y: 0.0,
            width: 90.0,
            height: 48.0,
            angle: 0.0,
        };
        for (width, height) in [(10, 10), (1, 1), (1, 10), (10, 1)] {
            let mut out = vec![9.0; 3 * LINE_HEIGHT * 96];
            crop_and_straighten_line(
                &image_from_shading(width, height, |_, _| 102.0),
                &line,
                90.0,
                (96, 90),
                &mut out,
            );
            for row in out.chunks(96) {
                assert!(row[..90].iter().all(|v| (*v + 0.2).abs() < 1e-5));
                assert!(row[90..].iter().all(|v| *v == 9.0));
            }
        }
    }
}
