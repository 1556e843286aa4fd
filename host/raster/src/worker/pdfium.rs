//! PDFium's C interface, made safe: what is borrowed cannot outlive what it is borrowed from.
//!
//! The C functions are called directly, through the table of pointers that `pdfium-render` loads, and not through its
//! higher layers: those have no progressive rendering, which is what the worker's pulse and its abandoning of pages live
//! on, and they ask PDFium for more than is needed here. PDFium allows one thread at a time; nothing here is `Send`.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_ulong, c_void};
use std::marker::PhantomData;
use std::path::Path;
use std::ptr;

use memmap2::Mmap;
use pdfium_render::prelude::{
    FPDF_BITMAP, FPDF_BOOKMARK, FPDF_BOOL, FPDF_DOCUMENT, FPDF_PAGE, FPDF_PAGEOBJECT, FPDF_TEXTPAGE,
    FS_MATRIX, FS_RECTF, FS_SIZEF, IFSDK_PAUSE, Pdfium, PdfiumError, PdfiumLibraryBindings,
};

use crate::shared::Pulse;

// Values of PDFium's public headers (fpdfview.h, fpdf_edit.h, fpdf_progressive.h, fpdf_doc.h) that the crate keeps to
// itself.
const ERROR_PASSWORD: c_ulong = 4;
const ERROR_SECURITY: c_ulong = 5;
const BITMAP_BGR: c_int = 2;
const DRAW_ANNOTATIONS: c_int = 1;
const RENDER_TO_BE_CONTINUED: c_int = 1;
const RENDER_DONE: c_int = 2;
const OBJECT_IMAGE: c_int = 3;
const OBJECT_FORM: c_int = 5;
const ACTION_GOTO: c_ulong = 1;

/// Bytes of a title that are looked at.
const TITLE_BYTES: c_ulong = 1 << 16;

type Api = &'static dyn PdfiumLibraryBindings;

/// PDFium, loaded.
pub(super) struct Library {
    api: Api,
}

/// Why a file is not opened.
pub(super) enum OpenError {
    Password,
    Damaged(&'static str),
}

impl Library {
    pub(super) fn load(path: &Path) -> Result<Self, PdfiumError> {
        let api: Api = Box::leak(Pdfium::bind_to_library(path)?);
        // SAFETY: called once, before any other function of the library.
        unsafe { api.FPDF_InitLibrary() };
        Ok(Self { api })
    }

    /// `password` must not contain a zero byte.
    pub(super) fn open(&self, file: Mmap, password: Option<&str>) -> Result<Document, OpenError> {
        let api = self.api;
        // SAFETY: the document keeps the map, and so the bytes, until it is closed.
        let handle = unsafe { api.FPDF_LoadMemDocument64(&file, password) };
        if handle.is_null() {
            // SAFETY: reads a number.
            return Err(match unsafe { api.FPDF_GetLastError() } {
                ERROR_PASSWORD => OpenError::Password,
                ERROR_SECURITY => OpenError::Damaged("its encryption is of an unknown kind"),
                _ => OpenError::Damaged("neither its table of objects nor its pages can be found"),
            });
        }
        Ok(Document {
            api,
            handle,
            _file: file,
        })
    }
}

/// An open document.
pub(super) struct Document {
    api: Api,
    handle: FPDF_DOCUMENT,
    /// Dropped after `drop` has closed the document.
    _file: Mmap,
}

impl Drop for Document {
    fn drop(&mut self) {
        // SAFETY: the handle is open; pages and bookmarks borrow from `self` and are gone.
        unsafe { self.api.FPDF_CloseDocument(self.handle) };
    }
}

impl Document {
    pub(super) fn pages(&self) -> u32 {
        // SAFETY: the handle is open.
        u32::try_from(unsafe { self.api.FPDF_GetPageCount(self.handle) }).unwrap_or(0)
    }

    pub(super) fn title(&self) -> Option<String> {
        let title = utf16(|buffer, length| {
            // SAFETY: PDFium writes at most `length` bytes.
            unsafe { self.api.FPDF_GetMetaText(self.handle, "Title", buffer, length) }
        });
        (!title.is_empty()).then_some(title)
    }

