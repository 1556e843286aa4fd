//! How many pixels a page gets.

use weir_core::error::RasterError;
use weir_core::id::PageNumber;

use crate::arena::step;

/// The coarsest a page is drawn, in dots an inch.
pub(crate) const COARSEST: u32 = 36;

/// The finest a page is drawn, in dots an inch.
pub(crate) const FINEST: u32 = 600;

/// The longest side a JPEG can have (ITU-T T.81 has 16 bits for it; libjpeg stops a little earlier).
const LONGEST_SIDE: u32 = 65_500;

/// A page's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raster {
    /// Resolution in dots an inch.
    pub(crate) dpi: u32,
    /// Pixels.
    pub(crate) width: u32,
    /// Pixels.
    pub(crate) height: u32,
    /// Bytes from row to row in colour; a multiple of four, as PDFium likes it.
    pub(crate) stride: u32,
    /// Bytes of the segment it is drawn into.
    pub(crate) segment_bytes: u64,
}

impl Raster {
    fn at(dpi: u32, (width, height): (f32, f32)) -> Option<Self> {
        let pixels = |points: f32| {
            let pixels = (f64::from(points) * f64::from(dpi) / 72.0).round().max(1.0);
            (pixels <= f64::from(LONGEST_SIDE)).then_some(pixels as u32)
        };
        let (width, height) = (pixels(width)?, pixels(height)?);
        let stride = (width * 3).next_multiple_of(4);
        Some(Self {
            dpi,
            width,
            height,
            stride,
            segment_bytes: step(u64::from(stride) * u64::from(height)),
        })
    }

    /// Bytes from row to row in gray.
    pub(crate) fn gray_stride(&self) -> u32 {
        self.width.next_multiple_of(4)
    }

    /// Bytes of pixels.
    pub(crate) fn bytes(&self) -> usize {
        self.stride as usize * self.height as usize
    }

    /// The image of a page of `size` points at `dpi`, or as fine as `limit` bytes allow.
    pub(crate) fn plan(
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
        let fits = |dpi: u32| Self::at(dpi, size).filter(|raster| raster.segment_bytes <= limit);
        let dpi = dpi.clamp(COARSEST, FINEST);
        if let Some(raster) = fits(dpi) {
            return Ok(raster);
        }
        let (mut coarser, mut too_fine) = (COARSEST, dpi);
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

    const LIMIT: u64 = 64 << 20;

    #[test]
    fn a_usual_page_is_drawn_as_asked() {
        let raster = Raster::plan(1, (595.276, 841.89), 150, LIMIT).unwrap();
        assert_eq!((raster.dpi, raster.width, raster.height), (150, 1240, 1754));
        assert_eq!(raster.stride % 4, 0);
        assert!(raster.segment_bytes >= raster.bytes() as u64);
        let raster = Raster::plan(1, (10.0, 0.001), 1, LIMIT).unwrap();
        assert_eq!((raster.dpi, raster.width, raster.height), (36, 5, 1));
    }

    #[test]
    fn a_large_page_is_drawn_as_finely_as_fits() {
        let size = (5000.0, 5000.0);
        let raster = Raster::plan(1, size, 600, LIMIT).unwrap();
        assert!((36..600).contains(&raster.dpi), "{raster:?}");
        assert!(raster.segment_bytes <= LIMIT);
        assert!(Raster::at(raster.dpi + 1, size).unwrap().segment_bytes > LIMIT);
    }

    #[test]
    fn a_huge_page_is_refused() {
        let error = Raster::plan(7, (14_400.0, 14_400.0), 150, LIMIT).unwrap_err();
        assert!(matches!(
            error,
            RasterError::PageTooLarge {
                page: 7,
                width: 14_400,
                limit: LIMIT,
                ..
            }
        ));
        assert!(Raster::plan(7, (f32::MAX, 1.0), 150, LIMIT).is_err());
        assert!(Raster::plan(7, (f32::NAN, f32::INFINITY), 150, LIMIT).is_err());
    }
}
