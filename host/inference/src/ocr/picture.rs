//! The pixels of a page as the models see them: looked at once to drop colour that is not there and margins without ink,
//! because the cost of everything after grows with both.

use std::sync::Arc;

use weir_core::InferenceError;
use weir_core::page::{PageImage, PixelFormat, Pixels};

/// Longest side taken, pixels. Larger than any page at 600 dpi that fits `raster.page_bytes`.
const LONGEST_SIDE: u32 = 32_768;

/// Sides of the cells that ink is looked for in, pixels. The mean of a cell is calm enough that the grain of a scan
/// (standard deviation 15 of 255) stays far below [`INK`].
const CELL: usize = 4;

/// How far from the paper the mean of a cell must be to count as ink, of 255. A hairline one pixel wide at half contrast
/// reaches twice that.
const INK: i32 = 16;

/// A page as it is looked at, shared by all steps of its reading.
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// 1 (gray) or 3 (blue, green, red).
    pub(crate) channels: usize,
    /// Bytes from one row to the next.
    pub(crate) stride: usize,
    pub(crate) pixels: Arc<dyn Pixels>,
}

/// A part of a picture, pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) x: usize,
    pub(crate) y: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl Picture {
    /// Looks at an image. A colour image without colour, as most scans and drawn pages are, becomes gray.
    pub(crate) fn of(image: &PageImage) -> Result<Self, InferenceError> {
        let wrong = |reason: String| InferenceError::Input {
            model: super::NAME.into(),
            reason,
        };
        let (width, height) = (image.width as usize, image.height as usize);
        if width == 0 || height == 0 || image.width.max(image.height) > LONGEST_SIDE {
            return Err(wrong(format!("an image of {width} × {height} pixels")));
        }
        let (bytes, channels) = (image.pixels.bytes(), image.format.bytes());
        let needed = image
            .stride
            .checked_mul(height - 1)
            .and_then(|n| n.checked_add(width * channels));
        if image.stride < width * channels || needed.is_none_or(|n| bytes.len() < n) {
            return Err(wrong(format!(
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
            PixelFormat::Bgr if picture.is_colourless() => picture.to_gray(),
            PixelFormat::Gray | PixelFormat::Bgr => picture,
        })
    }

    /// The bytes of each row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[u8]> {
        let length = self.width * self.channels;
        self.pixels
            .bytes()
            .chunks(self.stride)
            .take(self.height)
            .map(move |row| row.get(..length).unwrap_or(row))
    }

    /// Brightness (green, in colour) at a point; outside, that of the nearest edge.
    pub(crate) fn nearest(&self, x: f32, y: f32) -> f32 {
        let x = (x.max(0.0) as usize).min(self.width - 1);
        let y = (y.max(0.0) as usize).min(self.height - 1);
        let at = y * self.stride + x * self.channels + self.channels / 2;
        self.pixels.bytes().get(at).copied().map_or(0.0, f32::from)
    }

    fn is_colourless(&self) -> bool {
        self.rows().all(|row| {
            row.chunks_exact(3).all(|p| match *p {
                [b, g, r] => b.abs_diff(g) <= 2 && r.abs_diff(g) <= 2,
                _ => true,
            })
        })
    }

    fn to_gray(&self) -> Self {
        let mut pixels = Vec::with_capacity(self.width * self.height);
        for row in self.rows() {
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

    /// Where there is ink.
    pub(crate) fn ink(&self) -> Ink {
        let means = self.cell_means();
        let paper = i32::from(most_frequent(&means));
        Ink {
            paper: u8::try_from(paper).unwrap_or(u8::MAX),
            columns: self.width.div_ceil(CELL),
            size: (self.width, self.height),
            cells: means
                .into_iter()
                .map(|mean| (i32::from(mean) - paper).abs() > INK)
                .collect(),
        }
    }

    /// Mean brightness of each cell (of its green, in colour), row by row.
    fn cell_means(&self) -> Vec<u8> {
        let (columns, channels) = (self.width.div_ceil(CELL), self.channels);
        let mut means = Vec::with_capacity(columns * self.height.div_ceil(CELL));
        let mut sums = vec![0u32; columns];
        let mut rows = self.rows().peekable();
        while rows.peek().is_some() {
            sums.fill(0);
            let mut count = 0;
            for row in rows.by_ref().take(CELL) {
                count += 1;
                for (sum, cell) in sums.iter_mut().zip(row.chunks(CELL * channels)) {
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
            let last = self.width - (columns - 1) * CELL;
            for (n, sum) in sums.iter().enumerate() {
                let across = if n + 1 == columns { last } else { CELL };
                let pixels = u32::try_from(across).unwrap_or(1) * count;
                means.push(u8::try_from(sum / pixels.max(1)).unwrap_or(u8::MAX));
            }
        }
        means
    }
}

/// Which cells of a picture have ink.
pub(crate) struct Ink {
    /// Brightness of the paper.
    pub(crate) paper: u8,
    columns: usize,
    size: (usize, usize),
    cells: Vec<bool>,
}

impl Ink {
    /// The smallest region with all ink in the rows of pixels `from..to`; `None` if they are blank.
    pub(crate) fn within(&self, from: usize, to: usize) -> Option<Region> {
        let (mut left, mut right) = (self.columns, 0);
        let (mut top, mut bottom) = (None, 0);
        let rows = self.cells.chunks(self.columns).enumerate();
        for (y, row) in rows.take(to.div_ceil(CELL)).skip(from / CELL) {
            let Some(first) = row.iter().position(|ink| *ink) else {
                continue;
            };
            let last = row.iter().rposition(|ink| *ink).unwrap_or(first);
            left = left.min(first);
            right = right.max(last + 1);
            top = top.or(Some(y));
            bottom = y + 1;
        }
        let (x, y) = (left * CELL, (top? * CELL).max(from));
        Some(Region {
            x,
            y,
            width: (right * CELL).min(self.size.0) - x,
            height: (bottom * CELL).min(self.size.1).min(to).saturating_sub(y),
        })
    }

    /// The middle of the highest blank strip among the rows of pixels `from..to`, the lowest of equals.
    pub(crate) fn gap(&self, from: usize, to: usize) -> Option<usize> {
        let (mut run, mut best) = (0, None);
        let rows = self.cells.chunks(self.columns).enumerate();
        for (y, row) in rows.take(to / CELL).skip(from.div_ceil(CELL)) {
            run = if row.contains(&true) { 0 } else { run + 1 };
            if run > 0 && best.is_none_or(|(height, _)| run >= height) {
                best = Some((run, (y + 1) * CELL - run * CELL / 2));
            }
        }
        best.map(|(_, middle)| middle)
    }
}

/// The value of which there is most; for a page that is its paper, dark or light.
fn most_frequent(values: &[u8]) -> u8 {
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

    fn image(width: u32, height: u32, stride: usize, format: PixelFormat, pixels: Vec<u8>) -> PageImage {
        PageImage {
            width,
            height,
            stride,
            format,
            pixels: Arc::new(pixels),
        }
    }

    #[test]
    fn a_colour_image_without_colour_becomes_gray() {
        let gray = image(
            2,
            2,
            8,
            PixelFormat::Bgr,
            vec![9, 9, 9, 7, 8, 7, 0, 0, 1, 1, 1, 2, 2, 2],
        );
        let picture = Picture::of(&gray).unwrap();
        assert_eq!((picture.channels, picture.stride), (1, 2));
        assert_eq!(picture.pixels.bytes(), [9, 8, 1, 2]);
        let red = image(1, 1, 3, PixelFormat::Bgr, vec![0, 0, 200]);
        assert_eq!(Picture::of(&red).unwrap().channels, 3);
    }

    #[test]
    fn an_image_shorter_than_it_says_is_refused() {
        for (width, height, stride) in [
            (2, 2, 2),
            (0, 2, 2),
            (3, 1, 2),
            (40_000, 1, 40_000),
            (1, 2, usize::MAX),
        ] {
            let error = Picture::of(&image(width, height, stride, PixelFormat::Gray, vec![0; 3])).err();
            assert_eq!(error.unwrap().kind(), "model-input");
        }
        assert!(Picture::of(&image(1, 2, 2, PixelFormat::Gray, vec![0; 3])).is_ok());
    }

    #[test]
    fn ink_is_found_on_light_and_dark_paper_and_not_in_grain() {
        let page = |paper: u8, ink: u8| {
            let mut pixels: Vec<u8> = (0..100u32 * 90)
                .map(|n| paper.saturating_add_signed((n.wrapping_mul(2_654_435_761) >> 28) as i8 - 8))
                .collect();
            for y in 40..48 {
                pixels[y * 100 + 20..y * 100 + 61].fill(ink);
            }
            image(100, 90, 100, PixelFormat::Gray, pixels)
        };
        let wanted = Region {
            x: 20,
            y: 40,
            width: 44,
            height: 8,
        };
        for (paper, ink) in [(230, 30), (30, 230)] {
            let image = page(paper, ink);
            let ink = Picture::of(&image).unwrap().ink();
            assert_eq!(ink.within(0, 90), Some(wanted));
            assert_eq!(
                ink.within(44, 90),
                Some(Region {
                    y: 44,
                    height: 4,
                    ..wanted
                })
            );
            assert_eq!(ink.within(50, 90), None);
            assert_eq!(ink.gap(0, 90), Some(68));
            assert_eq!(ink.gap(0, 60), Some(20));
            assert_eq!(ink.gap(40, 48), None);
        }
        assert_eq!(Picture::of(&page(230, 230)).unwrap().ink().within(0, 90), None);
    }
}
