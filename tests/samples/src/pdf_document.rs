//! A minimal PDF writer for pages with text, images and an outline.

use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, TextStr};

use crate::fonts::Typeface;

/// Width and height of an A4 page, in points.
pub const A4_POINTS: (f32, f32) = (595.0, 842.0);

/// A page of a document.
pub struct Page {
    /// Width and height in points, before rotation.
    pub size: (f32, f32),
    /// The rotation by which a viewer shows the page, in degrees clockwise.
    pub rotate: i32,
    /// The page's drawing operations.
    pub content: Content,
    /// Indexes of the document's images that the page draws; index 0 is the resource `Im0`.
    pub images: Vec<usize>,
}

impl Page {
    /// Creates an empty page.
    pub fn new(size: (f32, f32)) -> Self {
        Self {
            size,
            rotate: 0,
            content: Content::new(),
            images: Vec::new(),
        }
    }

    /// Draws `text` with the left end of its baseline at (`x`, `y`), in points from the lower left corner.
    pub fn draw_text(&mut self, face: Typeface, size: f32, x: f32, y: f32, text: &str) {
        self.draw_spaced_text(face, size, x, y, 0.0, text);
    }

    /// Draws `text` like [`draw_text`](Self::draw_text), with every space wider by `space` points.
    pub fn draw_spaced_text(&mut self, face: Typeface, size: f32, x: f32, y: f32, space: f32, text: &str) {
        self.content
            .begin_text()
            .set_font(face.resource_name(), size)
            .set_word_spacing(space)
            .next_line(x, y)
            .show(pdf_writer::Str(&crate::fonts::encode_winansi(text)))
            .end_text();
    }

    /// Draws image `index` of the document with its lower left corner at (`x`, `y`).
    pub fn draw_image(&mut self, index: usize, x: f32, y: f32, width: f32, height: f32) {
        self.images.push(index);
        self.content
            .save_state()
            .transform([width, 0.0, 0.0, height, x, y])
            .x_object(Name(format!("Im{index}").as_bytes()))
            .restore_state();
    }
}

/// An image of a document.
pub struct Image {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Whether the image is RGB instead of grayscale.
    pub is_color: bool,
    /// Whether `bytes` is a JPEG file instead of rows of pixels.
    pub is_jpeg: bool,
    /// The JPEG file or pixels.
    pub bytes: Vec<u8>,
}

/// An entry of a document's outline.
pub struct Bookmark {
    /// The title.
    pub title: String,
    /// The level, 1 for the highest; at most one deeper than the previous entry.
    pub level: u8,
    /// Index of the target page.
    pub page: usize,
}

/// A document that can be written as a PDF file.
#[derive(Default)]
pub struct Document {
    /// The title in the metadata.
    pub title: String,
    /// The pages in order.
    pub pages: Vec<Page>,
    /// The images that the pages draw.
    pub images: Vec<Image>,
    /// The outline's entries, depth first.
    pub outline: Vec<Bookmark>,
}

/// Allocates object references.
struct RefAllocator(i32);

impl RefAllocator {
    fn next_ref(&mut self) -> Ref {
        self.0 += 1;
        Ref::new(self.0)
    }

    fn next_refs(&mut self, count: usize) -> Vec<Ref> {
        (0..count).map(|_| self.next_ref()).collect()
    }
}

