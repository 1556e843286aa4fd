//! Documents to test with: samples a person would read, long ones to measure with, and ones that are meant to do harm.
//!
//! All are made here, from texts of the project's own, so nothing is copied and every answer is known. Every function gives
//! the same bytes each time it is called.

mod book;
mod encrypted;
mod figures;
pub mod fonts;
mod hostile;
pub mod pdf;
mod random;
mod samples;
mod scan;
pub mod source;
pub mod typeset;

pub use book::{book, chapters, scanned_book, text_document};
pub use encrypted::encrypted;
pub use hostile::{
    decompression_bomb, empty_pages, huge_page, many_objects, one_bad_page, outline, rotated, truncated,
    zero_pages,
};
pub use samples::{handbook, letter, letter_scan, survey};
pub use scan::{LETTER, scanned};

/// Questions about the samples, with the answers: a list of `[[question]]` with `document`, `ask`, `page` and `phrase`.
pub const QUESTIONS: &str = include_str!("../questions.toml");

/// The survey by what is special about it.
pub fn two_columns_with_figures() -> Vec<u8> {
    survey()
}

/// The samples by file name.
pub fn all() -> [(&'static str, Vec<u8>); 3] {
    [
        ("handbook.pdf", handbook()),
        ("survey.pdf", survey()),
        ("letter-scan.pdf", letter_scan()),
    ]
}

#[cfg(test)]
mod tests;
