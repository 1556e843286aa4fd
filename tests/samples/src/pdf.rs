//! Pages to a PDF file.

use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, TextStr};

use crate::fonts::Face;

/// A4, in points.
pub const A4: (f32, f32) = (595.0, 842.0);

/// A page.
pub struct Page {
    /// Width and height in points, before rotation.
    pub size: (f32, f32),
    /// By how many degrees a reader turns it clockwise.
    pub rotate: i32,
    /// What is drawn on it.
    pub content: Content,
    /// The images it draws, as `Im0`, `Im1`, … in the document's order.
    pub images: Vec<usize>,
}

impl Page {
    /// An empty page.
    pub fn new(size: (f32, f32)) -> Self {
        Self {
            size,
            rotate: 0,
            content: Content::new(),
            images: Vec::new(),
        }
    }

    /// Sets `text` with its baseline's left end at (`x`, `y`), points from the lower left corner.
    pub fn text(&mut self, face: Face, size: f32, x: f32, y: f32, text: &str) {
        self.spaced_text(face, size, x, y, 0.0, text);
    }

    /// The same with every space wider by `space` points.
    pub fn spaced_text(&mut self, face: Face, size: f32, x: f32, y: f32, space: f32, text: &str) {
        self.content
            .begin_text()
            .set_font(face.resource(), size)
            .set_word_spacing(space)
            .next_line(x, y)
            .show(pdf_writer::Str(&crate::fonts::encode(text)))
            .end_text();
    }

    /// Draws image `index` of the document with its lower left corner at (`x`, `y`).
    pub fn image(&mut self, index: usize, x: f32, y: f32, width: f32, height: f32) {
        self.images.push(index);
        self.content
            .save_state()
            .transform([width, 0.0, 0.0, height, x, y])
            .x_object(Name(format!("Im{index}").as_bytes()))
            .restore_state();
    }
}

/// An image.
pub struct Image {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Gray if false.
    pub color: bool,
    /// Whether `bytes` are a JPEG file, or else rows of pixels.
    pub jpeg: bool,
    /// The data.
    pub bytes: Vec<u8>,
}

/// An entry of the outline.
pub struct Bookmark {
    /// Its title.
    pub title: String,
    /// 1 for the highest level; at most one deeper than the entry before.
    pub level: u8,
    /// Index of the page it points to.
    pub page: usize,
}

/// A document.
#[derive(Default)]
pub struct Document {
    /// Title in the metadata.
    pub title: String,
    /// Pages.
    pub pages: Vec<Page>,
    /// Images that the pages draw.
    pub images: Vec<Image>,
    /// Outline, depth first.
    pub outline: Vec<Bookmark>,
}

/// Gives out references.
struct Refs(i32);

impl Refs {
    fn next(&mut self) -> Ref {
        self.0 += 1;
        Ref::new(self.0)
    }

    fn many(&mut self, count: usize) -> Vec<Ref> {
        (0..count).map(|_| self.next()).collect()
    }
}

impl Document {
    /// The file. The catalog comes last, so that a file that lost its end lost everything a reader starts from.
    pub fn write(self) -> Vec<u8> {
        let mut pdf = Pdf::new();
        let mut refs = Refs(0);
        let (catalog, tree, info, root) = (refs.next(), refs.next(), refs.next(), refs.next());
        let fonts = refs.many(Face::ALL.len());
        let images = refs.many(self.images.len());
        let pages = refs.many(self.pages.len());
        for (face, font) in Face::ALL.into_iter().zip(&fonts) {
            let mut font = pdf.type1_font(*font);
            font.base_font(face.base_font());
            font.encoding_predefined(Name(b"WinAnsiEncoding"));
        }
        for (image, id) in self.images.iter().zip(&images) {
            let mut object = pdf.image_xobject(*id, &image.bytes);
            if image.jpeg {
                object.filter(Filter::DctDecode);
            }
            object.width(i32::try_from(image.width).unwrap_or(i32::MAX));
            object.height(i32::try_from(image.height).unwrap_or(i32::MAX));
            if image.color {
                object.color_space().device_rgb();
            } else {
                object.color_space().device_gray();
            }
            object.bits_per_component(8);
        }
        for (page, id) in self.pages.into_iter().zip(&pages) {
            let content = refs.next();
            let mut object = pdf.page(*id);
            object.parent(tree).contents(content);
            object.media_box(Rect::new(0.0, 0.0, page.size.0, page.size.1));
            if page.rotate != 0 {
                object.rotate(page.rotate);
            }
            let mut resources = object.resources();
            let mut dict = resources.fonts();
            for (face, font) in Face::ALL.into_iter().zip(&fonts) {
                dict.pair(face.resource(), *font);
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

/// Links each entry to its parent, neighbours and children.
fn write_outline(pdf: &mut Pdf, refs: &mut Refs, root: Ref, entries: &[Bookmark], pages: &[Ref]) {
    let ids = refs.many(entries.len());
    // By level, the entry that is open there: its index, or none for the root.
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
            let below = children_of(i + 1);
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
            if let (Some(first), Some(last)) = (id(below.first()), id(below.last())) {
                object
                    .first(first)
                    .last(last)
                    .count(-i32::try_from(below.len()).unwrap_or(i32::MAX));
            }
            if let Some(page) = pages.get(entry.page) {
                object.dest().page(*page).fit();
            }
        }
    }
}