impl Document {
    /// Builds the PDF file. The catalog comes last, so that a truncated file has no catalog.
    pub fn to_pdf_bytes(self) -> Vec<u8> {
        let mut pdf = Pdf::new();
        let mut refs = RefAllocator(0);
        let (catalog, tree, info, root) =
            (refs.next_ref(), refs.next_ref(), refs.next_ref(), refs.next_ref());
        let fonts = refs.next_refs(Typeface::ALL.len());
        let images = refs.next_refs(self.images.len());
        let pages = refs.next_refs(self.pages.len());
        for (face, font) in Typeface::ALL.into_iter().zip(&fonts) {
            let mut font = pdf.type1_font(*font);
            font.base_font(face.base_font_name());
            font.encoding_predefined(Name(b"WinAnsiEncoding"));
        }
        for (image, id) in self.images.iter().zip(&images) {
            let mut object = pdf.image_xobject(*id, &image.bytes);
            if image.is_jpeg {
                object.filter(Filter::DctDecode);
            }
            object.width(i32::try_from(image.width).unwrap_or(i32::MAX));
            object.height(i32::try_from(image.height).unwrap_or(i32::MAX));
            if image.is_color {
                object.color_space().device_rgb();
            } else {
                object.color_space().device_gray();
            }
            object.bits_per_component(8);
        }
        for (page, id) in self.pages.into_iter().zip(&pages) {
            let content = refs.next_ref();
            let mut object = pdf.page(*id);
            object.parent(tree).contents(content);
            object.media_box(Rect::new(0.0, 0.0, page.size.0, page.size.1));
            if page.rotate != 0 {
                object.rotate(page.rotate);
            }
            let mut resources = object.resources();
            let mut dict = resources.fonts();
            for (face, font) in Typeface::ALL.into_iter().zip(&fonts) {
                dict.pair(face.resource_name(), *font);
            }
            dict.finish();
            if !page.images.is_empty() {
                let mut dict = resources.x_objects();
                for index in page.images {
                    if let Some(image) = images.get(index) {
                        dict.pair(Name(format!("Im{index}").as_bytes()), *image);
                    }
                }
            }
            resources.finish();
            object.finish();
            pdf.stream(content, &page.content.finish());
        }
        let has_outline = !self.outline.is_empty();
        if has_outline {
            write_outline(&mut pdf, &mut refs, root, &self.outline, &pages);
        }
        pdf.document_info(info)
            .title(TextStr(&self.title))
            .producer(TextStr("weir-samples"));
        pdf.pages(tree)
            .count(i32::try_from(pages.len()).unwrap_or(i32::MAX))
            .kids(pages);
        let mut object = pdf.catalog(catalog);
        object.pages(tree);
        if has_outline {
            object.outlines(root);
        }
        object.finish();
        pdf.finish()
    }
}

/// Writes the outline and links each entry to its parent, siblings and children.
fn write_outline(pdf: &mut Pdf, refs: &mut RefAllocator, root: Ref, entries: &[Bookmark], pages: &[Ref]) {
    let ids = refs.next_refs(entries.len());
    // For each level, the index of the latest entry.
    let mut open: Vec<usize> = Vec::new();
    let mut parents = Vec::with_capacity(entries.len());
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); entries.len() + 1];
    for (i, entry) in entries.iter().enumerate() {
        open.truncate(usize::from(entry.level.max(1)) - 1);
        let parent = open.last().copied();
        parents.push(parent);
        if let Some(of) = children.get_mut(parent.map_or(0, |p| p + 1)) {
            of.push(i);
        }
        open.push(i);
    }
    let id = |i: Option<&usize>| i.and_then(|i| ids.get(*i)).copied();
    let children_of = |i: usize| children.get(i).map(Vec::as_slice).unwrap_or_default();
    let top = children_of(0);
    let mut object = pdf.outline(root);
    if let (Some(first), Some(last)) = (id(top.first()), id(top.last())) {
        object.first(first).last(last);
    }
    object.count(i32::try_from(top.len()).unwrap_or(i32::MAX));
    object.finish();
    for siblings in &children {
        for (at, i) in siblings.iter().enumerate() {
            let (Some(entry), Some(own)) = (entries.get(*i), ids.get(*i)) else {
                continue;
            };
            let parent = parents.get(*i).copied().flatten();
            let child_indexes = children_of(i + 1);
            let mut object = pdf.outline_item(*own);
            object
                .title(TextStr(&entry.title))
                .parent(id(parent.as_ref()).unwrap_or(root));
            if let Some(previous) = at.checked_sub(1).and_then(|at| id(siblings.get(at))) {
                object.prev(previous);
            }
            if let Some(next) = id(siblings.get(at + 1)) {
                object.next(next);
            }
            if let (Some(first), Some(last)) = (id(child_indexes.first()), id(child_indexes.last())) {
                object
                    .first(first)
                    .last(last)
                    .count(-i32::try_from(child_indexes.len()).unwrap_or(i32::MAX));
            }
            if let Some(page) = pages.get(entry.page) {
                object.dest().page(*page).fit();
            }
        }
    }
}
