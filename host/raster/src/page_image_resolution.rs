//! Resolution and size of a page image within the byte limit.

use weir_core::error::RasterError;
use weir_core::id::PageNumber;

use crate::segment_pool::round_up_segment_size;

/// Lowest resolution of a page image, in dots per inch.
pub(crate) const MIN_DPI: u32 = 36;

/// Highest resolution of a page image, in dots per inch.
pub(crate) const MAX_DPI: u32 = 600;

/// Maximum side of a JPEG, in pixels. ITU-T T.81 stores it in 16 bits (65,535 at most); the limit of libjpeg is 65,500.
const MAX_JPEG_SIDE_PIXELS: u32 = 65_500;

/// Resolution and size of a page image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageDimensions {
    /// Resolution in dots per inch.
    pub(crate) dpi: u32,
    /// Width in pixels.
    pub(crate) width: u32,
    /// Height in pixels.
    pub(crate) height: u32,
    /// Stride of the color image: bytes from the start of one row to the start of the next. A multiple of four, as
    /// PDFium prefers.
    pub(crate) stride: u32,
    /// Bytes of the segment that holds the image.
    pub(crate) segment_bytes: u64,
}

impl ImageDimensions {
    fn at_dpi(dpi: u32, (width, height): (f32, f32)) -> Option<Self> {
        let pixels = |points: f32| {
            let pixels = (f64::from(points) * f64::from(dpi) / 72.0).round().max(1.0);
            (pixels <= f64::from(MAX_JPEG_SIDE_PIXELS)).then_some(pixels as u32)
        };
        let (width, height) = (pixels(width)?, pixels(height)?);
        let stride = (width * 3).next_multiple_of(4);
        Some(Self {
            dpi,
            width,
            height,
            stride,
            segment_bytes: round_up_segment_size(u64::from(stride) * u64::from(height)),
        })
    }

    /// Returns the stride of the gray image in bytes.
    pub(crate) fn gray_stride(&self) -> u32 {
        self.width.next_multiple_of(4)
    }

    /// Returns the bytes of the pixels in color.
    pub(crate) fn color_pixel_byte_count(&self) -> usize {
        self.stride as usize * self.height as usize
    }

    /// Plans the image of a page of `size` points at `dpi`, or at the highest resolution that fits into `limit` bytes.
    pub(crate) fn plan_within_limit(
        page: PageNumber,
        size: (f32, f32),
        dpi: u32,
        limit: u64,
    ) -> Result<Self, RasterError> {
        let too_large = || RasterError::PageTooLarge {
            page,
            width: size.0.round() as u32,
            height: size.1.round() as u32,
            limit,
        };
        let fits = |dpi: u32| Self::at_dpi(dpi, size).filter(|raster| raster.segment_bytes <= limit);
        let dpi = dpi.clamp(MIN_DPI, MAX_DPI);
        if let Some(raster) = fits(dpi) {
            return Ok(raster);
        }
        let (mut coarser, mut too_fine) = (MIN_DPI, dpi);
        let mut best = fits(coarser).ok_or_else(too_large)?;
        while coarser + 1 < too_fine {
            let middle = coarser.midpoint(too_fine);
            match fits(middle) {
                Some(raster) => (coarser, best) = (middle, raster),
                None => too_fine = middle,
            }
        }
        Ok(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE_LIMIT_BYTES: u64 = 64 << 20;

    #[test]
    fn ordinary_page_keeps_the_requested_resolution() {
        let raster =
            ImageDimensions::plan_within_limit(1, (595.276, 841.89), 150, IMAGE_LIMIT_BYTES).unwrap();
        assert_eq!((raster.dpi, raster.width, raster.height), (150, 1240, 1754));
        assert_eq!(raster.stride % 4, 0);
        assert!(raster.segment_bytes >= raster.color_pixel_byte_count() as u64);
        let raster = ImageDimensions::plan_within_limit(1, (10.0, 0.001), 1, IMAGE_LIMIT_BYTES).unwrap();
        assert_eq!((raster.dpi, raster.width, raster.height), (36, 5, 1));
    }

    #[test]
    fn large_page_gets_the_highest_resolution_that_fits() {
        let size = (5000.0, 5000.0);
        let raster = ImageDimensions::plan_within_limit(1, size, 600, IMAGE_LIMIT_BYTES).unwrap();
        assert!((36..600).contains(&raster.dpi), "{raster:?}");
        assert!(raster.segment_bytes <= IMAGE_LIMIT_BYTES);
        assert!(
            ImageDimensions::at_dpi(raster.dpi + 1, size)
                .unwrap()
                .segment_bytes
                > IMAGE_LIMIT_BYTES
        );
    }

    #[test]
    fn page_too_large_at_the_lowest_resolution_is_refused() {
        let error =
            ImageDimensions::plan_within_limit(7, (14_400.0, 14_400.0), 150, IMAGE_LIMIT_BYTES).unwrap_err();
        assert!(matches!(
            error,
            RasterError::PageTooLarge {
                page: 7,
                width: 14_400,
                limit: IMAGE_LIMIT_BYTES,
                ..
            }
        ));
        assert!(ImageDimensions::plan_within_limit(7, (f32::MAX, 1.0), 150, IMAGE_LIMIT_BYTES).is_err());
        assert!(
            ImageDimensions::plan_within_limit(7, (f32::NAN, f32::INFINITY), 150, IMAGE_LIMIT_BYTES).is_err()
        );
    }
}
