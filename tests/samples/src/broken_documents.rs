//! Documents that are broken, extreme or malicious.

use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref};

use crate::fonts::Typeface;
use crate::long_documents::generate_text_document;
use crate::pdf_document::{A4_POINTS, Bookmark, Document, Page};

/// Builds a document without its second half, which contains the catalog and the cross-reference table.
pub fn truncated_document() -> Vec<u8> {
    let mut file = generate_text_document(4, 1);
    file.truncate(file.len() / 2);
    file
}

/// Builds a document whose page tree is empty.
pub fn document_without_pages() -> Vec<u8> {
    document_of_empty_pages(0)
}

/// Builds a document of `count` pages without content.
pub fn document_of_empty_pages(count: usize) -> Vec<u8> {
    let mut pdf = Pdf::new();
    let (catalog, tree) = (Ref::new(1), Ref::new(2));
    let first = 3;
    let count = i32::try_from(count).unwrap_or(i32::MAX - first);
    for page in first..first + count {
        pdf.page(Ref::new(page)).parent(tree);
    }
    let mut object = pdf.pages(tree);
    object.kids((first..first + count).map(Ref::new)).count(count);
    object.media_box(Rect::new(0.0, 0.0, A4_POINTS.0, A4_POINTS.1));
    object.finish();
    pdf.catalog(catalog).pages(tree);
    pdf.finish()
}

/// Builds a document with one page of 200 × 200 inches and a line of text in its middle: 2.7 gigabytes of pixels at 150 dpi.
pub fn document_with_huge_page() -> Vec<u8> {
    let side = 200.0 * 72.0;
    let mut page = Page::new((side, side));
    page.draw_text(
        Typeface::Sans,
        240.0,
        3000.0,
        side / 2.0,
        "A page of two hundred inches",
    );
    let pages = vec![page];
    Document {
        pages,
        ..Document::default()
    }
    .to_pdf_bytes()
}

/// Builds a page of some kilobytes that decompress to gigabytes. An image of 20,000 × 20,000 pixels can be decompressed row by row.
/// A content stream of as many bytes, all of them white space, must be decompressed at once.
pub fn decompression_bomb_document() -> Vec<u8> {
    const SIDE: i32 = 20_000;
    let inner = deflate_zeros(SIDE as u64 * SIDE as u64 * 3);
    let data = deflate_periodic(&inner, ZEROS_PERIOD);
    let mut pdf = Pdf::new();
    let [catalog, tree, page, content, space, image] = [1, 2, 3, 4, 5, 6].map(Ref::new);
    pdf.catalog(catalog).pages(tree);
    pdf.pages(tree).kids([page]).count(1);
    let mut object = pdf.page(page);
    object
        .parent(tree)
        .contents_array([content, space])
        .media_box(Rect::new(0.0, 0.0, A4_POINTS.0, A4_POINTS.1));
    object.resources().x_objects().pair(Name(b"Im0"), image);
    object.finish();
    let mut drawing = Content::new();
    drawing
        .transform([A4_POINTS.0, 0.0, 0.0, A4_POINTS.1, 0.0, 0.0])
        .x_object(Name(b"Im0"));
    pdf.stream(content, &drawing.finish());
    set_double_deflate_filter(&mut pdf.stream(space, &data));
    let mut object = pdf.image_xobject(image, &data);
    object
        .width(SIDE)
        .height(SIDE)
        .bits_per_component(8)
        .color_space()
        .device_rgb();
    set_double_deflate_filter(&mut object);
    object.finish();
    pdf.finish()
}

fn set_double_deflate_filter(stream: &mut pdf_writer::Stream<'_>) {
    let mut filters = stream.insert(Name(b"Filter")).array();
    filters.item(Name(b"FlateDecode")).item(Name(b"FlateDecode"));
}

