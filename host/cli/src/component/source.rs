//! A component's folder, as its manifest describes it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use weir_core::manifest::{Manifest, Role};

use super::language::Language;

/// The manifest's name in a component's folder.
pub(crate) const MANIFEST: &str = "pipeline.toml";

/// A folder that a component is built from.
#[derive(Debug)]
pub(crate) struct Source {
    /// The folder, without links in its path.
    pub(crate) folder: PathBuf,
    pub(crate) language: Language,
    pub(crate) manifest: Manifest,
    /// Where the component belongs: the file that the manifest names.
    pub(crate) output: PathBuf,
}

impl Source {
    /// Looks at a folder; says what it lacks.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let manifest = manifest(folder)?;
        let folder = folder
            .canonicalize()
            .with_context(|| format!("cannot read {}", folder.display()))?;
        let Some(language) = Language::of(&folder) else {
            bail!(
                "{} has no component to build: it needs a Cargo.toml, policy.js or policy.py",
                folder.display()
            );
        };
        let mut files: Vec<&PathBuf> = manifest.components.values().collect();
        files.dedup();
        let [file] = files.as_slice() else {
            bail!(
                "{} names {} components, and a folder makes one: name the same file for each of its roles",
                folder.join(MANIFEST).display(),
                files.len()
            );
        };
        let output = std::path::absolute(file)?;
        Ok(Self {
            folder,
            language,
            output,
            manifest,
        })
    }

    /// The roles it is to have.
    pub(crate) fn roles(&self) -> impl Iterator<Item = Role> {
        self.manifest.components.keys().copied()
    }

    /// Where contract, SDK and intermediate results are put.
    pub(crate) fn workshop(&self) -> PathBuf {
        self.folder.join(".weir")
    }
}

/// The manifest of a folder.
pub(crate) fn manifest(folder: &Path) -> Result<Manifest> {
    let path = folder.join(MANIFEST);
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read {}: a component's folder has one; `weir component new` makes such a folder",
            path.display()
        )
    })?;
    let manifest = Manifest::parse(&path, &text)?;
    ensure!(
        !manifest.components.is_empty(),
        "{} names no component: add the component's file under [components], for each of its roles",
        path.display()
    );
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(manifest: &str, entry: &str) -> Result<Source, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(MANIFEST), manifest).unwrap();
        std::fs::write(folder.path().join(entry), "").unwrap();
        Source::open(folder.path()).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn the_manifest_says_what_is_built() {
        let both = "name = 'a'\n[components]\nrouting = 'a.wasm'\nprogress = 'a.wasm'";
        let source = open(both, "policy.py").unwrap();
        assert_eq!(source.language, Language::Python);
        assert!(source.output.ends_with("a.wasm"));
        assert_eq!(
            source.roles().collect::<Vec<_>>(),
            [Role::Routing, Role::Progress]
        );
    }

    #[test]
    fn what_a_folder_lacks_is_said() {
        let routing = "name = 'a'\n[components]\nrouting = 'a.wasm'";
        assert!(open(routing, "policy.rb").unwrap_err().contains("policy.js"));
        assert!(
            open("name = 'a'", "policy.js")
                .unwrap_err()
                .contains("names no component")
        );
        let two = format!("{routing}\nprogress = 'b.wasm'");
        assert!(
            open(&two, "policy.js")
                .unwrap_err()
                .contains("names 2 components")
        );
        let missing = Source::open(Path::new("/nowhere")).unwrap_err();
        assert!(format!("{missing:#}").contains("weir component new"));
    }
}
