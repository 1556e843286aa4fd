//! Drawing a page and encoding it.

use turbojpeg::{Compressor, Image, PixelFormat, Subsamp, compressed_buf_len};

use super::pdfium::{Colours, Document, Drawn};
use crate::protocol::{Answer, Draw};
use crate::shared::Pulse;

/// The JPEG encoder with its output, which is used again for each page.
pub(super) struct Encoder {
    compressor: Compressor,
    buffer: Vec<u8>,
    length: usize,
}

impl Encoder {
    pub(super) fn new() -> turbojpeg::Result<Self> {
        Ok(Self {
            compressor: Compressor::new()?,
            buffer: Vec::new(),
            length: 0,
        })
    }

    /// The image encoded last, until it is cleared.
    pub(super) fn encoded(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    /// Encodes an image of one byte a pixel, or of three in the order blue, green, red.
    fn encode(&mut self, image: Image<&[u8]>, quality: u32) -> turbojpeg::Result<()> {
        self.compressor
            .set_quality(i32::try_from(quality).unwrap_or(85).clamp(1, 100))?;
        // What has no colour is encoded as gray: smaller, and a quarter faster.
        let gray = image.format == PixelFormat::GRAY || is_colourless(image.pixels, image.width, image.pitch);
        self.compressor
            .set_subsamp(if gray { Subsamp::Gray } else { Subsamp::Sub2x2 })?;
        let enough = compressed_buf_len(image.width, image.height, Subsamp::Sub2x2)?;
        if self.buffer.len() < enough {
            self.buffer.resize(enough, 0);
        }
        self.length = self.compressor.compress_to_slice(image, &mut self.buffer)?;
        Ok(())
    }
}

/// Whether each pixel's three bytes are equal. Sixteen pixels at a time, each byte compared with the next unless that
/// belongs to another pixel; the compiler makes vector instructions of it.
fn is_colourless(pixels: &[u8], width: usize, pitch: usize) -> bool {
    pixels.chunks(pitch.max(1)).all(|row| {
        let row = row.get(..width * 3).unwrap_or(row);
        let next = row.get(1..).unwrap_or_default();
        let (bytes, following) = (row.as_chunks::<48>().0, next.as_chunks::<48>().0);
        let rest = row.get(following.len() * 48..).unwrap_or_default();
        let equal = |pixel: &[u8]| matches!(pixel, [b, g, r] if b == g && g == r);
        bytes.iter().zip(following).all(are_colourless) && rest.chunks_exact(3).all(equal)
    })
}

fn are_colourless((bytes, following): (&[u8; 48], &[u8; 48])) -> bool {
    const WITHIN: [[u8; 3]; 16] = [[0xff, 0xff, 0]; 16];
    let pairs = bytes.iter().zip(following).zip(WITHIN.as_flattened());
    pairs.fold(0, |unequal, ((a, b), within)| unequal | ((a ^ b) & within)) == 0
}

pub(super) fn draw(
    document: &Document,
    order: &Draw,
    segment: &mut [u8],
    encoder: &mut Encoder,
    pulse: &Pulse,
) -> Answer {
    let Some(page) = document.page_to_draw(order.page) else {
        return Answer::Unreadable("it cannot be parsed".into());
    };
    pulse.beat();
    let colour = !page.is_gray(pulse);
    let (format, stride, pixel) = if colour {
        (Colours::Bgr, order.stride, PixelFormat::BGR)
    } else {
        (Colours::Gray, order.gray_stride, PixelFormat::GRAY)
    };
    let bytes = stride as usize * order.height as usize;
    let Some(pixels) = segment.get_mut(..bytes) else {
        return Answer::Unreadable("the memory given for it is too small".into());
    };
    match page.draw(pixels, (order.width, order.height, stride), format, pulse) {
        Drawn::Done => {}
        Drawn::Abandoned => return Answer::Abandoned,
        Drawn::Failed => return Answer::Unreadable("it cannot be drawn".into()),
    }
    pulse.beat();
    if let Some(quality) = order.quality {
        let image = Image {
            pixels: &*pixels,
            width: order.width as usize,
            pitch: stride as usize,
            height: order.height as usize,
            format: pixel,
        };
        if let Err(error) = encoder.encode(image, quality) {
            return Answer::Unreadable(format!("its image cannot be encoded: {error}"));
        }
    }
    Answer::Drawn { colour }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_coloured_byte_anywhere_is_seen() {
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
        assert!(is_colourless(&pixels, width, pitch));
        for at in (0..pitch * height).filter(|at| at % pitch < width * 3) {
            pixels[at] ^= 1;
            assert!(!is_colourless(&pixels, width, pitch), "{at}");
            pixels[at] ^= 1;
        }
    }
}
