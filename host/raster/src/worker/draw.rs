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
        let mut compressor = Compressor::new()?;
        compressor.set_subsamp(Subsamp::Sub2x2)?;
        Ok(Self {
            compressor,
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
        let enough = compressed_buf_len(image.width, image.height, Subsamp::Sub2x2)?;
        if self.buffer.len() < enough {
            self.buffer.resize(enough, 0);
        }
        self.length = self.compressor.compress_to_slice(image, &mut self.buffer)?;
        Ok(())
    }
}

pub(super) fn draw(
    document: &Document,
    order: &Draw,
    segment: &mut [u8],
    encoder: &mut Encoder,
    pulse: &Pulse,
) -> Answer {
    let Some(page) = document.page(order.page) else {
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