/// Builds `count` pages of text. In the page tree, the entry of page `bad` (from 1) refers to a number instead of a page.
pub fn document_with_bad_page(count: usize, bad: usize) -> Vec<u8> {
    let mut pdf = Pdf::new();
    let (catalog, tree, font) = (Ref::new(1), Ref::new(2), Ref::new(3));
    pdf.type1_font(font).base_font(Typeface::Serif.base_font_name());
    let id = |page: usize| Ref::new(2 + 2 * i32::try_from(page).unwrap_or(i32::MAX / 4));
    let content_of = |page: usize| Ref::new(id(page).get() + 1);
    for number in 1..=count {
        if number == bad {
            pdf.indirect(id(number)).primitive(17);
            continue;
        }
        let mut page = Page::new(A4_POINTS);
        page.draw_text(
            Typeface::Serif,
            14.0,
            72.0,
            700.0,
            &format!("This is page {number}, and nothing is wrong with it."),
        );
        page.draw_text(
            Typeface::Serif,
            14.0,
            72.0,
            680.0,
            "The keeper reads the gauge at six in the morning and at noon.",
        );
        pdf.stream(content_of(number), &page.content.finish());
        let mut object = pdf.page(id(number));
        object
            .parent(tree)
            .contents(content_of(number))
            .media_box(Rect::new(0.0, 0.0, A4_POINTS.0, A4_POINTS.1));
        object
            .resources()
            .fonts()
            .pair(Typeface::Serif.resource_name(), font);
    }
    pdf.pages(tree)
        .kids((1..=count).map(id))
        .count(i32::try_from(count).unwrap_or(i32::MAX));
    pdf.catalog(catalog).pages(tree);
    pdf.finish()
}

/// Builds one page whose content is in `count` streams.
pub fn document_with_many_objects(count: usize) -> Vec<u8> {
    let mut pdf = Pdf::new();
    let (catalog, tree, page, font) = (Ref::new(1), Ref::new(2), Ref::new(3), Ref::new(4));
    let first = 5;
    let count = i32::try_from(count).unwrap_or(i32::MAX - first);
    pdf.catalog(catalog).pages(tree);
    pdf.pages(tree).kids([page]).count(1);
    pdf.type1_font(font).base_font(Typeface::Sans.base_font_name());
    for i in 0..count {
        let mut part = Page::new(A4_POINTS);
        let (x, y) = (36.0 + (i % 50) as f32 * 10.0, 36.0 + (i / 50 % 75) as f32 * 10.0);
        part.draw_text(Typeface::Sans, 6.0, x, y, &(i % 100).to_string());
        pdf.stream(Ref::new(first + i), &part.content.finish());
    }
    let mut object = pdf.page(page);
    object
        .parent(tree)
        .media_box(Rect::new(0.0, 0.0, A4_POINTS.0, A4_POINTS.1));
    object.contents_array((first..first + count).map(Ref::new));
    object
        .resources()
        .fonts()
        .pair(Typeface::Sans.resource_name(), font);
    object.finish();
    pdf.finish()
}

/// Builds three pages with an outline of `count` entries, three levels deep.
pub fn document_with_outline(count: usize) -> Vec<u8> {
    let mut document = Document::default();
    for number in 1..=3 {
        let mut page = Page::new(A4_POINTS);
        page.draw_text(
            Typeface::Serif,
            14.0,
            72.0,
            700.0,
            &format!("Page {number} of a document with a long outline."),
        );
        document.pages.push(page);
    }
    for i in 0..count {
        document.outline.push(Bookmark {
            title: format!("Entry {} – water & weir", i + 1),
            level: [1, 2, 3].get(i % 3).copied().unwrap_or(1),
            page: i % 3,
        });
    }
    document.to_pdf_bytes()
}

