//! `weir component publish` and `weir component pull`: transfer components to and from OCI registries.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;
use weir_core::component::ComponentDigest;

use crate::registry::{ArtifactReference, PlainHttpArg, RegistryClient};
use crate::terminal::{await_with_progress, out_line};

/// Runs `weir component publish`.
pub(super) async fn publish_component(
    file: &Path,
    reference: &ArtifactReference,
    access: PlainHttpArg,
    json: bool,
) -> Result<ExitCode> {
    let component = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let component_digest = ComponentDigest::from_content(&component);
    let registry = RegistryClient::open(reference, access)?;
    let digest = await_with_progress(
        "uploading the component to the registry",
        registry.publish(reference, component),
    )
    .await?;
    let pinned = reference.with_digest(digest);
    if json {
        out_line!(
            "{}",
            json!({ "reference": pinned.to_string(), "digest": digest, "component": component_digest })
        )?;
    } else {
        out_line!("{pinned}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `weir component pull`.
pub(super) async fn pull_component(
    reference: &ArtifactReference,
    output: Option<&Path>,
    access: PlainHttpArg,
    json: bool,
) -> Result<ExitCode> {
    let registry = RegistryClient::open(reference, access)?;
    let pulled = await_with_progress(
        "downloading the component from the registry",
        registry.pull(reference),
    )
    .await?;
    let default_file = || PathBuf::from(format!("{}.wasm", reference.artifact_name()));
    let file = output.map_or_else(default_file, Path::to_owned);
    std::fs::write(&file, &pulled.component).with_context(|| format!("cannot write {}", file.display()))?;
    let pinned = reference.with_digest(pulled.manifest_digest);
    if json {
        let component_digest = ComponentDigest::from_content(&pulled.component);
        let report = json!({ "reference": pinned.to_string(), "digest": pulled.manifest_digest, "component": component_digest, "file": file });
        out_line!("{report}")?;
    } else {
        out_line!("{}  {pinned}", file.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
