//! Builds a pipeline from a manifest: reads the components that it names, and uses the default components for the other roles.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use weir_core::manifest::{Manifest, ResolvedComponentFile, ResolvedPipeline, Role, is_oci_reference};

use crate::args::RunArgs;

/// Loads the pipeline of a run. Options of the command line override the settings of the manifest.
pub(crate) fn load_pipeline(run: &RunArgs, defaults: &Path) -> Result<ResolvedPipeline> {
    let mut manifest = match &run.pipeline {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Manifest::parse(path, &text)?
        }
        None => Manifest::default_pipeline_manifest(),
    };
    manifest.apply_job_options(run.dpi, run.ocr.as_deref(), run.vision.as_deref());
    build_pipeline_from_manifest(manifest, defaults)
}

/// Builds a pipeline from a manifest and the component files that it names.
pub(crate) fn build_pipeline_from_manifest(manifest: Manifest, defaults: &Path) -> Result<ResolvedPipeline> {
    let mut files = BTreeMap::new();
    for (role, path) in &manifest.components {
        files.insert(*role, hash_component_file(path)?);
    }
    build_pipeline_filling_missing_roles(manifest, files, defaults)
}

/// Builds a pipeline from a manifest and these component files, with the default components for the other roles.
pub(crate) fn build_pipeline_filling_missing_roles(
    manifest: Manifest,
    mut files: BTreeMap<Role, ResolvedComponentFile>,
    defaults: &Path,
) -> Result<ResolvedPipeline> {
    let mut default_files = BTreeMap::new();
    for role in Role::ALL {
        let file = hash_component_file(&defaults.join(format!("{}.wasm", role.name()))).context(
            "a default component is missing: run `make components`, or set paths.default_components",
        )?;
        default_files.insert(role, file.clone());
        files.entry(role).or_insert(file);
    }
    Ok(ResolvedPipeline::new(manifest, files, default_files))
}

/// Reads a component file and computes its digest.
pub(crate) fn hash_component_file(path: &Path) -> Result<ResolvedComponentFile> {
    ensure!(
        !is_oci_reference(path),
        "the component {} is in a registry: run `weir component pull` and use the file, or push the manifest to a server",
        path.display()
    );
    let bytes =
        std::fs::read(path).with_context(|| format!("cannot read the component {}", path.display()))?;
    let name = path
        .file_stem()
        .map(|s| s.to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(ResolvedComponentFile {
        name,
        file: path.to_owned().into(),
        digest: Sha256::digest(&bytes).into(),
    })
}
