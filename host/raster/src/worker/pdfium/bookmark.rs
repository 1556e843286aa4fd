//! The outline of a document, in PDFium called bookmarks.

use std::ffi::c_ulong;
use std::ptr;

use pdfium_render::prelude::FPDF_BOOKMARK;

use super::{Document, read_utf16_string};

const ACTION_GOTO: c_ulong = 1;

/// An entry of the outline.
pub(in crate::worker) struct Bookmark<'d> {
    document: &'d Document,
    handle: FPDF_BOOKMARK,
}

impl<'d> Bookmark<'d> {
    fn new(document: &'d Document, handle: FPDF_BOOKMARK) -> Option<Self> {
        (!handle.is_null()).then_some(Self { document, handle })
    }

    /// Returns the first entry of the outline.
    pub(super) fn first_of_document(document: &'d Document) -> Option<Self> {
        Self::first_child_of(document, ptr::null_mut())
    }

    /// Returns the first child of `parent`; null stands for the root.
    fn first_child_of(document: &'d Document, parent: FPDF_BOOKMARK) -> Option<Self> {
        // SAFETY: both handles belong to the open document.
        Self::new(document, unsafe {
            document.api.FPDFBookmark_GetFirstChild(document.handle, parent)
        })
    }

    pub(in crate::worker) fn first_child(&self) -> Option<Self> {
        Self::first_child_of(self.document, self.handle)
    }

    pub(in crate::worker) fn next_sibling(&self) -> Option<Self> {
        // SAFETY: both handles belong to the open document.
        Self::new(self.document, unsafe {
            self.document
                .api
                .FPDFBookmark_GetNextSibling(self.document.handle, self.handle)
        })
    }

    /// Returns a number that identifies the entry.
    pub(in crate::worker) fn handle_address(&self) -> usize {
        self.handle.addr()
    }

    pub(in crate::worker) fn title(&self) -> String {
        read_utf16_string(|buffer, length| {
            // SAFETY: PDFium writes at most `length` bytes.
            unsafe {
                self.document
                    .api
                    .FPDFBookmark_GetTitle(self.handle, buffer, length)
            }
        })
    }

    /// Returns the 0-based index of the page that the entry points to.
    pub(in crate::worker) fn page_index(&self) -> Option<u32> {
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
