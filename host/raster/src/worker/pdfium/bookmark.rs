//! The outline of a document, in PDFium called bookmarks.

use std::ffi::c_ulong;
use std::marker::PhantomData;
use std::ptr;

use pdfium_render::prelude::{FPDF_BOOKMARK, FPDF_DOCUMENT};

use super::api::{PdfiumApi, read_utf16_string};

const ACTION_GOTO: c_ulong = 1;

/// An entry of the outline.
pub(crate) struct Bookmark<'d> {
    api: PdfiumApi,
    document: FPDF_DOCUMENT,
    handle: FPDF_BOOKMARK,
    lifetime: PhantomData<&'d ()>,
}

impl Bookmark<'_> {
    /// Returns the first entry of the outline. `document` must be open and stay open for `'d`.
    pub(super) fn first_of_document(api: PdfiumApi, document: FPDF_DOCUMENT) -> Option<Self> {
        let root = Self {
            api,
            document,
            handle: ptr::null_mut(),
            lifetime: PhantomData,
        };
        root.first_child()
    }

    fn bookmark_from_handle(&self, handle: FPDF_BOOKMARK) -> Option<Self> {
        (!handle.is_null()).then_some(Self { handle, ..*self })
    }

    pub(crate) fn first_child(&self) -> Option<Self> {
        // SAFETY: both handles belong to the open document; null stands for the root.
        self.bookmark_from_handle(unsafe { self.api.FPDFBookmark_GetFirstChild(self.document, self.handle) })
    }

    pub(crate) fn next_sibling(&self) -> Option<Self> {
        // SAFETY: both handles belong to the open document.
        self.bookmark_from_handle(unsafe { self.api.FPDFBookmark_GetNextSibling(self.document, self.handle) })
    }

    /// Returns a number that identifies the entry.
    pub(crate) fn handle_address(&self) -> usize {
        self.handle.addr()
    }

    pub(crate) fn title(&self) -> String {
        read_utf16_string(|buffer, length| {
            // SAFETY: PDFium writes at most `length` bytes.
            unsafe { self.api.FPDFBookmark_GetTitle(self.handle, buffer, length) }
        })
    }

    /// Returns the 0-based index of the page that the entry points to.
    pub(crate) fn destination_page_index(&self) -> Option<u32> {
        let (api, document) = (self.api, self.document);
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
