//! The image of a page as the models use it. The cost of all later steps grows with the number of pixels and channels. A color
//! image without colors therefore becomes gray, and a mask of the foreground shows which parts can be skipped.

use std::sync::Arc;

use super::network_names_and_errors::MODEL_NAME;
use weir_core::InferenceError;
use weir_core::page::{PixelFormat, PixelMemory, RawPageImage};

/// Maximum side of an image in pixels; larger than any page at 600 dpi within `raster.max_page_image_bytes`.
const MAX_IMAGE_SIDE: u32 = 32_768;

/// Side of the cells of the foreground mask, in pixels. In the mean of a cell, the noise of a scan (standard deviation 15 of
/// 255) stays far below [`MIN_FOREGROUND_CONTRAST`].
const CELL_SIDE: usize = 4;

/// Minimum difference between the mean of a foreground cell and the paper, on a scale of 255. A line one pixel wide at half
/// contrast reaches twice that.
const MIN_FOREGROUND_CONTRAST: i32 = 16;

/// The image of a page, shared by all steps of its OCR.
pub(crate) struct OcrImage {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// 1 (gray) or 3 (blue, green, red).
    pub(crate) channels: usize,
    /// Bytes from row to row.
    pub(crate) stride: usize,
    pub(crate) pixels: Arc<dyn PixelMemory>,
}

/// A rectangle of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PixelRegion {
    pub(crate) x: usize,
    pub(crate) y: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl OcrImage {
    /// Checks an image and converts it. A color image without colors, as most scans and drawn pages are, becomes gray.
    pub(crate) fn from_page_image(image: &RawPageImage) -> Result<Self, InferenceError> {
        let invalid_input = |reason: String| InferenceError::InvalidInput {
            model: MODEL_NAME.into(),
            reason,
        };
        let (width, height) = (image.width as usize, image.height as usize);
        if width == 0 || height == 0 || image.width.max(image.height) > MAX_IMAGE_SIDE {
            return Err(invalid_input(format!("an image of {width} × {height} pixels")));
        }
        let (bytes, channels) = (image.pixels.as_bytes(), image.format.bytes_per_pixel());
        let needed = image
            .stride
            .checked_mul(height - 1)
            .and_then(|n| n.checked_add(width * channels));
        if image.stride < width * channels || needed.is_none_or(|n| bytes.len() < n) {
            return Err(invalid_input(format!(
                "{} bytes for {width} × {height} pixels",
                bytes.len()
            )));
        }
        let picture = Self {
            width,
            height,
            channels,
            stride: image.stride,
            pixels: Arc::clone(&image.pixels),
        };
        Ok(match image.format {
            PixelFormat::Bgr if picture.has_only_gray_pixels() => picture.to_gray(),
            PixelFormat::Gray | PixelFormat::Bgr => picture,
        })
    }

    /// Iterates over the bytes of each row.
    pub(crate) fn pixel_rows(&self) -> impl Iterator<Item = &[u8]> {
        let length = self.width * self.channels;
        self.pixels
            .as_bytes()
            .chunks(self.stride)
            .take(self.height)
            .map(move |row| row.get(..length).unwrap_or(row))
    }

    /// Returns the brightness at a point (its green, in color). A point outside has the brightness of the nearest edge.
    pub(crate) fn brightness_at_nearest_pixel(&self, x: f32, y: f32) -> f32 {
        let x = (x.max(0.0) as usize).min(self.width - 1);
        let y = (y.max(0.0) as usize).min(self.height - 1);
        let offset = y * self.stride + x * self.channels + self.channels / 2;
        self.pixels.as_bytes().get(offset).copied().map_or(0.0, f32::from)
    }

    fn has_only_gray_pixels(&self) -> bool {
        self.pixel_rows().all(|row| {
            row.chunks_exact(3).all(|p| match *p {
                [b, g, r] => b.abs_diff(g) <= 2 && r.abs_diff(g) <= 2,
                _ => true,
            })
        })
    }

    fn to_gray(&self) -> Self {
        let mut pixels = Vec::with_capacity(self.width * self.height);
        for row in self.pixel_rows() {
            pixels.extend(row.chunks_exact(3).filter_map(|p| p.get(1)));
        }
        Self {
            width: self.width,
            height: self.height,
            channels: 1,
            stride: self.width,
            pixels: Arc::new(pixels),
        }
    }

    /// Computes the mask of cells that differ from the paper.
    pub(crate) fn foreground_mask(&self) -> ForegroundMask {
        let means = self.mean_brightness_per_cell();
        let paper_brightness = i32::from(most_frequent_value(&means));
        ForegroundMask {
            background: u8::try_from(paper_brightness).unwrap_or(u8::MAX),
            cell_columns: self.width.div_ceil(CELL_SIDE),
            image_size: (self.width, self.height),
            foreground_cells: means
                .into_iter()
                .map(|mean| (i32::from(mean) - paper_brightness).abs() > MIN_FOREGROUND_CONTRAST)
                .collect(),
        }
    }

    /// Returns the mean brightness of each cell (of its green, in color), row by row.
    fn mean_brightness_per_cell(&self) -> Vec<u8> {
        let (columns, channels) = (self.width.div_ceil(CELL_SIDE), self.channels);
        let mut means = Vec::with_capacity(columns * self.height.div_ceil(CELL_SIDE));
        let mut sums = vec![0u32; columns];
        let mut rows = self.pixel_rows().peekable();
        while rows.peek().is_some() {
            sums.fill(0);
            let mut count = 0;
            for row in rows.by_ref().take(CELL_SIDE) {
                count += 1;
                for (sum, cell) in sums.iter_mut().zip(row.chunks(CELL_SIDE * channels)) {
                    *sum += match channels {
                        1 => cell.iter().map(|p| u32::from(*p)).sum::<u32>(),
                        _ => cell
                            .chunks_exact(channels)
                            .filter_map(|p| p.get(1))
                            .map(|p| u32::from(*p))
                            .sum(),
                    };
                }
            }
            let last = self.width - (columns - 1) * CELL_SIDE;
            for (n, sum) in sums.iter().enumerate() {
                let across = if n + 1 == columns { last } else { CELL_SIDE };
                let pixels = u32::try_from(across).unwrap_or(1) * count;
                means.push(u8::try_from(sum / pixels.max(1)).unwrap_or(u8::MAX));
            }
        }
        means
    }
}

