//! The function table of PDFium, and strings that PDFium writes.

use std::ffi::{c_ulong, c_void};
use std::ptr;

use pdfium_render::prelude::PdfiumLibraryBindings;

/// Maximum bytes of a string that is read from PDFium.
const MAX_STRING_BYTES: c_ulong = 1 << 16;

/// The functions of the loaded library.
pub(super) type PdfiumApi = &'static dyn PdfiumLibraryBindings;

/// Reads a string that PDFium writes as UTF-16LE with a final zero. The first call of `write` asks for the length in bytes.
pub(super) fn read_utf16_string(write: impl Fn(*mut c_void, c_ulong) -> c_ulong) -> String {
    let length = write(ptr::null_mut(), 0);
    if !(2..=MAX_STRING_BYTES).contains(&length) {
        return String::new();
    }
    let mut units = vec![0_u16; usize::try_from(length).unwrap_or(0).div_ceil(2)];
    write(units.as_mut_ptr().cast(), length);
    while units.last() == Some(&0) {
        units.pop();
    }
    String::from_utf16_lossy(&units)
}
