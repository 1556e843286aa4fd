//! Scanned documents: pages that are pictures.

use std::io::Cursor;

use crate::pdf::{A4, Document, Image, Page};

/// The letter's pages as a scanner saw them: gray, slightly skewed, with noise. `scan/make.py` made them from
/// [`letter`](crate::letter), once; rendering needs a PDF library, which this crate does without.
pub const LETTER: [&[u8]; 3] = [
    include_bytes!("../scan/letter-1.jpg"),
    include_bytes!("../scan/letter-2.jpg"),
    include_bytes!("../scan/letter-3.jpg"),
];

/// A scanned document of these pages, JPEG files each, on A4. A file that is not a JPEG gives an empty page.
pub fn scanned(pages: &[&[u8]]) -> Vec<u8> {
    let mut document = Document {
        images: pages.iter().filter_map(|jpeg| image(jpeg)).collect(),
        ..Document::default()
    };
    for index in 0..pages.len() {
        document.pages.push(picture(index));
    }
    document.write()
}

/// A page that image `index` fills.
pub(crate) fn picture(index: usize) -> Page {
    let mut page = Page::new(A4);
    page.image(index, 0.0, 0.0, A4.0, A4.1);
    page
}

/// A JPEG file as an image.
pub(crate) fn image(jpeg: &[u8]) -> Option<Image> {
    let reader = image::ImageReader::with_format(Cursor::new(jpeg), image::ImageFormat::Jpeg);
    let (width, height) = reader.into_dimensions().ok()?;
    Some(Image {
        width,
        height,
        color: false,
        jpeg: true,
        bytes: jpeg.to_vec(),
    })
}
