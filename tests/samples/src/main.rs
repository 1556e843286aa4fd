//! `samples` writes the sample documents, or one document of any kind, to files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

/// Write the sample documents
#[derive(Parser)]
struct Arguments {
    /// Folder for the three samples, or with --only the file to write
    #[arg(default_value = "target/samples")]
    path: PathBuf,
    /// Write this one document
    #[arg(long)]
    only: Option<Kind>,
    /// How many pages it has, where that can be chosen
    #[arg(long, default_value_t = 100)]
    pages: usize,
    /// Another seed gives another text
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
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
    /// Its second page is broken
    OneBadPage,
    ManyObjects,
    Outline,
    Rotated,
}

fn document(kind: Kind, pages: usize, seed: u64) -> Vec<u8> {
    match kind {
        Kind::Handbook => weir_samples::handbook(),
        Kind::Survey => weir_samples::survey(),
        Kind::Letter => weir_samples::letter(),
        Kind::LetterScan => weir_samples::letter_scan(),
        Kind::Text => weir_samples::text_document(pages, seed),
        Kind::Book => weir_samples::book(pages, seed),
        Kind::ScannedBook => weir_samples::scanned_book(pages),
        Kind::Encrypted => weir_samples::encrypted("open sesame"),
        Kind::Truncated => weir_samples::truncated(),
        Kind::ZeroPages => weir_samples::zero_pages(),
        Kind::EmptyPages => weir_samples::empty_pages(pages),
        Kind::HugePage => weir_samples::huge_page(),
        Kind::DecompressionBomb => weir_samples::decompression_bomb(),
        Kind::OneBadPage => weir_samples::one_bad_page(pages, 2),
        Kind::ManyObjects => weir_samples::many_objects(pages),
        Kind::Outline => weir_samples::outline(pages),
        Kind::Rotated => weir_samples::rotated(),
    }
}

/// Writes a file unless it is there with these bytes, so that whoever watches it sees no change.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.only {
        Some(kind) => write(&arguments.path, &document(kind, arguments.pages, arguments.seed)),
        None => weir_samples::all()
            .iter()
            .try_for_each(|(name, bytes)| write(&arguments.path.join(name), bytes)),
    }
}
