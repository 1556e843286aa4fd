//! Documents that are broken, absurd or meant to do harm.

use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref};

use crate::book::text_document;
use crate::fonts::Face;
use crate::pdf::{A4, Bookmark, Document, Page};

/// A document that lost its second half, and with it everything a reader starts from.
pub fn truncated() -> Vec<u8> {
    let mut file = text_document(4, 1);
    file.truncate(file.len() / 2);
    file
}

/// A document whose page tree is empty.
pub fn zero_pages() -> Vec<u8> {
    empty_pages(0)
}

/// `count` pages with nothing on them.
pub fn empty_pages(count: usize) -> Vec<u8> {
    let mut pdf = Pdf::new();
    let (catalog, tree) = (Ref::new(1), Ref::new(2));
    let first = 3;
    let count = i32::try_from(count).unwrap_or(i32::MAX - first);
    for page in first..first + count {
        pdf.page(Ref::new(page)).parent(tree);
    }
    let mut object = pdf.pages(tree);
    object.kids((first..first + count).map(Ref::new)).count(count);
    object.media_box(Rect::new(0.0, 0.0, A4.0, A4.1));
    object.finish();
    pdf.catalog(catalog).pages(tree);
    pdf.finish()
}

/// One page of 200 × 200 inches with a line of text in its middle: 2.7 gigabytes of pixels at 150 dpi.
pub fn huge_page() -> Vec<u8> {
    let side = 200.0 * 72.0;
    let mut page = Page::new((side, side));
    page.text(
        Face::Sans,
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
    .write()
}

/// One page of kilobytes that unpack to gigabytes: an image of 20,000 × 20,000 pixels, which a reader may unpack row by row,
/// and as many bytes of content, all of them white space, which it may not.
pub fn decompression_bomb() -> Vec<u8> {
    const SIDE: i32 = 20_000;
    let inner = deflated_zeros(SIDE as u64 * SIDE as u64 * 3);
    let data = deflated_period(&inner, ZEROS_PERIOD);
    let mut pdf = Pdf::new();
    let [catalog, tree, page, content, space, image] = [1, 2, 3, 4, 5, 6].map(Ref::new);
    pdf.catalog(catalog).pages(tree);
    pdf.pages(tree).kids([page]).count(1);
    let mut object = pdf.page(page);
    object
        .parent(tree)
        .contents_array([content, space])
        .media_box(Rect::new(0.0, 0.0, A4.0, A4.1));
    object.resources().x_objects().pair(Name(b"Im0"), image);
    object.finish();
    let mut drawing = Content::new();
    drawing
        .transform([A4.0, 0.0, 0.0, A4.1, 0.0, 0.0])
        .x_object(Name(b"Im0"));
    pdf.stream(content, &drawing.finish());
    twice_deflated(&mut pdf.stream(space, &data));
    let mut object = pdf.image_xobject(image, &data);
    object
        .width(SIDE)
        .height(SIDE)
        .bits_per_component(8)
        .color_space()
        .device_rgb();
    twice_deflated(&mut object);
    object.finish();
    pdf.finish()
}

fn twice_deflated(stream: &mut pdf_writer::Stream<'_>) {
    let mut filters = stream.insert(Name(b"Filter")).array();
    filters.item(Name(b"FlateDecode")).item(Name(b"FlateDecode"));
}

/// `count` pages of text, of which page `bad` (from 1) is no page: the tree names it, but what stands there is a number.
pub fn one_bad_page(count: usize, bad: usize) -> Vec<u8> {
    let mut pdf = Pdf::new();
    let (catalog, tree, font) = (Ref::new(1), Ref::new(2), Ref::new(3));
    pdf.type1_font(font).base_font(Face::Serif.base_font());
    let id = |page: usize| Ref::new(2 + 2 * i32::try_from(page).unwrap_or(i32::MAX / 4));
    let content_of = |page: usize| Ref::new(id(page).get() + 1);
    for number in 1..=count {
        if number == bad {
            pdf.indirect(id(number)).primitive(17);
            continue;
        }
        let mut page = Page::new(A4);
        page.text(
            Face::Serif,
            14.0,
            72.0,
            700.0,
            &format!("This is page {number}, and nothing is wrong with it."),
        );
        page.text(
            Face::Serif,
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
            .media_box(Rect::new(0.0, 0.0, A4.0, A4.1));
        object.resources().fonts().pair(Face::Serif.resource(), font);
    }
    pdf.pages(tree)
        .kids((1..=count).map(id))
        .count(i32::try_from(count).unwrap_or(i32::MAX));
    pdf.catalog(catalog).pages(tree);
    pdf.finish()
}

/// One page whose content is in `count` streams.
pub fn many_objects(count: usize) -> Vec<u8> {
    let mut pdf = Pdf::new();
    let (catalog, tree, page, font) = (Ref::new(1), Ref::new(2), Ref::new(3), Ref::new(4));
    let first = 5;
    let count = i32::try_from(count).unwrap_or(i32::MAX - first);
    pdf.catalog(catalog).pages(tree);
    pdf.pages(tree).kids([page]).count(1);
    pdf.type1_font(font).base_font(Face::Sans.base_font());
    for i in 0..count {
        let mut part = Page::new(A4);
        let (x, y) = (36.0 + (i % 50) as f32 * 10.0, 36.0 + (i / 50 % 75) as f32 * 10.0);
        part.text(Face::Sans, 6.0, x, y, &(i % 100).to_string());
        pdf.stream(Ref::new(first + i), &part.content.finish());
    }
    let mut object = pdf.page(page);
    object.parent(tree).media_box(Rect::new(0.0, 0.0, A4.0, A4.1));
    object.contents_array((first..first + count).map(Ref::new));
    object.resources().fonts().pair(Face::Sans.resource(), font);
    object.finish();
    pdf.finish()
}

/// Three pages under an outline of `count` entries, three levels deep.
pub fn outline(count: usize) -> Vec<u8> {
    let mut document = Document::default();
    for number in 1..=3 {
        let mut page = Page::new(A4);
        page.text(
            Face::Serif,
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
    document.write()
}

/// Four pages, turned by 0, 90, 180 and 270 degrees.
pub fn rotated() -> Vec<u8> {
    let mut document = Document::default();
    for rotate in [0, 90, 180, 270] {
        let mut page = Page::new(A4);
        page.rotate = rotate;
        page.text(
            Face::Serif,
            18.0,
            72.0,
            700.0,
            &format!("This page is turned by {rotate} degrees."),
        );
        page.text(
            Face::Serif,
            12.0,
            72.0,
            670.0,
            "A reader shows it upright or not, as the page says.",
        );
        document.pages.push(page);
    }
    document.write()
}

/// Bits, least significant first, as deflate wants them (RFC 1951).
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    held: u32,
    count: u32,
}

impl Bits {
    fn put(&mut self, value: u32, bits: u32) {
        self.held |= value << self.count;
        self.count += bits;
        while self.count >= 8 {
            self.bytes.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    /// A Huffman code, which goes most significant bit first.
    fn code(&mut self, code: u32, bits: u32) {
        self.put(code.reverse_bits() >> (32 - bits), bits);
    }

    /// A byte in the fixed code.
    fn literal(&mut self, byte: u8) {
        let byte = u32::from(byte);
        if byte < 144 {
            self.code(0x30 + byte, 8);
        } else {
            self.code(0x190 + byte - 144, 9);
        }
    }

    /// The 258 bytes that stand `distance` back; 1 or 13 back.
    fn copy(&mut self, distance: usize) {
        self.code(0xc0 + 285 - 280, 8);
        if distance == 1 {
            self.code(0, 5);
        } else {
            self.code(7, 5);
            self.put(0, 2);
        }
    }

    /// A zlib stream of one block in the fixed code begins.
    fn begin() -> Self {
        let mut bits = Self::default();
        bits.bytes.extend([0x78, 0x9c]);
        bits.put(0b011, 3);
        bits
    }

    fn end(mut self, adler: u32) -> Vec<u8> {
        self.code(0, 7);
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
        self.bytes.extend(adler.to_be_bytes());
        self.bytes
    }
}

/// Eight copies of 13 bits each are 13 bytes, so long runs of zeros compress to a pattern of this period.
const ZEROS_PERIOD: usize = 13;

/// A zlib stream of `count` zeros, made without them.
fn deflated_zeros(count: u64) -> Vec<u8> {
    let mut bits = Bits::begin();
    let copies = count.saturating_sub(1) / 258;
    for _ in 0..count - copies * 258 {
        bits.literal(0);
    }
    for _ in 0..copies {
        bits.copy(1);
    }
    bits.end(u32::try_from(count % 65_521).unwrap_or(0) << 16 | 1)
}

/// A zlib stream of `data` that is small if the data repeats with this period.
fn deflated_period(data: &[u8], period: usize) -> Vec<u8> {
    let mut bits = Bits::begin();
    let mut at = 0;
    while let Some(byte) = data.get(at) {
        let next = data.get(at..at + 258);
        if next.is_some() && at >= period && next == data.get(at - period..at + 258 - period) {
            bits.copy(period);
            at += 258;
        } else {
            bits.literal(*byte);
            at += 1;
        }
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    bits.end(b << 16 | a)
}
