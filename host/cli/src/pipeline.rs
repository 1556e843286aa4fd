//! From a manifest to a pipeline: the components it names, the defaults for the rest, and the revision that follows.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use weir_core::manifest::{ComponentFile, Manifest, Pipeline, Role};

use crate::args::Run;

/// The pipeline of a run: its manifest, with the command line's options over the manifest's settings. They are part of the
/// revision, so that `--ocr always` does pages again that were done without.
pub(crate) fn load(run: &Run, defaults: &Path) -> Result<Pipeline> {
    let mut manifest = match &run.pipeline {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Manifest::parse(path, &text)?
        }
        None => Manifest::embedded(),
    };
    with_options(&mut manifest, run.dpi, run.ocr.as_deref());
    build(manifest, defaults)
}

/// Puts a job's options over the manifest's settings.
pub(crate) fn with_options(manifest: &mut Manifest, dpi: Option<u32>, ocr: Option<&str>) {
    if let Some(dpi) = dpi {
        manifest.settings.insert("dpi".into(), i64::from(dpi).into());
    }
    if let Some(ocr) = ocr {
        manifest.settings.insert("ocr".into(), ocr.into());
    }
}

/// A manifest with its component files.
pub(crate) fn build(manifest: Manifest, defaults: &Path) -> Result<Pipeline> {
    let mut default_files = BTreeMap::new();
    let mut files = BTreeMap::new();
    for role in Role::ALL {
        let file = component(&defaults.join(format!("{}.wasm", role.name())))
            .context("a default component is missing: run `make components`, or set paths.components")?;
        default_files.insert(role, file.clone());
        files.insert(role, file);
    }
    for (role, path) in &manifest.components {
        files.insert(*role, component(path)?);
    }
    Ok(Pipeline::new(manifest, files, default_files))
}

pub(crate) fn component(path: &Path) -> Result<ComponentFile> {
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
