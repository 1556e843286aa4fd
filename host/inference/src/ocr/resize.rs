//! Scales a region of an image into a model's input, in planes and normalized.
//!
//! The filter is a triangle as wide as the larger of the two pixel grids. It is bilinear when it enlarges. When it shrinks, it
//! has no aliasing, where plain bilinear sampling would skip thin strokes.

use super::ocr_image::{OcrImage, PixelRegion};

/// The size of a model's input, with the position of the region in it.
pub(crate) struct InputCanvasLayout {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Pixels of the canvas to the left of the region and above it.
    pub(crate) margin: usize,
    /// Brightness outside the region, 0 to 255.
    pub(crate) background: u8,
}

/// The weights of consecutive source pixels, from `first_pixel` on, for one output pixel.
struct FilterTaps {
    first_pixel: usize,
    weights: Vec<f32>,
}

/// Computes the weights for the output pixels of `length` source pixels from `from`. `scale` is the number of output pixels for
/// each source pixel. No weight lies outside the source pixels.
fn compute_filter_taps(from: usize, length: usize, scale: f32, max_outputs: usize) -> Vec<FilterTaps> {
    let support = (1.0 / scale).max(1.0);
    let (first_pixel, last_pixel) = (from as f32, (from + length.max(1) - 1) as f32);
    let outputs = ((length as f32 * scale).round() as usize).min(max_outputs);
    (0..outputs)
        .map(|n| {
            let center = first_pixel + (n as f32 + 0.5) / scale - 0.5;
            let first = (center - support).ceil().clamp(first_pixel, last_pixel);
            let end = (center + support).floor().clamp(first, last_pixel);
            let count = (end - first) as usize + 1;
            let mut weights: Vec<f32> = (0..count)
                .map(|k| (1.0 - (first + k as f32 - center).abs() / support).max(0.0))
                .collect();
            let sum: f32 = weights.iter().sum();
            if sum > 0.0 {
                weights.iter_mut().for_each(|w| *w /= sum);
            } else {
                weights.fill(1.0 / count as f32);
            }
            FilterTaps {
                first_pixel: first as usize,
                weights,
            }
        })
        .collect()
}

/// Fills `out`, three planes of the size of the canvas, with `region` at `scale`. It maps 0…255 to −1…1. A gray image fills all
/// three planes alike.
pub(crate) fn resize_into_planes(
    image: &OcrImage,
    region: PixelRegion,
    scale: f32,
    canvas: &InputCanvasLayout,
    out: &mut Vec<f32>,
) {
    let (width, size) = (canvas.width.max(1), canvas.width * canvas.height);
    out.clear();
    out.resize(3 * size, normalize_brightness(f32::from(canvas.background)));
    let columns = compute_filter_taps(region.x, region.width, scale, canvas.width - canvas.margin);
    let rows = compute_filter_taps(region.y, region.height, scale, canvas.height - canvas.margin);
    let (channels, pixels) = (image.channels, image.pixels.as_bytes());
    let mut blended = vec![0f32; region.width * channels];
    let mut planes: Vec<_> = out
        .chunks_exact_mut(size.max(1))
        .map(|plane| plane.chunks_exact_mut(width).skip(canvas.margin))
        .collect();
    for down in &rows {
        blended.fill(0.0);
        for (k, weight) in down.weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            let start = (down.first_pixel + k) * image.stride + region.x * channels;
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
                target
                    .zip(source)
                    .for_each(|(to, from)| *to = normalize_brightness(*from));
                continue;
            }
            for (value, across) in target.zip(&columns) {
                let at = (across.first_pixel - region.x) * channels + channel;
                let source = blended.get(at..).unwrap_or(&[]).iter().step_by(channels);
                let sum: f32 = across.weights.iter().zip(source).map(|(w, v)| w * v).sum();
                *value = normalize_brightness(sum);
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

fn normalize_brightness(value: f32) -> f32 {
    value / 127.5 - 1.0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn test_image(width: usize, channels: usize, pixels: &[u8]) -> OcrImage {
        OcrImage {
            width,
            height: pixels.len() / width / channels,
            channels,
            stride: width * channels,
            pixels: Arc::new(pixels.to_vec()),
        }
    }

    const fn region_of_size(width: usize, height: usize) -> PixelRegion {
        PixelRegion {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    const fn white_canvas(width: usize, height: usize, margin: usize) -> InputCanvasLayout {
        InputCanvasLayout {
            width,
            height,
            margin,
            background: 255,
        }
    }

    #[test]
    fn scale_one_normalizes_pixels_and_fills_the_margin() {
        let pixels = [0, 255, 51, 102];
        let mut out = Vec::new();
        let region = PixelRegion {
            x: 1,
            ..region_of_size(1, 2)
        };
        resize_into_planes(
            &test_image(2, 1, &pixels),
            region,
            1.0,
            &white_canvas(3, 4, 1),
            &mut out,
        );
        let wanted = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -0.2, 1.0, 1.0, 1.0, 1.0];
        for plane in out.chunks(12) {
            for (a, b) in plane.iter().zip(wanted) {
                assert!((a - b).abs() < 1e-6, "{out:?}");
            }
        }
        assert_eq!(out.len(), 36);
    }

    #[test]
    fn color_channels_go_to_separate_planes() {
        let pixels = [0, 255, 0, 255, 0, 0];
        let mut out = Vec::new();
        resize_into_planes(
            &test_image(2, 3, &pixels),
            region_of_size(2, 1),
            1.0,
            &white_canvas(3, 1, 0),
            &mut out,
        );
        assert_eq!(out, [-1.0, 1.0, 1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0]);
    }

    #[test]
    fn downscaling_keeps_the_mean_of_thin_strokes() {
        let pixels: Vec<u8> = (0..64 * 64).map(|n| if n % 4 == 0 { 0 } else { 255 }).collect();
        let mut out = Vec::new();
        resize_into_planes(
            &test_image(64, 1, &pixels),
            region_of_size(64, 64),
            0.25,
            &white_canvas(16, 16, 0),
            &mut out,
        );
        let inner = out.chunks(16).skip(1).take(14).flat_map(|r| &r[1..15]);
        for value in inner {
            assert!((value - 0.5).abs() < 1e-5, "{value}");
        }
    }

    #[test]
    fn upscaling_interpolates() {
        let mut out = Vec::new();
        resize_into_planes(
            &test_image(2, 1, &[0, 255]),
            region_of_size(2, 1),
            4.0,
            &white_canvas(8, 4, 0),
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
