//! Documents for tests: readable samples, long documents for measurements, and broken or malicious ones.
//!
//! All documents are generated from the project's own texts, so that nothing is copied and every expected search result is known.
//! Every function returns the same bytes on each call.

mod broken_documents;
mod encrypted;
mod figures;
pub mod fonts;
mod long_documents;
pub mod pdf_document;
mod random;
mod sample_documents;
mod scanned_pages;
pub mod text_markup;
pub mod typesetter;

pub use broken_documents::{
    decompression_bomb_document, document_of_empty_pages, document_with_bad_page, document_with_huge_page,
    document_with_many_objects, document_with_outline, document_with_rotated_pages, document_without_pages,
    truncated_document,
};
pub use encrypted::encrypted_document;
pub use long_documents::{generate_book, generate_chapters, generate_scanned_book, generate_text_document};
pub use sample_documents::{handbook_document, letter_document, scanned_letter_document, survey_document};
pub use scanned_pages::{LETTER_SCANS, scanned_document};

/// Questions about the samples with the expected phrases: a TOML list of `[[question]]` with `document`, `ask`, `page` and `phrase`.
pub const SAMPLE_QUESTIONS: &str = include_str!("../questions.toml");

/// Returns the survey, which has two columns and figures.
pub fn two_columns_with_figures() -> Vec<u8> {
    survey_document()
}

/// Returns the names and contents of the sample files.
pub fn sample_files() -> [(&'static str, Vec<u8>); 3] {
    [
        ("handbook.pdf", handbook_document()),
        ("survey.pdf", survey_document()),
        ("letter-scan.pdf", scanned_letter_document()),
    ]
}

#[cfg(test)]
mod tests;
