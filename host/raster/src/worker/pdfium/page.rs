//! Pages: their measures, their pixels, their images.

use std::ffi::{c_int, c_ulong};
use std::marker::PhantomData;
use std::ptr;

use pdfium_render::prelude::{
    FPDF_BITMAP, FPDF_BOOL, FPDF_DOCUMENT, FPDF_PAGE, FPDF_PAGEOBJECT, FS_RECTF, IFSDK_PAUSE,
};

use super::form::{DRAW_ANNOTATIONS, Form};
use super::geometry::{Bounds, Matrix};
use super::glyph::TextPage;
use super::{Api, Document};
use crate::shared::Pulse;

const BITMAP_GRAY: c_int = 1;
const BITMAP_BGR: c_int = 2;
const RENDER_TO_BE_CONTINUED: c_int = 1;
const RENDER_DONE: c_int = 2;
const OBJECT_TEXT: c_int = 1;
const OBJECT_PATH: c_int = 2;
const OBJECT_IMAGE: c_int = 3;
const OBJECT_FORM: c_int = 5;

/// Objects of a page that are looked at before it is taken to have colours.
const COLOURS_LIMIT: c_int = 50_000;

/// What PDFium says is the colour of a pattern, whatever its colours are (`CPDF_ColorState::SetPattern`).
const PATTERN: (u32, u32, u32) = (0xbf, 0xbf, 0xbf);

/// How pixels are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Colours {
    /// One byte a pixel.
    Gray,
    /// Three bytes: blue, green, red.
    Bgr,
}

/// What became of drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Drawn {
    Done,
    Failed,
    Abandoned,
}

/// A parsed page.
pub(in crate::worker) struct Page<'d> {
    api: Api,
    handle: FPDF_PAGE,
    form: Option<&'d Form>,
    document: PhantomData<&'d Document>,
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        if let Some(form) = self.form {
            form.leave(self.handle);
        }
        // SAFETY: the page is open and nothing borrows from it any more.
        unsafe { self.api.FPDF_ClosePage(self.handle) };
    }
}

impl<'d> Page<'d> {
    /// `document` is open and stays so as long as `'d`.
    pub(super) fn load(
        api: Api,
        document: FPDF_DOCUMENT,
        index: u32,
        form: Option<&'d Form>,
    ) -> Option<Self> {
        let index = c_int::try_from(index).ok()?;
        // SAFETY: the document is open; a wrong index gives null.
        let handle = unsafe { api.FPDF_LoadPage(document, index) };
        if handle.is_null() {
            return None;
        }
        if let Some(form) = form {
            form.enter(handle);
        }
        Some(Self {
            api,
            handle,
            form,
            document: PhantomData,
        })
    }

    /// Width and height in points after rotation.
    pub(in crate::worker) fn size(&self) -> (f32, f32) {
        // SAFETY: the page is open.
        unsafe {
            (
                self.api.FPDF_GetPageWidthF(self.handle),
                self.api.FPDF_GetPageHeightF(self.handle),
            )
        }
    }

    /// Quarter turns clockwise, 0 to 3.
    pub(in crate::worker) fn rotation(&self) -> u8 {
        // SAFETY: the page is open.
        u8::try_from(unsafe { self.api.FPDFPage_GetRotation(self.handle) }.rem_euclid(4)).unwrap_or(0)
    }

    /// The part of the plane that is the page.
    pub(in crate::worker) fn bounds(&self) -> Option<Bounds> {
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

    /// Draws the page with its annotations and form fields over all of `pixels`, which hold `stride × height` bytes, on white.
    pub(in crate::worker) fn draw(
        &self,
        pixels: &mut [u8],
        (width, height, stride): (u32, u32, u32),
        colours: Colours,
        pulse: &Pulse,
    ) -> Drawn {
        let (bytes, format) = match colours {
            Colours::Gray => (1, BITMAP_GRAY),
            Colours::Bgr => (3, BITMAP_BGR),
        };
        if u64::from(stride) < u64::from(width) * bytes
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
        let handle = unsafe { self.api.FPDFBitmap_CreateEx(width, height, format, first, stride) };
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
            if let Some(form) = self.form.filter(|_| status == RENDER_DONE) {
                form.draw(bitmap.handle, self.handle, (width, height));
            }
            match status {
                RENDER_DONE => Drawn::Done,
                RENDER_TO_BE_CONTINUED => Drawn::Abandoned,
                _ => Drawn::Failed,
            }
        }
    }

    /// Whether the page can be told to have no colours before it is drawn: nothing but text and lines, all black, white or
    /// gray. Most pages of text are so; drawn in gray they take two thirds of the time and a third of the memory.
    pub(in crate::worker) fn is_gray(&self, pulse: &Pulse) -> bool {
        // SAFETY: the page is open.
        let (objects, annotations) = unsafe {
            (
                self.api.FPDFPage_CountObjects(self.handle),
                self.api.FPDFPage_GetAnnotCount(self.handle),
            )
        };
        if objects > COLOURS_LIMIT || annotations > 0 || self.form.is_some() {
            return false;
        }
        (0..objects).all(|index| {
            if index % 256 == 0 {
                pulse.beat();
            }
            // SAFETY: the page is open; a wrong index gives null.
            let object = unsafe { self.api.FPDFPage_GetObject(self.handle, index) };
            !object.is_null() && self.is_gray_object(object)
        })
    }

    fn is_gray_object(&self, object: FPDF_PAGEOBJECT) -> bool {
        let (mut r, mut g, mut b, mut a) = (0, 0, 0, 0);
        let to = (&raw mut r, &raw mut g, &raw mut b, &raw mut a);
        // SAFETY: the object belongs to the open page; what is written to is of the type that the function asks for.
        let kind = unsafe { self.api.FPDFPageObj_GetType(object) };
        if kind != OBJECT_TEXT && kind != OBJECT_PATH {
            return false;
        }
        // SAFETY: as above.
        let filled = unsafe { self.api.FPDFPageObj_GetFillColor(object, to.0, to.1, to.2, to.3) };
        let fill = (r, g, b);
        // SAFETY: as above.
        let stroked = unsafe {
            self.api
                .FPDFPageObj_GetStrokeColor(object, to.0, to.1, to.2, to.3)
        };
        let is_gray = |(r, g, b)| r == g && g == b && (r, g, b) != PATTERN;
        filled != 0 && stroked != 0 && is_gray(fill) && is_gray((r, g, b))
    }

    /// Calls `visit` with the box of each image on the page, those inside of form objects included, looking at no more
    /// than `limit` objects.
    pub(in crate::worker) fn images(&self, limit: u32, pulse: &Pulse, visit: &mut dyn FnMut(Bounds)) {
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
    pub(in crate::worker) fn text(&self) -> Option<TextPage<'_>> {
        // SAFETY: the page is open, and outlives its text, which borrows it.
        TextPage::new(self.api, unsafe { self.api.FPDFText_LoadPage(self.handle) })
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
