//! The `samples` command writes the sample documents, or one document of a chosen kind, to files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

/// Write the sample documents
#[derive(Parser)]
struct Arguments {
    /// Folder for the three samples; with --only, the file to write
    #[arg(default_value = "target/samples")]
    path: PathBuf,
    /// Write only a document of this kind
    #[arg(long)]
    only: Option<DocumentKind>,
    /// Number of pages, for the kinds with a variable number
    #[arg(long, default_value_t = 100)]
    pages: usize,
    /// Seed of the generated text
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum DocumentKind {
    Handbook,
    Survey,
    Letter,
    LetterScan,
    Text,
    Book,
    ScannedBook,
    /// Opens with the password `open sesame`
    Encrypted,
    Truncated,
    ZeroPages,
    EmptyPages,
    HugePage,
    DecompressionBomb,
    /// The second page is broken
    OneBadPage,
    ManyObjects,
    Outline,
    Rotated,
}

fn build_document(kind: DocumentKind, pages: usize, seed: u64) -> Vec<u8> {
    match kind {
        DocumentKind::Handbook => weir_samples::handbook_document(),
        DocumentKind::Survey => weir_samples::survey_document(),
        DocumentKind::Letter => weir_samples::letter_document(),
        DocumentKind::LetterScan => weir_samples::scanned_letter_document(),
        DocumentKind::Text => weir_samples::generate_text_document(pages, seed),
        DocumentKind::Book => weir_samples::generate_book(pages, seed),
        DocumentKind::ScannedBook => weir_samples::generate_scanned_book(pages),
        DocumentKind::Encrypted => weir_samples::encrypted_document("open sesame"),
        DocumentKind::Truncated => weir_samples::truncated_document(),
        DocumentKind::ZeroPages => weir_samples::document_without_pages(),
        DocumentKind::EmptyPages => weir_samples::document_of_empty_pages(pages),
        DocumentKind::HugePage => weir_samples::document_with_huge_page(),
        DocumentKind::DecompressionBomb => weir_samples::decompression_bomb_document(),
        DocumentKind::OneBadPage => weir_samples::document_with_bad_page(pages, 2),
        DocumentKind::ManyObjects => weir_samples::document_with_many_objects(pages),
        DocumentKind::Outline => weir_samples::document_with_outline(pages),
        DocumentKind::Rotated => weir_samples::document_with_rotated_pages(),
    }
}

/// Writes a file unless it already has these bytes, so that file watchers see no change.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the folder {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.only {
        Some(kind) => write_if_changed(
            &arguments.path,
            &build_document(kind, arguments.pages, arguments.seed),
        ),
        None => weir_samples::sample_files()
            .iter()
            .try_for_each(|(name, bytes)| write_if_changed(&arguments.path.join(name), bytes)),
    }
}
