//! Components in registries: published and pulled.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;
use weir_core::component::ComponentDigest;

use crate::registry::{Access, Reference, Registry};
use crate::terminal::{announce, out_line};

/// `weir component publish`.
pub(super) async fn publish(
    file: &Path,
    reference: &Reference,
    access: Access,
    json: bool,
) -> Result<ExitCode> {
    let component = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let bytes = ComponentDigest::of(&component);
    let registry = Registry::open(reference, access)?;
    let digest = announce(
        "sending the component to the registry",
        registry.publish(reference, component),
    )
    .await?;
    let pinned = reference.pinned(digest);
    if json {
        out_line!(
            "{}",
            json!({ "reference": pinned.to_string(), "digest": digest, "component": bytes })
        )?;
    } else {
        out_line!("{pinned}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `weir component pull`.
pub(super) async fn pull(
    reference: &Reference,
    output: Option<&Path>,
    access: Access,
    json: bool,
) -> Result<ExitCode> {
    let registry = Registry::open(reference, access)?;
    let pulled = announce(
        "fetching the component from the registry",
        registry.pull(reference),
    )
    .await?;
    let usual = || PathBuf::from(format!("{}.wasm", reference.name()));
    let file = output.map_or_else(usual, Path::to_owned);
    std::fs::write(&file, &pulled.component).with_context(|| format!("cannot write {}", file.display()))?;
    let pinned = reference.pinned(pulled.digest);
    if json {
        let bytes = ComponentDigest::of(&pulled.component);
        let said = json!({ "reference": pinned.to_string(), "digest": pulled.digest, "component": bytes, "file": file });
        out_line!("{said}")?;
    } else {
        out_line!("{}  {pinned}", file.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
