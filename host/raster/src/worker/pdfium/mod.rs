//! A safe interface to PDFium's C functions: a value cannot outlive the value that it borrows from.
//!
//! The C functions are called directly, through the function table that `pdfium-render` loads. The higher layers of that crate have no
//! progressive rendering, which the heartbeat and the cancellation of pages need, and they query more from PDFium than this worker
//! needs. PDFium allows one thread at a time; nothing here is `Send`.

#![allow(unsafe_code)]

mod api;
mod bookmark;
mod form;
mod geometry;
mod page;
mod text_page;

use std::cell::OnceCell;
use std::ffi::{c_int, c_ulong};
use std::path::Path;

use memmap2::Mmap;
use pdfium_render::prelude::{FPDF_DOCUMENT, FS_SIZEF, Pdfium, PdfiumError};

use api::{PdfiumApi, read_utf16_string};
pub(super) use bookmark::Bookmark;
use form::PdfForm;
pub(super) use geometry::Bounds;
pub(super) use page::{ColorMode, DrawStatus, Page};
pub(super) use text_page::Glyph;

// The constants in this folder are from PDFium's public headers (fpdfview.h, fpdf_doc.h, fpdf_edit.h, fpdf_formfill.h,
// fpdf_progressive.h); `pdfium-render` does not export them.
const ERROR_PASSWORD: c_ulong = 4;
const ERROR_SECURITY: c_ulong = 5;

/// The loaded PDFium library.
pub(crate) struct PdfiumLibrary {
    api: PdfiumApi,
}

/// The reason why a file cannot be opened.
pub(crate) enum OpenError {
    PasswordRequired,
    Damaged(&'static str),
}

impl PdfiumLibrary {
    pub(crate) fn load(path: &Path) -> Result<Self, PdfiumError> {
        let api: PdfiumApi = Box::leak(Pdfium::bind_to_library(path)?);
        // SAFETY: called once, before any other function of the library.
        unsafe { api.FPDF_InitLibrary() };
        Ok(Self { api })
    }

    /// Opens a document. `password` must not contain a zero byte.
    pub(crate) fn open_document(&self, file: Mmap, password: Option<&str>) -> Result<Document, OpenError> {
        let api = self.api;
        // SAFETY: the document keeps the mapping, and so the bytes, until it is closed.
        let handle = unsafe { api.FPDF_LoadMemDocument64(&file, password) };
        if handle.is_null() {
            // SAFETY: only reads a number.
            return Err(match unsafe { api.FPDF_GetLastError() } {
                ERROR_PASSWORD => OpenError::PasswordRequired,
                ERROR_SECURITY => OpenError::Damaged("its encryption is not supported"),
                _ => OpenError::Damaged("neither its cross-reference table nor its pages can be found"),
            });
        }
        Ok(Document {
            api,
            handle,
            form: OnceCell::new(),
            _file: file,
        })
    }
}

/// An open document.
pub(crate) struct Document {
    api: PdfiumApi,
    handle: FPDF_DOCUMENT,
    /// The form, loaded when the first page is drawn.
    form: OnceCell<Option<PdfForm>>,
    /// Dropped after `drop` has closed the document.
    _file: Mmap,
}

impl Drop for Document {
    fn drop(&mut self) {
        drop(self.form.take());
        // SAFETY: the handle is open. The form is dropped above; pages and bookmarks are gone because they borrow from `self`.
        unsafe { self.api.FPDF_CloseDocument(self.handle) };
    }
}

impl Document {
    pub(crate) fn page_count(&self) -> u32 {
        // SAFETY: the handle is open.
        u32::try_from(unsafe { self.api.FPDF_GetPageCount(self.handle) }).unwrap_or(0)
    }

    pub(crate) fn title(&self) -> Option<String> {
        let title = read_utf16_string(|buffer, length| {
            // SAFETY: PDFium writes at most `length` bytes.
            unsafe { self.api.FPDF_GetMetaText(self.handle, "Title", buffer, length) }
        });
        (!title.is_empty()).then_some(title)
    }

    /// Returns width and height in points after rotation, without parsing the page.
    pub(crate) fn page_size(&self, index: u32) -> Option<(f32, f32)> {
        let mut size = FS_SIZEF {
            width: 0.0,
            height: 0.0,
        };
        let index = c_int::try_from(index).ok()?;
        // SAFETY: the handle is open; PDFium writes only to `size`.
        let found = unsafe {
            self.api
                .FPDF_GetPageSizeByIndexF(self.handle, index, &raw mut size)
        };
        (found != 0).then_some((size.width, size.height))
    }

    /// Parses a page without its form fields, for every purpose except drawing.
    pub(crate) fn load_page(&self, index: u32) -> Option<Page<'_>> {
        Page::load(self.api, self.handle, index, None)
    }

    /// Parses a page with its form fields.
    pub(crate) fn load_page_with_form(&self, index: u32) -> Option<Page<'_>> {
        let form = self
            .form
            .get_or_init(|| PdfForm::load(self.api, self.handle))
            .as_ref();
        Page::load(self.api, self.handle, index, form)
    }

    pub(crate) fn first_bookmark(&self) -> Option<Bookmark<'_>> {
        Bookmark::first_of_document(self.api, self.handle)
    }
}