    /// Width and height in points after rotation, without parsing the page.
    pub(super) fn page_size(&self, index: u32) -> Option<(f32, f32)> {
        let mut size = FS_SIZEF {
            width: 0.0,
            height: 0.0,
        };
        let index = c_int::try_from(index).ok()?;
        // SAFETY: the handle is open, `size` is written to.
        let found = unsafe {
            self.api
                .FPDF_GetPageSizeByIndexF(self.handle, index, &raw mut size)
        };
        (found != 0).then_some((size.width, size.height))
    }

    /// Parses a page.
    pub(super) fn page(&self, index: u32) -> Option<Page<'_>> {
        let index = c_int::try_from(index).ok()?;
        // SAFETY: the handle is open; a wrong index gives null.
        let handle = unsafe { self.api.FPDF_LoadPage(self.handle, index) };
        (!handle.is_null()).then_some(Page {
            api: self.api,
            handle,
            document: PhantomData,
        })
    }

    pub(super) fn first_bookmark(&self) -> Option<Bookmark<'_>> {
        Bookmark::below(self, ptr::null_mut())
    }
}

/// An entry of the outline.
pub(super) struct Bookmark<'d> {
    document: &'d Document,
    handle: FPDF_BOOKMARK,
}

impl<'d> Bookmark<'d> {
    fn new(document: &'d Document, handle: FPDF_BOOKMARK) -> Option<Self> {
        (!handle.is_null()).then_some(Self { document, handle })
    }

    /// The first entry below `parent`; null is the root.
    fn below(document: &'d Document, parent: FPDF_BOOKMARK) -> Option<Self> {
        // SAFETY: both handles belong to the open document.
        Self::new(document, unsafe {
            document.api.FPDFBookmark_GetFirstChild(document.handle, parent)
        })
    }

    pub(super) fn first_child(&self) -> Option<Self> {
        Self::below(self.document, self.handle)
    }

    pub(super) fn next_sibling(&self) -> Option<Self> {
        // SAFETY: both handles belong to the open document.
        Self::new(self.document, unsafe {
            self.document
                .api
                .FPDFBookmark_GetNextSibling(self.document.handle, self.handle)
        })
    }

    /// Tells entries apart.
    pub(super) fn id(&self) -> usize {
        self.handle.addr()
    }

    pub(super) fn title(&self) -> String {
        utf16(|buffer, length| {
            // SAFETY: PDFium writes at most `length` bytes.
            unsafe {
                self.document
                    .api
                    .FPDFBookmark_GetTitle(self.handle, buffer, length)
            }
        })
    }

    /// The 0-based index of the page it points to.
    pub(super) fn page(&self) -> Option<u32> {
        let (api, document) = (self.document.api, self.document.handle);
        // SAFETY: every handle belongs to the open document and is checked for null before it is used.
        let index = unsafe {
            let mut destination = api.FPDFBookmark_GetDest(document, self.handle);
            if destination.is_null() {
                let action = api.FPDFBookmark_GetAction(self.handle);
                if !action.is_null() && api.FPDFAction_GetType(action) == ACTION_GOTO {
                    destination = api.FPDFAction_GetDest(document, action);
                }
            }
            if destination.is_null() {
                return None;
            }
            api.FPDFDest_GetDestPageIndex(document, destination)
        };
        u32::try_from(index).ok()
    }
}

/// A string that PDFium writes as UTF-16LE with a closing zero, after it has been asked for the length in bytes.
fn utf16(write: impl Fn(*mut c_void, c_ulong) -> c_ulong) -> String {
    let length = write(ptr::null_mut(), 0);
    if !(2..=TITLE_BYTES).contains(&length) {
        return String::new();
    }
    let mut units = vec![0_u16; usize::try_from(length).unwrap_or(0).div_ceil(2)];
    write(units.as_mut_ptr().cast(), length);
    while units.last() == Some(&0) {
        units.pop();
    }
    String::from_utf16_lossy(&units)
}

