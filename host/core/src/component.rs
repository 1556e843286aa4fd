//! WebAssembly components that tenants have pushed.
//!
//! The SHA-256 of its bytes identifies a component, and a component never changes. So a revision that names a
//! component always means the same code, and two tenants who push the same bytes share one compiled artifact. The
//! host inspects a component once, when it is pushed, and stores the roles that it exports and the capabilities that
//! it imports. A component that fails this inspection is not stored.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{PolicyError, StorageError};
use crate::id::{TenantId, decode_digest};
use crate::local_file::LocalFile;
use crate::manifest::{Capability, ResolvedComponentFile, ResolvedPipeline, Role};

/// SHA-256 of a component's bytes, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ComponentDigest(pub [u8; 32]);

impl ComponentDigest {
    /// Returns the digest of these bytes.
    pub fn from_content(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for ComponentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for ComponentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a component digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a component digest: give sha256: and 64 hexadecimal digits")]
pub struct ComponentDigestError(pub String);

impl FromStr for ComponentDigest {
    type Err = ComponentDigestError;
    fn from_str(text: &str) -> Result<Self, ComponentDigestError> {
        let wrong = || ComponentDigestError(text.chars().take(80).collect());
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        decode_digest(digits).map(Self).ok_or_else(wrong)
    }
}

impl Serialize for ComponentDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ComponentDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The roles that a component exports and the capabilities that it imports, read when it was pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentInterface {
    /// The exported roles in ascending order; at least one.
    pub roles: Vec<Role>,
    /// The imported capabilities. A pipeline must grant each of them.
    pub capabilities: Vec<Capability>,
}

/// A component that a tenant has pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentRecord {
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// Digest of its bytes, which identifies it.
    pub digest: ComponentDigest,
    /// The name that its owner gave it. Several components can share a name, as versions of one component do.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// The roles that it exports and the capabilities that it imports.
    pub interface: ComponentInterface,
    /// When it was first pushed, in milliseconds since 1970.
    pub created_millis: u64,
    /// Public part of the API key that pushed it.
    pub pushed_by_key: String,
}

/// Stores the bytes of tenants' components. Tenants with equal components have a copy each.
#[async_trait]
pub trait ComponentStore: Send + Sync {
    /// Returns a new path on this machine to write a component to before it is validated. The caller removes the file unless
    /// it commits it. Files left there are removed at the next start.
    fn new_temporary_path(&self) -> PathBuf;

    /// Stores the file at `unfinished`, which has this digest. It is durable when this returns, and the file at `unfinished` is
    /// gone. Replaces the component if it was stored already. Returns [`StorageError::NotFound`] if there is no file at
    /// `unfinished`.
    async fn commit_component(
        &self,
        tenant: &TenantId,
        unfinished: &std::path::Path,
        digest: &ComponentDigest,
    ) -> Result<(), StorageError>;

    /// Opens a component; `None` if it is not stored.
    async fn open_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<Option<LocalFile>, StorageError>;

    /// Removes a component. Returns whether it existed.
    async fn remove_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<bool, StorageError>;

    /// Removes all components of a tenant. It is no error if there are none.
    async fn remove_all_components_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError>;
}

/// Validates components before they are stored, in the sandbox that they run in later.
#[async_trait]
pub trait ComponentValidator: Send + Sync {
    /// Returns the roles that a component exports and the capabilities that it imports. The error says in one sentence
    /// what the author can fix: the file is not a component, it targets another version of the contract (and which
    /// function differs), it imports something that does not exist, or it takes too much memory or time to compile.
    /// The work is charged to the tenant.
    async fn inspect_component(
        &self,
        tenant: &TenantId,
        file: &ResolvedComponentFile,
    ) -> Result<ComponentInterface, PolicyError>;

    /// Opens the components of a pipeline as a job does, and calls each role once with a synthetic document of one
    /// page.
    async fn dry_run_pipeline(
        &self,
        tenant: &TenantId,
        pipeline: &ResolvedPipeline,
    ) -> Result<(), PolicyError>;
}

/// The component digest of each role.
pub type ComponentsByRole = BTreeMap<Role, ComponentDigest>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_round_trips_as_text() {
        let digest = ComponentDigest::from_content(b"component");
        let text = digest.to_string();
        assert_eq!(text.len(), 71);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(text.strip_prefix("sha256:").unwrap().parse(), Ok(digest));
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{text}\""));
    }

    #[test]
    fn malformed_digest_is_rejected() {
        let signed = format!("sha256:+{}", "0".repeat(63));
        for text in ["", "sha256:", "sha256:12", "latest", &"é".repeat(32), &signed] {
            assert!(text.parse::<ComponentDigest>().is_err(), "{text}");
        }
    }
}
