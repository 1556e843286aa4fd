//! What a component can be written in.

use std::path::Path;

use clap::ValueEnum;

/// A language with a toolchain that makes components.
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
    /// Every language.
    pub(crate) const ALL: [Self; 3] = [Self::Rust, Self::Js, Self::Python];

    /// The file that tells a folder of this language.
    pub(crate) const fn entry(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::Js => "policy.js",
            Self::Python => "policy.py",
        }
    }

    /// The language of a folder.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|language| folder.join(language.entry()).is_file())
    }
}