/// A box in the page's own coordinates: points, y upwards, before rotation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    pub(super) left: f32,
    pub(super) bottom: f32,
    pub(super) right: f32,
    pub(super) top: f32,
}

/// What became of drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drawn {
    Done,
    Failed,
    Abandoned,
}

/// A parsed page.
pub(super) struct Page<'d> {
    api: Api,
    handle: FPDF_PAGE,
    document: PhantomData<&'d Document>,
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        // SAFETY: the page is open and nothing borrows from it any more.
        unsafe { self.api.FPDF_ClosePage(self.handle) };
    }
}

impl Page<'_> {
    /// Width and height in points after rotation.
    pub(super) fn size(&self) -> (f32, f32) {
        // SAFETY: the page is open.
        unsafe {
            (
                self.api.FPDF_GetPageWidthF(self.handle),
                self.api.FPDF_GetPageHeightF(self.handle),
            )
        }
    }

    /// Quarter turns clockwise, 0 to 3.
    pub(super) fn rotation(&self) -> u8 {
        // SAFETY: the page is open.
        u8::try_from(unsafe { self.api.FPDFPage_GetRotation(self.handle) }.rem_euclid(4)).unwrap_or(0)
    }

    /// The part of the plane that is the page.
    pub(super) fn bounds(&self) -> Option<Bounds> {
        let mut rect = FS_RECTF {
            left: 0.0,
            top: 0.0,
            right: 0.0,
            bottom: 0.0,
        };
        // SAFETY: the page is open, `rect` is written to.
        let found = unsafe { self.api.FPDF_GetPageBoundingBox(self.handle, &raw mut rect) };
        (found != 0).then_some(Bounds {
            left: rect.left,
            bottom: rect.bottom,
            right: rect.right,
            top: rect.top,
        })
    }

    /// Draws the page with its annotations over all of `pixels`, which hold `stride × height` bytes, on white.
    pub(super) fn draw(
        &self,
        pixels: &mut [u8],
        (width, height, stride): (u32, u32, u32),
        pulse: &Pulse,
    ) -> Drawn {
        if u64::from(stride) < u64::from(width) * 3
            || (pixels.len() as u64) < u64::from(stride) * u64::from(height)
        {
            return Drawn::Failed;
        }
        pixels.fill(0xff);
        let (Ok(width), Ok(height), Ok(stride)) = (
            c_int::try_from(width),
            c_int::try_from(height),
            c_int::try_from(stride),
        ) else {
            return Drawn::Failed;
        };
        let first = pixels.as_mut_ptr().cast();
        // SAFETY: `pixels` outlives the bitmap and is as large as the bitmap says, which was checked above.
        let handle = unsafe {
            self.api
                .FPDFBitmap_CreateEx(width, height, BITMAP_BGR, first, stride)
        };
        if handle.is_null() {
            return Drawn::Failed;
        }
        let bitmap = Bitmap {
            api: self.api,
            handle,
        };
        let mut pause = IFSDK_PAUSE {
            version: 1,
            NeedToPauseNow: Some(beat),
            user: ptr::from_ref(pulse).cast_mut().cast(),
        };
        let pause = &raw mut pause;
        // SAFETY: page and bitmap are open; `pause` and the pulse it points to live until rendering is closed.
        unsafe {
            let mut status = self.api.FPDF_RenderPageBitmap_Start(
                bitmap.handle,
                self.handle,
                0,
                0,
                width,
                height,
                0,
                DRAW_ANNOTATIONS,
                pause,
            );
            while status == RENDER_TO_BE_CONTINUED && !pulse.is_abandoned() {
                status = self.api.FPDF_RenderPage_Continue(self.handle, pause);
            }
            self.api.FPDF_RenderPage_Close(self.handle);
            match status {
                RENDER_DONE => Drawn::Done,
                RENDER_TO_BE_CONTINUED => Drawn::Abandoned,
                _ => Drawn::Failed,
            }
        }
    }

    /// Calls `visit` with the box of each image on the page, those inside of form objects included, looking at no more
    /// than `limit` objects.
    pub(super) fn images(&self, limit: u32, pulse: &Pulse, visit: &mut dyn FnMut(Bounds)) {
        // SAFETY: the page is open; a wrong index gives null.
        let count = unsafe { self.api.FPDFPage_CountObjects(self.handle) };
        let mut left = limit;
        for index in 0..count {
            // SAFETY: as above.
            let object = unsafe { self.api.FPDFPage_GetObject(self.handle, index) };
            self.visit_images(object, &Matrix::IDENTITY, 0, &mut left, pulse, visit);
            if left == 0 {
                break;
            }
        }
    }

    fn visit_images(
        &self,
        object: FPDF_PAGEOBJECT,
        matrix: &Matrix,
        depth: u32,
        left: &mut u32,
        pulse: &Pulse,
        visit: &mut dyn FnMut(Bounds),
    ) {
        *left = left.saturating_sub(1);
        if object.is_null() || *left == 0 {
            return;
        }
        if left.is_multiple_of(256) {
            pulse.beat();
        }
        // SAFETY: the object belongs to the open page; what is written to is of the type that the function asks for.
        match unsafe { self.api.FPDFPageObj_GetType(object) } {
            OBJECT_IMAGE => {
                let (mut l, mut b, mut r, mut t) = (0.0, 0.0, 0.0, 0.0);
                let bounds = (&raw mut l, &raw mut b, &raw mut r, &raw mut t);
                // SAFETY: as above.
                let found = unsafe {
                    self.api
                        .FPDFPageObj_GetBounds(object, bounds.0, bounds.1, bounds.2, bounds.3)
                };
                if found != 0 {
                    visit(matrix.bounds(Bounds {
                        left: l,
                        bottom: b,
                        right: r,
                        top: t,
                    }));
                }
            }
            OBJECT_FORM if depth < 8 => {
                let mut own = Matrix::IDENTITY.0;
                // SAFETY: as above.
                let count = unsafe {
                    self.api.FPDFPageObj_GetMatrix(object, &raw mut own);
                    self.api.FPDFFormObj_CountObjects(object)
                };
                let inner = Matrix(own).then(matrix);
                for index in 0..c_ulong::try_from(count).unwrap_or(0) {
                    // SAFETY: as above; a wrong index gives null.
                    let child = unsafe { self.api.FPDFFormObj_GetObject(object, index) };
                    self.visit_images(child, &inner, depth + 1, left, pulse, visit);
                    if *left == 0 {
                        return;
                    }
                }
            }
            _ => {}
        }
    }

    /// The page's text.
    pub(super) fn text(&self) -> Option<TextPage<'_>> {
        // SAFETY: the page is open.
        let handle = unsafe { self.api.FPDFText_LoadPage(self.handle) };
        (!handle.is_null()).then_some(TextPage {
            api: self.api,
            handle,
            page: PhantomData,
        })
    }
}

