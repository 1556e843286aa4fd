//! A page of a PDF: size, drawing, colors and images.

use std::ffi::{c_int, c_ulong};
use std::marker::PhantomData;
use std::ptr;

use pdfium_render::prelude::{
    FPDF_BITMAP, FPDF_BOOL, FPDF_DOCUMENT, FPDF_PAGE, FPDF_PAGEOBJECT, FS_RECTF, IFSDK_PAUSE,
};

use super::api::PdfiumApi;
use super::form::{DRAW_ANNOTATIONS, PdfForm};
use super::geometry::{Bounds, Matrix};
use super::text_page::TextPage;
use crate::shared_memory::Heartbeat;

const BITMAP_GRAY: c_int = 1;
const BITMAP_BGR: c_int = 2;
const RENDER_TO_BE_CONTINUED: c_int = 1;
const RENDER_DONE: c_int = 2;
const OBJECT_TEXT: c_int = 1;
const OBJECT_PATH: c_int = 2;
const OBJECT_IMAGE: c_int = 3;
const OBJECT_FORM: c_int = 5;

/// Maximum number of objects that are checked for colors; a page with more objects counts as colored.
const MAX_COLOR_CHECKED_OBJECTS: c_int = 50_000;

/// The color that PDFium reports for every pattern, whatever its colors are (`CPDF_ColorState::SetPattern`).
const PATTERN_COLOR: (u32, u32, u32) = (0xbf, 0xbf, 0xbf);

/// The color format of the pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColorMode {
    /// One byte per pixel.
    Gray,
    /// Three bytes per pixel: blue, green, red.
    Bgr,
}

/// The result of drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DrawStatus {
    Done,
    Failed,
    Canceled,
}

/// A parsed page.
pub(crate) struct Page<'d> {
    api: PdfiumApi,
    handle: FPDF_PAGE,
    form: Option<&'d PdfForm>,
    document: PhantomData<&'d ()>,
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        if let Some(form) = self.form {
            form.on_before_close_page(self.handle);
        }
        // SAFETY: the page is open and nothing borrows from it.
        unsafe { self.api.FPDF_ClosePage(self.handle) };
    }
}

impl<'d> Page<'d> {
    /// Parses a page. `document` must be open and stay open for `'d`.
    pub(super) fn load(
        api: PdfiumApi,
        document: FPDF_DOCUMENT,
        index: u32,
        form: Option<&'d PdfForm>,
    ) -> Option<Self> {
        let index = c_int::try_from(index).ok()?;
        // SAFETY: the document is open; a wrong index gives null.
        let handle = unsafe { api.FPDF_LoadPage(document, index) };
        if handle.is_null() {
            return None;
        }
        if let Some(form) = form {
            form.on_after_load_page(handle);
        }
        Some(Self {
            api,
            handle,
            form,
            document: PhantomData,
        })
    }

    /// Returns width and height in points after rotation.
    pub(crate) fn size(&self) -> (f32, f32) {
        // SAFETY: the page is open.
        unsafe {
            (
                self.api.FPDF_GetPageWidthF(self.handle),
                self.api.FPDF_GetPageHeightF(self.handle),
            )
        }
    }

    /// Returns the rotation in quarter turns clockwise, 0 to 3.
    pub(crate) fn quarter_turns(&self) -> u8 {
        // SAFETY: the page is open.
        u8::try_from(unsafe { self.api.FPDFPage_GetRotation(self.handle) }.rem_euclid(4)).unwrap_or(0)
    }

    /// Returns the box of the page.
    pub(crate) fn bounds(&self) -> Option<Bounds> {
        let mut rect = FS_RECTF {
            left: 0.0,
            top: 0.0,
            right: 0.0,
            bottom: 0.0,
        };
        // SAFETY: the page is open; PDFium writes only to `rect`.
        let found = unsafe { self.api.FPDF_GetPageBoundingBox(self.handle, &raw mut rect) };
        (found != 0).then_some(Bounds {
            left: rect.left,
            bottom: rect.bottom,
            right: rect.right,
            top: rect.top,
        })
    }

