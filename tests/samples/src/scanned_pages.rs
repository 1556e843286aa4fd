//! Scanned documents, whose pages are images.

use std::io::Cursor;

use crate::pdf_document::{A4_POINTS, Document, Image, Page};

/// The letter's pages as JPEG files: gray, slightly skewed, with noise. `scan/make.py` made them once from
/// [`letter_document`](crate::letter_document), because rendering needs a PDF library, which this crate avoids.
pub const LETTER_SCANS: [&[u8]; 3] = [
    include_bytes!("../scan/letter-1.jpg"),
    include_bytes!("../scan/letter-2.jpg"),
    include_bytes!("../scan/letter-3.jpg"),
];

/// Builds a document from JPEG files, each on an A4 page. A file that is not a JPEG becomes an empty page.
pub fn scanned_document(pages: &[&[u8]]) -> Vec<u8> {
    let mut document = Document {
        images: pages.iter().filter_map(|jpeg| decode_jpeg_size(jpeg)).collect(),
        ..Document::default()
    };
    for index in 0..pages.len() {
        document.pages.push(full_page_image(index));
    }
    document.to_pdf_bytes()
}

/// Returns a page that the image `index` fills.
pub(crate) fn full_page_image(index: usize) -> Page {
    let mut page = Page::new(A4_POINTS);
    page.draw_image(index, 0.0, 0.0, A4_POINTS.0, A4_POINTS.1);
    page
}

/// Reads the size of a JPEG file and returns the image. Returns `None` if it is not a JPEG.
pub(crate) fn decode_jpeg_size(jpeg: &[u8]) -> Option<Image> {
    let reader = image::ImageReader::with_format(Cursor::new(jpeg), image::ImageFormat::Jpeg);
    let (width, height) = reader.into_dimensions().ok()?;
    Some(Image {
        width,
        height,
        is_color: false,
        is_jpeg: true,
        bytes: jpeg.to_vec(),
    })
}