/// The cells of an image that contain foreground, such as ink on paper.
pub(crate) struct ForegroundMask {
    /// Brightness of the paper.
    pub(crate) background: u8,
    cell_columns: usize,
    image_size: (usize, usize),
    foreground_cells: Vec<bool>,
}

impl ForegroundMask {
    /// Returns the smallest region that contains all foreground in the pixel rows `from..to`; `None` if they are blank.
    pub(crate) fn foreground_bounds_in_rows(&self, from: usize, to: usize) -> Option<PixelRegion> {
        let (mut left, mut right) = (self.cell_columns, 0);
        let (mut top, mut bottom) = (None, 0);
        let rows = self.foreground_cells.chunks(self.cell_columns).enumerate();
        for (y, row) in rows.take(to.div_ceil(CELL_SIDE)).skip(from / CELL_SIDE) {
            let Some(first) = row.iter().position(|is_foreground| *is_foreground) else {
                continue;
            };
            let last = row
                .iter()
                .rposition(|is_foreground| *is_foreground)
                .unwrap_or(first);
            left = left.min(first);
            right = right.max(last + 1);
            top = top.or(Some(y));
            bottom = y + 1;
        }
        let (x, y) = (left * CELL_SIDE, (top? * CELL_SIDE).max(from));
        Some(PixelRegion {
            x,
            y,
            width: (right * CELL_SIDE).min(self.image_size.0) - x,
            height: (bottom * CELL_SIDE)
                .min(self.image_size.1)
                .min(to)
                .saturating_sub(y),
        })
    }

