//! Drawing a page and encoding it.

use turbojpeg::{Compressor, Image, PixelFormat, Subsamp, compressed_buf_len};

use super::pdfium::{Document, Drawn};
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

    fn encode(&mut self, image: Image<&[u8]>, quality: u32) -> turbojpeg::Result<()> {
        self.compressor
            .set_quality(i32::try_from(quality).unwrap_or(85).clamp(1, 100))?;
        // A page without colour, which most are, is encoded as gray: smaller, and a quarter faster.
        let gray = is_gray(image.pixels, image.width, image.pitch);
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

/// Whether each pixel's three bytes are equal. Eight pixels at a time, as three words whose bytes are compared with their
/// neighbours: a tenth of what encoding takes, where pixel by pixel it would be a quarter.
fn is_gray(pixels: &[u8], width: usize, pitch: usize) -> bool {
    pixels.chunks(pitch.max(1)).all(|row| {
        let (eights, rest) = row.get(..width * 3).unwrap_or(row).as_chunks::<24>();
        let equal = |pixel: &[u8]| matches!(pixel, [b, g, r] if b == g && g == r);
        eights.iter().all(are_gray) && rest.chunks_exact(3).all(equal)
    })
}

fn are_gray(eight: &[u8; 24]) -> bool {
    // In each word the bytes whose neighbour belongs to the same pixel, that is, all but the last of a pixel.
    const INNER: [u64; 3] = [0xffff00ffff00ffff, 0xff00ffff00ffff00, 0x00ffff00ffff00ff];
    let (words, _) = eight.as_chunks::<8>();
    let [a, b, c] = words else {
        return false;
    };
    let [a, b, c] = [a, b, c].map(|word| u64::from_le_bytes(*word));
    let [i, j, k] = INNER;
    let next = [a >> 8 | b << 56, b >> 8 | c << 56, c >> 8];
    let [l, m, n] = next;
    ((a ^ l) & i) | ((b ^ m) & j) | ((c ^ n) & k) == 0
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
    let bytes = order.stride as usize * order.height as usize;
    let Some(pixels) = segment.get_mut(..bytes) else {
        return Answer::Unreadable("the memory given for it is too small".into());
    };
    match page.draw(pixels, (order.width, order.height, order.stride), pulse) {
        Drawn::Done => {}
        Drawn::Abandoned => return Answer::Abandoned,
        Drawn::Failed => return Answer::Unreadable("it cannot be drawn".into()),
    }
    pulse.beat();
    if let Some(quality) = order.quality {
        let image = Image {
            pixels: &*pixels,
            width: order.width as usize,
            pitch: order.stride as usize,
            height: order.height as usize,
            format: PixelFormat::BGR,
        };
        if let Err(error) = encoder.encode(image, quality) {
            return Answer::Unreadable(format!("its image cannot be encoded: {error}"));
        }
    }
    Answer::Drawn
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
        assert!(is_gray(&pixels, width, pitch));
        for at in (0..pitch * height).filter(|at| at % pitch < width * 3) {
            pixels[at] ^= 1;
            assert!(!is_gray(&pixels, width, pitch), "{at}");
            pixels[at] ^= 1;
        }
    }
}
