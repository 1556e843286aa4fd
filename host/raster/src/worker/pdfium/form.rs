//! Form fields, which PDFium draws separately from the page: what someone has filled in is not on the page itself.

use std::ffi::c_int;

use pdfium_render::prelude::{FPDF_BITMAP, FPDF_DOCUMENT, FPDF_FORMFILLINFO, FPDF_FORMHANDLE, FPDF_PAGE};

use super::Api;

pub(super) const DRAW_ANNOTATIONS: c_int = 1;
const FORM_NONE: c_int = 0;

/// The form of a document.
pub(super) struct Form {
    api: Api,
    handle: FPDF_FORMHANDLE,
    /// PDFium keeps a pointer to it.
    _callbacks: Box<FPDF_FORMFILLINFO>,
}

impl Drop for Form {
    fn drop(&mut self) {
        // SAFETY: the form is open, and its document, too.
        unsafe { self.api.FPDFDOC_ExitFormFillEnvironment(self.handle) };
    }
}

impl Form {
    /// The form of a document, if it has one; to be dropped before the document is closed.
    pub(super) fn of(api: Api, document: FPDF_DOCUMENT) -> Option<Self> {
        // SAFETY: the document is open.
        if unsafe { api.FPDF_GetFormType(document) } == FORM_NONE {
            return None;
        }
        // SAFETY: the struct is numbers, pointers and optional functions, for which zeros mean none.
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

    /// To be called when a page has been loaded.
    pub(super) fn enter(&self, page: FPDF_PAGE) {
        // SAFETY: both are open.
        unsafe { self.api.FORM_OnAfterLoadPage(page, self.handle) };
    }

    /// To be called before the page is closed.
    pub(super) fn leave(&self, page: FPDF_PAGE) {
        // SAFETY: both are open.
        unsafe { self.api.FORM_OnBeforeClosePage(page, self.handle) };
    }

    /// Draws the fields of a page that has entered over all of a bitmap.
    pub(super) fn draw(&self, bitmap: FPDF_BITMAP, page: FPDF_PAGE, (width, height): (c_int, c_int)) {
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
