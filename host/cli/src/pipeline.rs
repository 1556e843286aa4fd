//! From a manifest to a pipeline: the components it names, the defaults for the rest, and the revision that follows.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use weir_core::manifest::{ComponentFile, Manifest, Pipeline, Role, in_registry};

use crate::args::Run;

/// The pipeline of a run: its manifest, with the command line's options over the manifest's settings.
pub(crate) fn load(run: &Run, defaults: &Path) -> Result<Pipeline> {
    let mut manifest = match &run.pipeline {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Manifest::parse(path, &text)?
        }
        None => Manifest::embedded(),
    };
    manifest.with_options(run.dpi, run.ocr.as_deref(), run.vision.as_deref());
    build(manifest, defaults)
}

/// A manifest with its component files.
pub(crate) fn build(manifest: Manifest, defaults: &Path) -> Result<Pipeline> {
    let mut files = BTreeMap::new();
    for (role, path) in &manifest.components {
        files.insert(*role, component(path)?);
    }
    with_defaults(manifest, files, defaults)
}

/// A manifest with these component files, and the defaults for the rest.
pub(crate) fn with_defaults(
    manifest: Manifest,
    mut files: BTreeMap<Role, ComponentFile>,
    defaults: &Path,
) -> Result<Pipeline> {
    let mut default_files = BTreeMap::new();
    for role in Role::ALL {
        let file = component(&defaults.join(format!("{}.wasm", role.name())))
            .context("a default component is missing: run `make components`, or set paths.components")?;
        default_files.insert(role, file.clone());
        files.entry(role).or_insert(file);
    }
    Ok(Pipeline::new(manifest, files, default_files))
}

/// A component file, with its digest.
pub(crate) fn component(path: &Path) -> Result<ComponentFile> {
    ensure!(
        !in_registry(path),
        "the component {} is in a registry: run `weir component pull` and name the file, or push the manifest to a server",
        path.display()
    );
    let bytes =
        std::fs::read(path).with_context(|| format!("cannot read the component {}", path.display()))?;
    let name = path
        .file_stem()
        .map(|s| s.to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(ComponentFile {
        name,
        path: path.to_owned(),
        digest: Sha256::digest(&bytes).into(),
    })
}
