//! Where a component is that is to be pushed: a file, or an artifact in a registry.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result};

use super::reference::SCHEME;
use super::{Access, Reference, Registry};

/// A file, or `oci://` and a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    File(PathBuf),
    Registry(Reference),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.starts_with(SCHEME) {
            true => text.parse().map(Self::Registry),
            false => Ok(Self::File(text.into())),
        }
    }
}

impl Place {
    /// As a manifest names it.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        match path.to_str() {
            Some(text) => text.parse().map_err(anyhow::Error::msg),
            None => Ok(Self::File(path.to_owned())),
        }
    }

    /// The component, and a name for it.
    pub(crate) async fn read(&self, access: Access) -> Result<(String, Vec<u8>)> {
        match self {
            Self::File(path) => {
                let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase());
                Ok((stem.unwrap_or_default(), bytes))
            }
            Self::Registry(reference) => {
                let pulled = Registry::open(reference, access)?.pull(reference).await?;
                Ok((reference.name().replace('.', "-"), pulled.component))
            }
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Registry(reference) => write!(f, "{SCHEME}{reference}"),
        }
    }
}
