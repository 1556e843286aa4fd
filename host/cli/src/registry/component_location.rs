//! The location of a component to push: a file, or an artifact in a registry.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result};

use super::reference::OCI_SCHEME;
use super::{ArtifactReference, PlainHttpArg, RegistryClient};

/// A file path, or `oci://` with a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ComponentLocation {
    File(PathBuf),
    Registry(ArtifactReference),
}

impl FromStr for ComponentLocation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.starts_with(OCI_SCHEME) {
            true => text.parse().map(Self::Registry),
            false => Ok(Self::File(text.into())),
        }
    }
}

impl ComponentLocation {
    /// Parses the location of a component in a manifest.
    pub(crate) fn from_path_in_manifest(path: &Path) -> Result<Self> {
        match path.to_str() {
            Some(text) => text.parse().map_err(anyhow::Error::msg),
            None => Ok(Self::File(path.to_owned())),
        }
    }

    /// Reads or pulls the component. Returns its default name and its bytes.
    pub(crate) async fn read_or_pull_component(&self, access: PlainHttpArg) -> Result<(String, Vec<u8>)> {
        match self {
            Self::File(path) => {
                let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase());
                Ok((stem.unwrap_or_default(), bytes))
            }
            Self::Registry(reference) => {
                let pulled = RegistryClient::open(reference, access)?.pull(reference).await?;
                Ok((reference.artifact_name().replace('.', "-"), pulled.component))
            }
        }
    }
}

impl std::fmt::Display for ComponentLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Registry(reference) => write!(f, "{OCI_SCHEME}{reference}"),
        }
    }
}
