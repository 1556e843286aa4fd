//! The programming languages of components.

use std::path::Path;

use clap::ValueEnum;

/// A programming language with a toolchain that builds components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// Rust
    Rust,
    /// JavaScript
    #[value(alias = "javascript")]
    Js,
    /// Python
    Python,
}

impl Language {
    /// All languages.
    pub(crate) const ALL: [Self; 3] = [Self::Rust, Self::Js, Self::Python];

    /// Returns the name of the file by which `detect` recognizes this language. For Rust it is Cargo.toml, not the source file.
    pub(crate) const fn marker_file_name(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::Js => "policy.js",
            Self::Python => "policy.py",
        }
    }

    /// Detects the language of a source folder.
    pub(crate) fn detect(folder: &Path) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|language| folder.join(language.marker_file_name()).is_file())
    }
}
