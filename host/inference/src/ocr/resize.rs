//! Scaling a part of a picture into a model's input, planar and normalized.
//!
//! The filter is a triangle as wide as the larger of the two pixel grids: bilinear when it enlarges, and free of aliasing
//! when it shrinks, where plain bilinear would step over thin strokes.

use super::picture::{Picture, Region};

/// A model's input: where in it the region stands, and what is around it.
pub(crate) struct Canvas {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Pixels of the canvas left of and above the region.
    pub(crate) margin: usize,
    /// What is outside the region, 0 to 255.
    pub(crate) paper: u8,
}

/// The weights with which one output pixel is made, for consecutive source pixels from `first`.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

/// Taps for the output pixels of `length` source pixels from `from`, at `scale` output pixels for each; none reaches
/// outside.
fn taps(from: usize, length: usize, scale: f32, most: usize) -> Vec<Taps> {
    let support = (1.0 / scale).max(1.0);
    let (first_pixel, last_pixel) = (from as f32, (from + length.max(1) - 1) as f32);
    let outputs = ((length as f32 * scale).round() as usize).min(most);
    (0..outputs)
        .map(|n| {
            let centre = first_pixel + (n as f32 + 0.5) / scale - 0.5;
            let first = (centre - support).ceil().clamp(first_pixel, last_pixel);
            let end = (centre + support).floor().clamp(first, last_pixel);
            let count = (end - first) as usize + 1;
            let mut weights: Vec<f32> = (0..count)
                .map(|k| (1.0 - (first + k as f32 - centre).abs() / support).max(0.0))
                .collect();
            let sum: f32 = weights.iter().sum();
            if sum > 0.0 {
                weights.iter_mut().for_each(|w| *w /= sum);
            } else {
                weights.fill(1.0 / count as f32);
            }
            Taps {
                first: first as usize,
                weights,
            }
        })
        .collect()
}

/// Fills `out`, three planes of the canvas' size, with `region` at `scale`, mapped from 0…255 to −1…1. A gray picture fills
/// all three planes alike.
pub(crate) fn fill(picture: &Picture, region: Region, scale: f32, canvas: &Canvas, out: &mut Vec<f32>) {
    let (width, size) = (canvas.width.max(1), canvas.width * canvas.height);
    out.clear();
    out.resize(3 * size, normalized(f32::from(canvas.paper)));
    let columns = taps(region.x, region.width, scale, canvas.width - canvas.margin);
    let rows = taps(region.y, region.height, scale, canvas.height - canvas.margin);
    let (channels, pixels) = (picture.channels, picture.pixels.bytes());
    let mut blended = vec![0f32; region.width * channels];
    let mut planes: Vec<_> = out
        .chunks_exact_mut(size.max(1))
        .map(|plane| plane.chunks_exact_mut(width).skip(canvas.margin))
        .collect();
    for down in &rows {
        blended.fill(0.0);
        for (k, weight) in down.weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            let start = (down.first + k) * picture.stride + region.x * channels;
            let source = pixels.get(start..start + blended.len()).unwrap_or(&[]);
            for (sum, value) in blended.iter_mut().zip(source) {
                *sum += weight * f32::from(*value);
            }
        }
        for (channel, plane) in planes.iter_mut().enumerate().take(channels) {
            let target = plane.next().and_then(|row| row.get_mut(canvas.margin..));
            let target = target.unwrap_or_default().iter_mut();
            if scale == 1.0 {
                let source = blended.iter().skip(channel).step_by(channels);
                target.zip(source).for_each(|(to, from)| *to = normalized(*from));
                continue;
            }
            for (value, across) in target.zip(&columns) {
                let at = (across.first - region.x) * channels + channel;
                let source = blended.get(at..).unwrap_or(&[]).iter().step_by(channels);
                let sum: f32 = across.weights.iter().zip(source).map(|(w, v)| w * v).sum();
                *value = normalized(sum);
            }
        }
    }
    if channels == 1 {
        let (first, rest) = out.split_at_mut(size);
        for plane in rest.chunks_exact_mut(size.max(1)) {
            plane.copy_from_slice(first);
        }
    }
}

fn normalized(value: f32) -> f32 {
    value / 127.5 - 1.0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn picture(width: usize, channels: usize, pixels: &[u8]) -> Picture {
        Picture {
            width,
            height: pixels.len() / width / channels,
            channels,
            stride: width * channels,
            pixels: Arc::new(pixels.to_vec()),
        }
    }

    const fn whole(width: usize, height: usize) -> Region {
        Region {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    const fn canvas(width: usize, height: usize, margin: usize) -> Canvas {
        Canvas {
            width,
            height,
            margin,
            paper: 255,
        }
    }

    #[test]
    fn at_scale_one_pixels_are_only_normalized_and_paper_is_around_them() {
        let pixels = [0, 255, 51, 102];
        let mut out = Vec::new();
        let region = Region { x: 1, ..whole(1, 2) };
        fill(&picture(2, 1, &pixels), region, 1.0, &canvas(3, 4, 1), &mut out);
        let wanted = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -0.2, 1.0, 1.0, 1.0, 1.0];
        for plane in out.chunks(12) {
            for (a, b) in plane.iter().zip(wanted) {
                assert!((a - b).abs() < 1e-6, "{out:?}");
            }
        }
        assert_eq!(out.len(), 36);
    }

    #[test]
    fn colours_go_to_planes_of_their_own() {
        let pixels = [0, 255, 0, 255, 0, 0];
        let mut out = Vec::new();
        fill(
            &picture(2, 3, &pixels),
            whole(2, 1),
            1.0,
            &canvas(3, 1, 0),
            &mut out,
        );
        assert_eq!(out, [-1.0, 1.0, 1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0]);
    }

    #[test]
    fn shrinking_keeps_the_mean_of_thin_strokes() {
        let pixels: Vec<u8> = (0..64 * 64).map(|n| if n % 4 == 0 { 0 } else { 255 }).collect();
        let mut out = Vec::new();
        fill(
            &picture(64, 1, &pixels),
            whole(64, 64),
            0.25,
            &canvas(16, 16, 0),
            &mut out,
        );
        let inner = out.chunks(16).skip(1).take(14).flat_map(|r| &r[1..15]);
        for value in inner {
            assert!((value - 0.5).abs() < 1e-5, "{value}");
        }
    }

    #[test]
    fn enlarging_interpolates() {
        let mut out = Vec::new();
        fill(
            &picture(2, 1, &[0, 255]),
            whole(2, 1),
            4.0,
            &canvas(8, 4, 0),
            &mut out,
        );
        let row = &out[..8];
        assert!(
            row.windows(2).all(|w| w[0] <= w[1]) && row[0] == -1.0 && row[7] == 1.0,
            "{row:?}"
        );
        assert!((row[3] + row[4]).abs() < 1e-5);
    }
}