    /// Returns the middle of the tallest blank strip in the pixel rows `from..to`; of equal strips, the lowest on the page.
    pub(crate) fn middle_of_tallest_blank_strip(&self, from: usize, to: usize) -> Option<usize> {
        let (mut run, mut best) = (0, None);
        let rows = self.foreground_cells.chunks(self.cell_columns).enumerate();
        for (y, row) in rows.take(to / CELL_SIDE).skip(from.div_ceil(CELL_SIDE)) {
            run = if row.contains(&true) { 0 } else { run + 1 };
            if run > 0 && best.is_none_or(|(height, _)| run >= height) {
                best = Some((run, (y + 1) * CELL_SIDE - run * CELL_SIDE / 2));
            }
        }
        best.map(|(_, middle)| middle)
    }
}

/// Returns the most frequent value. On a page it is the brightness of the paper, dark or light.
fn most_frequent_value(values: &[u8]) -> u8 {
    let mut counts = [0u32; 256];
    for value in values {
        if let Some(count) = counts.get_mut(usize::from(*value)) {
            *count += 1;
        }
    }
    (0..=u8::MAX)
        .max_by_key(|value| counts.get(usize::from(*value)))
        .unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_image(
        width: u32,
        height: u32,
        stride: usize,
        format: PixelFormat,
        pixels: Vec<u8>,
    ) -> RawPageImage {
        RawPageImage {
            width,
            height,
            stride,
            format,
            pixels: Arc::new(pixels),
        }
    }

    #[test]
    fn color_image_without_color_becomes_gray() {
        let gray = page_image(
            2,
            2,
            8,
            PixelFormat::Bgr,
            vec![9, 9, 9, 7, 8, 7, 0, 0, 1, 1, 1, 2, 2, 2],
        );
        let picture = OcrImage::from_page_image(&gray).unwrap();
        assert_eq!((picture.channels, picture.stride), (1, 2));
        assert_eq!(picture.pixels.as_bytes(), [9, 8, 1, 2]);
        let red = page_image(1, 1, 3, PixelFormat::Bgr, vec![0, 0, 200]);
        assert_eq!(OcrImage::from_page_image(&red).unwrap().channels, 3);
    }

    #[test]
    fn image_with_invalid_dimensions_is_refused() {
        for (width, height, stride) in [
            (2, 2, 2),
            (0, 2, 2),
            (3, 1, 2),
            (40_000, 1, 40_000),
            (1, 2, usize::MAX),
        ] {
            let error =
                OcrImage::from_page_image(&page_image(width, height, stride, PixelFormat::Gray, vec![0; 3]))
                    .err();
            assert_eq!(error.unwrap().kind(), "model-input");
        }
        assert!(OcrImage::from_page_image(&page_image(1, 2, 2, PixelFormat::Gray, vec![0; 3])).is_ok());
    }

    #[test]
    fn foreground_is_found_on_light_and_dark_paper_despite_noise() {
        let page = |paper: u8, ink: u8| {
            let mut pixels: Vec<u8> = (0..100u32 * 90)
                .map(|n| paper.saturating_add_signed((n.wrapping_mul(2_654_435_761) >> 28) as i8 - 8))
                .collect();
            for y in 40..48 {
                pixels[y * 100 + 20..y * 100 + 61].fill(ink);
            }
            page_image(100, 90, 100, PixelFormat::Gray, pixels)
        };
        let wanted = PixelRegion {
            x: 20,
            y: 40,
            width: 44,
            height: 8,
        };
        for (paper, ink) in [(230, 30), (30, 230)] {
            let image = page(paper, ink);
            let mask = OcrImage::from_page_image(&image).unwrap().foreground_mask();
            assert_eq!(mask.foreground_bounds_in_rows(0, 90), Some(wanted));
            assert_eq!(
                mask.foreground_bounds_in_rows(44, 90),
                Some(PixelRegion {
                    y: 44,
                    height: 4,
                    ..wanted
                })
            );
            assert_eq!(mask.foreground_bounds_in_rows(50, 90), None);
            assert_eq!(mask.middle_of_tallest_blank_strip(0, 90), Some(68));
            assert_eq!(mask.middle_of_tallest_blank_strip(0, 60), Some(20));
            assert_eq!(mask.middle_of_tallest_blank_strip(40, 48), None);
        }
        assert_eq!(
            OcrImage::from_page_image(&page(230, 230))
                .unwrap()
                .foreground_mask()
                .foreground_bounds_in_rows(0, 90),
            None
        );
    }
}
