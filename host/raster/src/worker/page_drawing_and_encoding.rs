//! Draws a page and encodes it as JPEG.

use turbojpeg::{Compressor, Image, PixelFormat, Subsamp, compressed_buf_len};

use super::pdfium::{ColorMode, Document, DrawStatus};
use crate::protocol::{DrawParams, WorkerResponse};
use crate::shared_memory::Heartbeat;

/// The JPEG encoder with its output buffer, which is reused for each page.
pub(super) struct JpegEncoder {
    compressor: Compressor,
    buffer: Vec<u8>,
    encoded_length: usize,
}

impl JpegEncoder {
    pub(super) fn new() -> turbojpeg::Result<Self> {
        Ok(Self {
            compressor: Compressor::new()?,
            buffer: Vec::new(),
            encoded_length: 0,
        })
    }

    /// Returns the image encoded last; empty after it was cleared.
    pub(super) fn last_encoded_image(&self) -> &[u8] {
        self.buffer.get(..self.encoded_length).unwrap_or_default()
    }

    pub(super) fn clear_encoded_image(&mut self) {
        self.encoded_length = 0;
    }

    /// Encodes an image with one byte per pixel (gray), or three (blue, green, red).
    fn encode_image(&mut self, image: Image<&[u8]>, quality: u32) -> turbojpeg::Result<()> {
        self.compressor
            .set_quality(i32::try_from(quality).unwrap_or(85).clamp(1, 100))?;
        // An image without colors is encoded as gray: the file is smaller and takes a quarter less time.
        let gray =
            image.format == PixelFormat::GRAY || are_all_pixels_gray(image.pixels, image.width, image.pitch);
        self.compressor
            .set_subsamp(if gray { Subsamp::Gray } else { Subsamp::Sub2x2 })?;
        let max_encoded_bytes = compressed_buf_len(image.width, image.height, Subsamp::Sub2x2)?;
        if self.buffer.len() < max_encoded_bytes {
            self.buffer.resize(max_encoded_bytes, 0);
        }
        self.encoded_length = self.compressor.compress_to_slice(image, &mut self.buffer)?;
        Ok(())
    }
}

/// Returns whether the three bytes of every pixel are equal. Compares blocks of sixteen pixels (48 bytes). In a block, each byte
/// is compared with the next byte; a mask ignores pairs that cross a pixel boundary. The compiler turns this into vector
/// instructions.
fn are_all_pixels_gray(pixels: &[u8], width: usize, pitch: usize) -> bool {
    pixels.chunks(pitch.max(1)).all(|row| {
        let row = row.get(..width * 3).unwrap_or(row);
        let next = row.get(1..).unwrap_or_default();
        let (bytes, following) = (row.as_chunks::<48>().0, next.as_chunks::<48>().0);
        let rest = row.get(following.len() * 48..).unwrap_or_default();
        let equal = |pixel: &[u8]| matches!(pixel, [b, g, r] if b == g && g == r);
        bytes.iter().zip(following).all(are_sixteen_pixels_gray) && rest.chunks_exact(3).all(equal)
    })
}

fn are_sixteen_pixels_gray((bytes, following): (&[u8; 48], &[u8; 48])) -> bool {
    const SAME_PIXEL_MASK: [[u8; 3]; 16] = [[0xff, 0xff, 0]; 16];
    let pairs = bytes.iter().zip(following).zip(SAME_PIXEL_MASK.as_flattened());
    pairs.fold(0, |unequal, ((a, b), within)| unequal | ((a ^ b) & within)) == 0
}

pub(super) fn draw_and_encode_page(
    document: &Document,
    params: &DrawParams,
    segment: &mut [u8],
    encoder: &mut JpegEncoder,
    heartbeat: &Heartbeat,
) -> WorkerResponse {
    let Some(page) = document.load_page_with_form(params.page) else {
        return WorkerResponse::PageUnreadable("it cannot be parsed".into());
    };
    heartbeat.record_beat();
    let is_color = !page.has_only_gray_objects(heartbeat);
    let (format, stride, pixel) = if is_color {
        (ColorMode::Bgr, params.stride, PixelFormat::BGR)
    } else {
        (ColorMode::Gray, params.gray_stride, PixelFormat::GRAY)
    };
    let bytes = stride as usize * params.height as usize;
    let Some(pixels) = segment.get_mut(..bytes) else {
        return WorkerResponse::PageUnreadable("the memory segment for its image is too small".into());
    };
    match page.draw(pixels, (params.width, params.height, stride), format, heartbeat) {
        DrawStatus::Done => {}
        DrawStatus::Canceled => return WorkerResponse::Canceled,
        DrawStatus::Failed => return WorkerResponse::PageUnreadable("it cannot be drawn".into()),
    }
    heartbeat.record_beat();
    if let Some(quality) = params.jpeg_quality {
        let image = Image {
            pixels: &*pixels,
            width: params.width as usize,
            pitch: stride as usize,
            height: params.height as usize,
            format: pixel,
        };
        if let Err(error) = encoder.encode_image(image, quality) {
            return WorkerResponse::PageUnreadable(format!("its image cannot be encoded: {error}"));
        }
    }
    WorkerResponse::PageDrawn { is_color }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gray_check_detects_one_colored_byte_anywhere() {
        let (width, pitch, height) = (21, 64, 3);
        let mut pixels: Vec<u8> = (0..pitch * height)
            .map(|at| {
                if at % pitch < width * 3 {
                    (at % pitch / 3 * 7) as u8
                } else {
                    at as u8
                }
            })
            .collect();
        assert!(are_all_pixels_gray(&pixels, width, pitch));
        for at in (0..pitch * height).filter(|at| at % pitch < width * 3) {
            pixels[at] ^= 1;
            assert!(!are_all_pixels_gray(&pixels, width, pitch), "{at}");
            pixels[at] ^= 1;
        }
    }
}
