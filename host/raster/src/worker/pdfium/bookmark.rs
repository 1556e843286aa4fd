//! The outline.

use std::ffi::c_ulong;
use std::ptr;

use pdfium_render::prelude::FPDF_BOOKMARK;

use super::{Document, utf16};

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

    /// The first entry of the outline.
    pub(super) fn first(document: &'d Document) -> Option<Self> {
        Self::below(document, ptr::null_mut())
    }

    /// The first entry below `parent`; null is the root.
    fn below(document: &'d Document, parent: FPDF_BOOKMARK) -> Option<Self> {
        // SAFETY: both handles belong to the open document.
        Self::new(document, unsafe {
            document.api.FPDFBookmark_GetFirstChild(document.handle, parent)
        })
    }

    pub(in crate::worker) fn first_child(&self) -> Option<Self> {
        Self::below(self.document, self.handle)
    }

    pub(in crate::worker) fn next_sibling(&self) -> Option<Self> {
        // SAFETY: both handles belong to the open document.
        Self::new(self.document, unsafe {
            self.document
                .api
                .FPDFBookmark_GetNextSibling(self.document.handle, self.handle)
        })
    }

    /// Tells entries apart.
    pub(in crate::worker) fn id(&self) -> usize {
        self.handle.addr()
    }

    pub(in crate::worker) fn title(&self) -> String {
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
    pub(in crate::worker) fn page(&self) -> Option<u32> {
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
