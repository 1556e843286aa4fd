//! The source folder of a component, described by its manifest, and the programming languages of components.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use weir_core::manifest::{Manifest, Role};

/// File name of the manifest in a component's folder.
pub(crate) const MANIFEST_FILE: &str = "pipeline.toml";

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

/// The source folder of one component.
#[derive(Debug)]
pub(crate) struct ComponentSource {
    /// The folder as a canonical path.
    pub(crate) folder: PathBuf,
    pub(crate) language: Language,
    pub(crate) manifest: Manifest,
    /// File to build: the component file in the manifest.
    pub(crate) output_file: PathBuf,
}

impl ComponentSource {
    /// Opens a folder. Fails if the manifest or the source is missing or invalid.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let manifest = read_manifest(folder)?;
        let folder = folder
            .canonicalize()
            .with_context(|| format!("cannot read {}", folder.display()))?;
        let Some(language) = Language::detect(&folder) else {
            bail!(
                "{} has no component to build: it needs a Cargo.toml, policy.js or policy.py",
                folder.display()
            );
        };
        let mut files: Vec<&PathBuf> = manifest.components.values().collect();
        files.dedup();
        let [file] = files.as_slice() else {
            bail!(
                "{} names {} components, but a folder builds one: use the same file for each role",
                folder.join(MANIFEST_FILE).display(),
                files.len()
            );
        };
        let output = std::path::absolute(file)?;
        Ok(Self {
            folder,
            language,
            output_file: output,
            manifest,
        })
    }

    /// The roles that the component exports.
    pub(crate) fn roles(&self) -> impl Iterator<Item = Role> {
        self.manifest.components.keys().copied()
    }

    /// Folder for the contract, the SDK and intermediate build results.
    pub(crate) fn build_work_folder(&self) -> PathBuf {
        self.folder.join(".weir")
    }
}

/// Reads the manifest of a component's folder. Fails if it names no component.
pub(crate) fn read_manifest(folder: &Path) -> Result<Manifest> {
    let path = folder.join(MANIFEST_FILE);
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read {}: a component's folder needs a manifest; `weir component new` creates one",
            path.display()
        )
    })?;
    let manifest = Manifest::parse(&path, &text)?;
    ensure!(
        !manifest.components.is_empty(),
        "{} names no component: add the component's file under [components] for each role",
        path.display()
    );
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_source(manifest: &str, entry: &str) -> Result<ComponentSource, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(MANIFEST_FILE), manifest).unwrap();
        std::fs::write(folder.path().join(entry), "").unwrap();
        ComponentSource::open(folder.path()).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn manifest_determines_output_and_roles() {
        let both = "name = 'a'\n[components]\nrouting = 'a.wasm'\nprogress = 'a.wasm'";
        let source = open_source(both, "policy.py").unwrap();
        assert_eq!(source.language, Language::Python);
        assert!(source.output_file.ends_with("a.wasm"));
        assert_eq!(
            source.roles().collect::<Vec<_>>(),
            [Role::Routing, Role::Progress]
        );
    }

    #[test]
    fn missing_source_or_manifest_is_reported() {
        let routing = "name = 'a'\n[components]\nrouting = 'a.wasm'";
        assert!(
            open_source(routing, "policy.rb")
                .unwrap_err()
                .contains("policy.js")
        );
        assert!(
            open_source("name = 'a'", "policy.js")
                .unwrap_err()
                .contains("names no component")
        );
        let two = format!("{routing}\nprogress = 'b.wasm'");
        assert!(
            open_source(&two, "policy.js")
                .unwrap_err()
                .contains("names 2 components")
        );
        let missing = ComponentSource::open(Path::new("/nowhere")).unwrap_err();
        assert!(format!("{missing:#}").contains("weir component new"));
    }
}