/// Builds four pages that are rotated by 0, 90, 180 and 270 degrees.
pub fn document_with_rotated_pages() -> Vec<u8> {
    let mut document = Document::default();
    for rotate in [0, 90, 180, 270] {
        let mut page = Page::new(A4_POINTS);
        page.rotate = rotate;
        page.draw_text(
            Typeface::Serif,
            18.0,
            72.0,
            700.0,
            &format!("This page is turned by {rotate} degrees."),
        );
        page.draw_text(
            Typeface::Serif,
            12.0,
            72.0,
            670.0,
            "A reader shows it upright or not, as the page says.",
        );
        document.pages.push(page);
    }
    document.to_pdf_bytes()
}

/// Writes a deflate stream (RFC 1951), whose bytes are filled from the least significant bit.
#[derive(Default)]
struct DeflateWriter {
    bytes: Vec<u8>,
    pending_bits: u32,
    pending_count: u32,
}

impl DeflateWriter {
    fn write_bits(&mut self, value: u32, bits: u32) {
        self.pending_bits |= value << self.pending_count;
        self.pending_count += bits;
        while self.pending_count >= 8 {
            self.bytes.push(self.pending_bits as u8);
            self.pending_bits >>= 8;
            self.pending_count -= 8;
        }
    }

    /// Writes a Huffman code, whose most significant bit comes first.
    fn write_huffman_code(&mut self, code: u32, bits: u32) {
        self.write_bits(code.reverse_bits() >> (32 - bits), bits);
    }

    /// Writes a byte in the fixed Huffman code.
    fn write_literal(&mut self, byte: u8) {
        let byte = u32::from(byte);
        if byte < 144 {
            self.write_huffman_code(0x30 + byte, 8);
        } else {
            self.write_huffman_code(0x190 + byte - 144, 9);
        }
    }

    /// Writes a copy of 258 bytes from `distance` bytes back, which must be 1 or 13.
    fn write_back_reference(&mut self, distance: usize) {
        self.write_huffman_code(0xc0 + 285 - 280, 8);
        if distance == 1 {
            self.write_huffman_code(0, 5);
        } else {
            self.write_huffman_code(7, 5);
            self.write_bits(0, 2);
        }
    }

    /// Starts a zlib stream with one block in the fixed Huffman code.
    fn begin_zlib_stream() -> Self {
        let mut bits = Self::default();
        bits.bytes.extend([0x78, 0x9c]);
        bits.write_bits(0b011, 3);
        bits
    }

    fn finish_zlib_stream(mut self, adler: u32) -> Vec<u8> {
        self.write_huffman_code(0, 7);
        if self.pending_count > 0 {
            self.write_bits(0, 8 - self.pending_count);
        }
        self.bytes.extend(adler.to_be_bytes());
        self.bytes
    }
}

/// Eight copies of 13 bits each take 13 bytes, so long runs of zeros compress to a pattern with this period, in bytes.
const ZEROS_PERIOD: usize = 13;

/// Builds a zlib stream of `count` zeros without allocating them.
fn deflate_zeros(count: u64) -> Vec<u8> {
    let mut bits = DeflateWriter::begin_zlib_stream();
    let copies = count.saturating_sub(1) / 258;
    for _ in 0..count - copies * 258 {
        bits.write_literal(0);
    }
    for _ in 0..copies {
        bits.write_back_reference(1);
    }
    bits.finish_zlib_stream(u32::try_from(count % 65_521).unwrap_or(0) << 16 | 1)
}

/// Compresses `data` to a zlib stream that is small if the data repeats with this period.
fn deflate_periodic(data: &[u8], period: usize) -> Vec<u8> {
    let mut bits = DeflateWriter::begin_zlib_stream();
    let mut at = 0;
    while let Some(byte) = data.get(at) {
        let next = data.get(at..at + 258);
        if next.is_some() && at >= period && next == data.get(at - period..at + 258 - period) {
            bits.write_back_reference(period);
            at += 258;
        } else {
            bits.write_literal(*byte);
            at += 1;
        }
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    bits.finish_zlib_stream(b << 16 | a)
}
