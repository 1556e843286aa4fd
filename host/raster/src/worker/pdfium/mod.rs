//! PDFium's C interface, made safe: what is borrowed cannot outlive what it is borrowed from.
//!
//! The C functions are called directly, through the table of pointers that `pdfium-render` loads, and not through its
//! higher layers: those have no progressive rendering, which is what the worker's pulse and its abandoning of pages live
//! on, and they ask PDFium for more than is needed here. PDFium allows one thread at a time; nothing here is `Send`.

#![allow(unsafe_code)]

mod bookmark;
mod form;
mod geometry;
mod glyph;
mod page;

use std::cell::OnceCell;
use std::ffi::{c_int, c_ulong, c_void};
use std::path::Path;
use std::ptr;

use memmap2::Mmap;
use pdfium_render::prelude::{FPDF_DOCUMENT, FS_SIZEF, Pdfium, PdfiumError, PdfiumLibraryBindings};

pub(super) use bookmark::Bookmark;
use form::Form;
pub(super) use geometry::Bounds;
pub(super) use glyph::Glyph;
pub(super) use page::{Colours, Drawn, Page};

// Numbers here and in the files below are from PDFium's public headers (fpdfview.h, fpdf_doc.h, fpdf_edit.h,
// fpdf_formfill.h, fpdf_progressive.h); the crate that loads it keeps them to itself.
const ERROR_PASSWORD: c_ulong = 4;
const ERROR_SECURITY: c_ulong = 5;

/// Bytes of a title that are looked at.
const TITLE_BYTES: c_ulong = 1 << 16;

type Api = &'static dyn PdfiumLibraryBindings;

/// PDFium, loaded.
pub(in crate::worker) struct Library {
    api: Api,
}

/// Why a file is not opened.
pub(in crate::worker) enum OpenError {
    Password,
    Damaged(&'static str),
}

impl Library {
    pub(in crate::worker) fn load(path: &Path) -> Result<Self, PdfiumError> {
        let api: Api = Box::leak(Pdfium::bind_to_library(path)?);
        // SAFETY: called once, before any other function of the library.
        unsafe { api.FPDF_InitLibrary() };
        Ok(Self { api })
    }

    /// `password` must not contain a zero byte.
    pub(in crate::worker) fn open(&self, file: Mmap, password: Option<&str>) -> Result<Document, OpenError> {
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
            form: OnceCell::new(),
            _file: file,
        })
    }
}

/// An open document.
pub(in crate::worker) struct Document {
    api: Api,
    handle: FPDF_DOCUMENT,
    /// Its form, once a page of it has been drawn.
    form: OnceCell<Option<Form>>,
    /// Dropped after `drop` has closed the document.
    _file: Mmap,
}

impl Drop for Document {
    fn drop(&mut self) {
        drop(self.form.take());
        // SAFETY: the handle is open; form, pages and bookmarks are gone, the latter two because they borrow from `self`.
        unsafe { self.api.FPDF_CloseDocument(self.handle) };
    }
}

impl Document {
    pub(in crate::worker) fn pages(&self) -> u32 {
        // SAFETY: the handle is open.
        u32::try_from(unsafe { self.api.FPDF_GetPageCount(self.handle) }).unwrap_or(0)
    }

    pub(in crate::worker) fn title(&self) -> Option<String> {
        let title = utf16(|buffer, length| {
            // SAFETY: PDFium writes at most `length` bytes.
            unsafe { self.api.FPDF_GetMetaText(self.handle, "Title", buffer, length) }
        });
        (!title.is_empty()).then_some(title)
    }

    /// Width and height in points after rotation, without parsing the page.
    pub(in crate::worker) fn page_size(&self, index: u32) -> Option<(f32, f32)> {
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

    /// Parses a page, for anything but drawing it.
    pub(in crate::worker) fn page(&self, index: u32) -> Option<Page<'_>> {
        Page::load(self.api, self.handle, index, None)
    }

    /// Parses a page with its form fields.
    pub(in crate::worker) fn page_to_draw(&self, index: u32) -> Option<Page<'_>> {
        let form = self.form.get_or_init(|| Form::of(self.api, self.handle)).as_ref();
        Page::load(self.api, self.handle, index, form)
    }

    pub(in crate::worker) fn first_bookmark(&self) -> Option<Bookmark<'_>> {
        Bookmark::first(self)
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
