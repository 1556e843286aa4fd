//! Scaling a part of a picture into a model's input, planar and normalized.
//!
//! The filter is a triangle as wide as the larger of the two pixel grids: bilinear when it enlarges, and free of aliasing
//! when it shrinks, where plain bilinear would step over thin strokes.

use super::picture::{Picture, Region};

/// The weights with which one output pixel is made, for consecutive source pixels from `first`.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

/// Taps for `outputs` pixels at `scale` (output pixels for one source pixel), beginning at `from`. Positions outside
/// `0..limit` take the nearest pixel inside.
fn taps(outputs: usize, scale: f32, from: usize, limit: usize) -> Vec<Taps> {
    let support = (1.0 / scale).max(1.0);
    let last = limit.saturating_sub(1) as f32;
    (0..outputs)
        .map(|n| {
            let centre = from as f32 + (n as f32 + 0.5) / scale - 0.5;
            let first = (centre - support).ceil().clamp(0.0, last);
            let end = (centre + support).floor().clamp(first, last);
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

/// Fills `out`, three planes of `width × height`, with `region` at `scale`, mapped from 0…255 to −1…1. What lies outside
/// the picture repeats its edge; a gray picture fills all three planes.
pub(crate) fn fill(
    picture: &Picture<'_>,
    region: Region,
    scale: f32,
    (width, height): (usize, usize),
    out: &mut Vec<f32>,
) {
    out.clear();
    out.resize(3 * width * height, 0.0);
    let columns = taps(width, scale, region.x, picture.width);
    let rows = taps(height, scale, region.y, picture.height);
    let channels = picture.channels;
    let from = columns.first().map_or(0, |t| t.first);
    let to = columns.last().map_or(0, |t| t.first + t.weights.len());
    let mut blended = vec![0f32; (to - from) * channels];
    let (plane, rest) = out.split_at_mut(width * height);
    let (second, third) = rest.split_at_mut(width * height);
    let planes = [plane, second, third];
    let mut planes = planes.map(|p| p.chunks_exact_mut(width.max(1)));
    for taps_y in &rows {
        blended.fill(0.0);
        for (k, weight) in taps_y.weights.iter().enumerate() {
            let start = (taps_y.first + k) * picture.stride + from * channels;
            let source = picture.pixels.get(start..start + blended.len()).unwrap_or(&[]);
            for (sum, value) in blended.iter_mut().zip(source) {
                *sum += weight * f32::from(*value);
            }
        }
        for (channel, plane) in planes.iter_mut().enumerate().take(channels) {
            let Some(target) = plane.next() else { continue };
            for (value, taps_x) in target.iter_mut().zip(&columns) {
                let at = (taps_x.first - from) * channels + channel;
                let source = blended.get(at..).unwrap_or(&[]).iter().step_by(channels);
                let sum: f32 = taps_x.weights.iter().zip(source).map(|(w, v)| w * v).sum();
                *value = sum / 127.5 - 1.0;
            }
        }
    }
    if channels == 1 {
        let (first, rest) = out.split_at_mut(width * height);
        for plane in rest.chunks_exact_mut((width * height).max(1)) {
            plane.copy_from_slice(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn picture(width: usize, channels: usize, pixels: &[u8]) -> Picture<'_> {
        Picture {
            width,
            height: pixels.len() / width / channels,
            channels,
            stride: width * channels,
            pixels: Cow::Borrowed(pixels),
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

    #[test]
    fn at_scale_one_pixels_are_only_normalized() {
        let pixels = [0, 255, 51, 102];
        let mut out = Vec::new();
        fill(&picture(2, 1, &pixels), whole(2, 2), 1.0, (2, 2), &mut out);
        let wanted = [-1.0, 1.0, -0.6, -0.2];
        for plane in out.chunks(4) {
            for (a, b) in plane.iter().zip(wanted) {
                assert!((a - b).abs() < 1e-6, "{out:?}");
            }
        }
        assert_eq!(out.len(), 12);
    }

    #[test]
    fn colours_go_to_planes_of_their_own_and_edges_repeat() {
        let pixels = [0, 255, 0, 255, 0, 0];
        let mut out = Vec::new();
        fill(&picture(2, 3, &pixels), whole(2, 1), 1.0, (3, 1), &mut out);
        assert_eq!(out, [-1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0]);
    }

    #[test]
    fn shrinking_keeps_the_mean_of_thin_strokes() {
        let pixels: Vec<u8> = (0..64 * 64).map(|n| if n % 4 == 0 { 0 } else { 255 }).collect();
        let mut out = Vec::new();
        fill(&picture(64, 1, &pixels), whole(64, 64), 0.25, (16, 16), &mut out);
        let inner = out.chunks(16).skip(1).take(14).flat_map(|r| &r[1..15]);
        for value in inner {
            assert!((value - 0.5).abs() < 1e-5, "{value}");
        }
    }
}