/// PDFium asks whether it should pause.
unsafe extern "C" fn beat(pause: *mut IFSDK_PAUSE) -> FPDF_BOOL {
    // SAFETY: `Page::draw` set `user` to a pulse that outlives the rendering.
    let pulse = unsafe { &*(*pause).user.cast::<Pulse>() };
    pulse.beat();
    FPDF_BOOL::from(pulse.is_abandoned())
}

struct Bitmap {
    api: Api,
    handle: FPDF_BITMAP,
}

impl Drop for Bitmap {
    fn drop(&mut self) {
        // SAFETY: the bitmap is open; its pixels are not PDFium's to free.
        unsafe { self.api.FPDFBitmap_Destroy(self.handle) };
    }
}

/// A transformation of the plane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix(pub(super) FS_MATRIX);

impl Matrix {
    const IDENTITY: Self = Self(FS_MATRIX {
        a: 1.0,
        b: 0.0,
        c: 0.0,
        d: 1.0,
        e: 0.0,
        f: 0.0,
    });

    fn apply(&self, x: f32, y: f32) -> (f32, f32) {
        let m = &self.0;
        (m.a * x + m.c * y + m.e, m.b * x + m.d * y + m.f)
    }

    /// First this one, then `next`.
    fn then(&self, next: &Self) -> Self {
        let (m, n) = (&self.0, &next.0);
        let (e, f) = next.apply(m.e, m.f);
        Self(FS_MATRIX {
            a: m.a * n.a + m.b * n.c,
            b: m.a * n.b + m.b * n.d,
            c: m.c * n.a + m.d * n.c,
            d: m.c * n.b + m.d * n.d,
            e,
            f,
        })
    }

