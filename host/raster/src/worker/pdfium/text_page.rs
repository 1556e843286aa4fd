//! The characters of a page.

use std::ffi::c_int;
use std::marker::PhantomData;

use pdfium_render::prelude::{FPDF_TEXTPAGE, FS_MATRIX, FS_RECTF};

use super::api::PdfiumApi;
use super::geometry::{Bounds, Matrix};

/// A character with the position that PDFium gives it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Glyph {
    /// Its code point; 0 if it has none.
    pub(crate) code_point: u32,
    /// Whether PDFium inserted it for a gap between words or the end of a line.
    pub(crate) is_generated: bool,
    /// Whether it is a hyphen at the end of a line.
    pub(crate) is_hyphen: bool,
    /// Font size in the font's own units; scaled by the matrix it is in points.
    pub(crate) font_size: f32,
    pub(crate) matrix: FS_MATRIX,
    pub(crate) origin: (f32, f32),
    /// The box from the font's ascent to its descent, as wide as the character's advance.
    pub(crate) bounds: Bounds,
}

/// The text of a page.
pub(crate) struct TextPage<'p> {
    api: PdfiumApi,
    handle: FPDF_TEXTPAGE,
    page: PhantomData<&'p ()>,
}

impl Drop for TextPage<'_> {
    fn drop(&mut self) {
        // SAFETY: the text page is open.
        unsafe { self.api.FPDFText_ClosePage(self.handle) };
    }
}

impl<'p> TextPage<'p> {
    /// `handle` must be a text page of a page that lives as long as `'p`.
    pub(super) fn new(api: PdfiumApi, handle: FPDF_TEXTPAGE) -> Option<Self> {
        (!handle.is_null()).then_some(Self {
            api,
            handle,
            page: PhantomData,
        })
    }

    /// Returns the number of characters, including those that PDFium inserted.
    pub(crate) fn char_count(&self) -> u32 {
        // SAFETY: the text page is open.
        u32::try_from(unsafe { self.api.FPDFText_CountChars(self.handle) }).unwrap_or(0)
    }

    pub(crate) fn read_glyph(&self, index: u32) -> Option<Glyph> {
        let index = c_int::try_from(index).ok()?;
        let mut rect = FS_RECTF {
            left: 0.0,
            top: 0.0,
            right: 0.0,
            bottom: 0.0,
        };
        let mut matrix = Matrix::IDENTITY.0;
        let (mut x, mut y) = (0.0_f64, 0.0_f64);
        // SAFETY: the text page is open; PDFium rejects a wrong index; each output has the type that the function expects.
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
                code_point: code,
                is_generated: generated,
                is_hyphen: hyphen,
                font_size: size,
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