    /// Draws the page on white, with its annotations and form fields. It fills all of `pixels`, which hold `stride × height` bytes.
    pub(crate) fn draw(
        &self,
        pixels: &mut [u8],
        (width, height, stride): (u32, u32, u32),
        color_mode: ColorMode,
        heartbeat: &Heartbeat,
    ) -> DrawStatus {
        let (bytes, format) = match color_mode {
            ColorMode::Gray => (1, BITMAP_GRAY),
            ColorMode::Bgr => (3, BITMAP_BGR),
        };
        if u64::from(stride) < u64::from(width) * bytes
            || (pixels.len() as u64) < u64::from(stride) * u64::from(height)
        {
            return DrawStatus::Failed;
        }
        pixels.fill(0xff);
        let (Ok(width), Ok(height), Ok(stride)) = (
            c_int::try_from(width),
            c_int::try_from(height),
            c_int::try_from(stride),
        ) else {
            return DrawStatus::Failed;
        };
        let first = pixels.as_mut_ptr().cast();
        // SAFETY: `pixels` outlives the bitmap and has the size that the bitmap claims, as checked above.
        let handle = unsafe { self.api.FPDFBitmap_CreateEx(width, height, format, first, stride) };
        if handle.is_null() {
            return DrawStatus::Failed;
        }
        let bitmap = RenderBitmap {
            api: self.api,
            handle,
        };
        let mut pause = IFSDK_PAUSE {
            version: 1,
            NeedToPauseNow: Some(need_to_pause_now),
            user: ptr::from_ref(heartbeat).cast_mut().cast(),
        };
        let pause = &raw mut pause;
        // SAFETY: page and bitmap are open; `pause` and the heartbeat that it points to live until rendering is closed.
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
            while status == RENDER_TO_BE_CONTINUED && !heartbeat.is_canceled() {
                status = self.api.FPDF_RenderPage_Continue(self.handle, pause);
            }
            self.api.FPDF_RenderPage_Close(self.handle);
            if let Some(form) = self.form.filter(|_| status == RENDER_DONE) {
                form.draw_fields(bitmap.handle, self.handle, (width, height));
            }
            match status {
                RENDER_DONE => DrawStatus::Done,
                RENDER_TO_BE_CONTINUED => DrawStatus::Canceled,
                _ => DrawStatus::Failed,
            }
        }
    }

    /// Returns whether the page is known to have no colors before it is drawn: it has only text and lines, all in black, white or gray.
    /// Most text pages have none. Drawn in gray, they take two thirds of the time and a third of the memory.
    pub(crate) fn has_only_gray_objects(&self, heartbeat: &Heartbeat) -> bool {
        // SAFETY: the page is open.
        let (objects, annotations) = unsafe {
            (
                self.api.FPDFPage_CountObjects(self.handle),
                self.api.FPDFPage_GetAnnotCount(self.handle),
            )
        };
        if objects > MAX_COLOR_CHECKED_OBJECTS || annotations > 0 || self.form.is_some() {
            return false;
        }
        (0..objects).all(|index| {
            if index % 256 == 0 {
                heartbeat.record_beat();
            }
            // SAFETY: the page is open; a wrong index gives null.
            let object = unsafe { self.api.FPDFPage_GetObject(self.handle, index) };
            !object.is_null() && self.is_gray_object(object)
        })
    }

    fn is_gray_object(&self, object: FPDF_PAGEOBJECT) -> bool {
        let (mut r, mut g, mut b, mut a) = (0, 0, 0, 0);
        let to = (&raw mut r, &raw mut g, &raw mut b, &raw mut a);
        // SAFETY: the object belongs to the open page; each output has the type that the function expects.
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
        let is_gray = |(r, g, b)| r == g && g == b && (r, g, b) != PATTERN_COLOR;
        filled != 0 && stroked != 0 && is_gray(fill) && is_gray((r, g, b))
    }

    /// Calls `visit` with the box of each image on the page, including images inside form objects. It checks at most `limit` objects.
    pub(crate) fn visit_image_bounds(
        &self,
        limit: u32,
        heartbeat: &Heartbeat,
        visit: &mut dyn FnMut(Bounds),
    ) {
        // SAFETY: the page is open; a wrong index gives null.
        let count = unsafe { self.api.FPDFPage_CountObjects(self.handle) };
        let mut remaining_objects = limit;
        for index in 0..count {
            // SAFETY: as above.
            let object = unsafe { self.api.FPDFPage_GetObject(self.handle, index) };
            self.visit_images_of_object(
                object,
                &Matrix::IDENTITY,
                0,
                &mut remaining_objects,
                heartbeat,
                visit,
            );
            if remaining_objects == 0 {
                break;
            }
        }
    }

    fn visit_images_of_object(
        &self,
        object: FPDF_PAGEOBJECT,
        matrix: &Matrix,
        depth: u32,
        remaining_objects: &mut u32,
        heartbeat: &Heartbeat,
        visit: &mut dyn FnMut(Bounds),
    ) {
        *remaining_objects = remaining_objects.saturating_sub(1);
        if object.is_null() || *remaining_objects == 0 {
            return;
        }
        if remaining_objects.is_multiple_of(256) {
            heartbeat.record_beat();
        }
        // SAFETY: the object belongs to the open page; each output has the type that the function expects.
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
                    visit(matrix.transform_bounds(Bounds {
                        left: l,
                        bottom: b,
                        right: r,
                        top: t,
                    }));
                }
            }
            OBJECT_FORM if depth < 8 => {
                let mut form_matrix = Matrix::IDENTITY.0;
                // SAFETY: as above.
                let count = unsafe {
                    self.api.FPDFPageObj_GetMatrix(object, &raw mut form_matrix);
                    self.api.FPDFFormObj_CountObjects(object)
                };
                let child_matrix = Matrix(form_matrix).compose_with_next(matrix);
                for index in 0..c_ulong::try_from(count).unwrap_or(0) {
                    // SAFETY: as above; a wrong index gives null.
                    let child = unsafe { self.api.FPDFFormObj_GetObject(object, index) };
                    self.visit_images_of_object(
                        child,
                        &child_matrix,
                        depth + 1,
                        remaining_objects,
                        heartbeat,
                        visit,
                    );
                    if *remaining_objects == 0 {
                        return;
                    }
                }
            }
            _ => {}
        }
    }

    /// Loads the text of the page.
    pub(crate) fn load_text(&self) -> Option<TextPage<'_>> {
        // SAFETY: the page is open and outlives the text page, which borrows it.
        TextPage::new(self.api, unsafe { self.api.FPDFText_LoadPage(self.handle) })
    }
}

/// Callback in which PDFium asks whether it should pause. Records a heartbeat; pauses only if the request is canceled.
unsafe extern "C" fn need_to_pause_now(pause: *mut IFSDK_PAUSE) -> FPDF_BOOL {
    // SAFETY: `Page::draw` set `user` to a heartbeat that outlives the rendering.
    let heartbeat = unsafe { &*(*pause).user.cast::<Heartbeat>() };
    heartbeat.record_beat();
    FPDF_BOOL::from(heartbeat.is_canceled())
}

struct RenderBitmap {
    api: PdfiumApi,
    handle: FPDF_BITMAP,
}

impl Drop for RenderBitmap {
    fn drop(&mut self) {
        // SAFETY: the bitmap is open; it does not own its pixels.
        unsafe { self.api.FPDFBitmap_Destroy(self.handle) };
    }
}