    /// The box around the transformed box.
    fn bounds(&self, b: Bounds) -> Bounds {
        let corners = [
            self.apply(b.left, b.bottom),
            self.apply(b.right, b.bottom),
            self.apply(b.left, b.top),
            self.apply(b.right, b.top),
        ];
        let mut around = Bounds {
            left: f32::INFINITY,
            bottom: f32::INFINITY,
            right: f32::NEG_INFINITY,
            top: f32::NEG_INFINITY,
        };
        for (x, y) in corners {
            around.left = around.left.min(x);
            around.right = around.right.max(x);
            around.bottom = around.bottom.min(y);
            around.top = around.top.max(y);
        }
        around
    }
}

/// A character as PDFium placed it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Glyph {
    /// Its code point; 0 if it has none.
    pub(super) code: u32,
    /// Put in by PDFium, for a gap between words or the end of a line.
    pub(super) generated: bool,
    /// A hyphen at the end of a line.
    pub(super) hyphen: bool,
    /// Size of the font in its own units; times the matrix it is in points.
    pub(super) size: f32,
    pub(super) matrix: FS_MATRIX,
    pub(super) origin: (f32, f32),
    /// From the font's ascent to its descent, over its advance.
    pub(super) bounds: Bounds,
}

/// The text of a page.
pub(super) struct TextPage<'p> {
    api: Api,
    handle: FPDF_TEXTPAGE,
    page: PhantomData<&'p Page<'p>>,
}

impl Drop for TextPage<'_> {
    fn drop(&mut self) {
        // SAFETY: the text page is open.
        unsafe { self.api.FPDFText_ClosePage(self.handle) };
    }
}

impl TextPage<'_> {
    /// Characters, those that PDFium put in included.
    pub(super) fn chars(&self) -> u32 {
        // SAFETY: the text page is open.
        u32::try_from(unsafe { self.api.FPDFText_CountChars(self.handle) }).unwrap_or(0)
    }

    pub(super) fn glyph(&self, index: u32) -> Option<Glyph> {
        let index = c_int::try_from(index).ok()?;
        let mut rect = FS_RECTF {
            left: 0.0,
            top: 0.0,
            right: 0.0,
            bottom: 0.0,
        };
        let mut matrix = Matrix::IDENTITY.0;
        let (mut x, mut y) = (0.0_f64, 0.0_f64);
        // SAFETY: the text page is open, a wrong index is refused, what is written to is of the type asked for.
        unsafe {
            let api = self.api;
            let code = api.FPDFText_GetUnicode(self.handle, index);
            let generated = api.FPDFText_IsGenerated(self.handle, index) == 1;
            let hyphen = api.FPDFText_IsHyphen(self.handle, index) == 1;
            let size = api.FPDFText_GetFontSize(self.handle, index) as f32;
            api.FPDFText_GetLooseCharBox(self.handle, index, &raw mut rect);
            api.FPDFText_GetMatrix(self.handle, index, &raw mut matrix);
            api.FPDFText_GetCharOrigin(self.handle, index, &raw mut x, &raw mut y);
            Some(Glyph {
                code,
                generated,
                hyphen,
                size,
                matrix,
                origin: (x as f32, y as f32),
                bounds: Bounds {
                    left: rect.left,
                    bottom: rect.bottom,
                    right: rect.right,
                    top: rect.top,
                },
            })
        }
    }
}
