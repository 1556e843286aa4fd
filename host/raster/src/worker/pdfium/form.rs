//! Form fields. PDFium draws their content separately, because it is not part of the page itself.

use std::ffi::c_int;

use pdfium_render::prelude::{FPDF_BITMAP, FPDF_DOCUMENT, FPDF_FORMFILLINFO, FPDF_FORMHANDLE, FPDF_PAGE};

use super::api::PdfiumApi;

pub(super) const DRAW_ANNOTATIONS: c_int = 1;
const FORM_NONE: c_int = 0;

/// The form of a document.
pub(super) struct PdfForm {
    api: PdfiumApi,
    handle: FPDF_FORMHANDLE,
    /// PDFium keeps a pointer to this struct.
    _callbacks: Box<FPDF_FORMFILLINFO>,
}

impl Drop for PdfForm {
    fn drop(&mut self) {
        // SAFETY: the form and its document are open.
        unsafe { self.api.FPDFDOC_ExitFormFillEnvironment(self.handle) };
    }
}

impl PdfForm {
    /// Loads the form of a document, if it has one. Drop it before the document is closed.
    pub(super) fn load(api: PdfiumApi, document: FPDF_DOCUMENT) -> Option<Self> {
        // SAFETY: the document is open.
        if unsafe { api.FPDF_GetFormType(document) } == FORM_NONE {
            return None;
        }
        // SAFETY: the struct consists of numbers, pointers and optional functions, for which zero means none.
        let mut callbacks = Box::new(unsafe { std::mem::zeroed::<FPDF_FORMFILLINFO>() });
        callbacks.version = 2;
        // SAFETY: the document is open; the callbacks are kept as long as the form.
        let handle = unsafe { api.FPDFDOC_InitFormFillEnvironment(document, &raw mut *callbacks) };
        (!handle.is_null()).then_some(Self {
            api,
            handle,
            _callbacks: callbacks,
        })
    }

    /// Call this after a page is loaded.
    pub(super) fn on_after_load_page(&self, page: FPDF_PAGE) {
        // SAFETY: both are open.
        unsafe { self.api.FORM_OnAfterLoadPage(page, self.handle) };
    }

    /// Call this before the page is closed.
    pub(super) fn on_before_close_page(&self, page: FPDF_PAGE) {
        // SAFETY: both are open.
        unsafe { self.api.FORM_OnBeforeClosePage(page, self.handle) };
    }

    /// Draws the form fields of a page over the whole bitmap. Call [`PdfForm::on_after_load_page`] for the page first.
    pub(super) fn draw_fields(&self, bitmap: FPDF_BITMAP, page: FPDF_PAGE, (width, height): (c_int, c_int)) {
        // SAFETY: all three are open.
        unsafe {
            self.api.FPDF_FFLDraw(
                self.handle,
                bitmap,
                page,
                0,
                0,
                width,
                height,
                0,
                DRAW_ANNOTATIONS,
            );
        }
    }
}
