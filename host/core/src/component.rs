//! Components that tenants have pushed.
//!
//! A component is named by the SHA-256 of its bytes and never changes, so a revision that names it is the same for ever, and
//! two tenants who push the same bytes share what was compiled from them. What a component exports and imports is found out
//! at the gate, once, and written down: nothing that fails there is ever kept.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{PolicyError, StorageError};
use crate::id::TenantId;
use crate::manifest::{Capability, ComponentFile, Pipeline, Role};

/// SHA-256 of a component's bytes, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ComponentDigest(pub [u8; 32]);

impl ComponentDigest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for ComponentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ComponentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no component: give sha256: and 64 hexadecimal digits")]
pub struct DigestError(pub String);

impl FromStr for ComponentDigest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let wrong = || DigestError(text.chars().take(80).collect());
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
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

/// What a component turned out to be at the gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentFacts {
    /// The roles it exports, in their order; at least one.
    pub roles: Vec<Role>,
    /// The capabilities it imports, which a pipeline has to grant.
    pub capabilities: Vec<Capability>,
}

/// A component that a tenant has pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentRecord {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its bytes' digest, which is its identity.
    pub digest: ComponentDigest,
    /// What its owner calls it; several may have one name, as versions of a thing do.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// What it is.
    pub facts: ComponentFacts,
    /// When it was pushed first, in milliseconds since 1970.
    pub created_millis: u64,
    /// Public part of the key it was pushed with.
    pub by: String,
}

/// Keeps the bytes of tenants' components.
#[async_trait]
pub trait ComponentStore: Send + Sync {
    /// Where a component that has not been checked yet may be written. What is there is removed at the next start.
    fn unfinished(&self) -> PathBuf;

    /// Keeps the file at `unfinished`, which has this digest; durable when it returns.
    async fn commit(
        &self,
        tenant: &TenantId,
        unfinished: &std::path::Path,
        digest: &ComponentDigest,
    ) -> Result<(), StorageError>;

    /// Where a component is, or would be.
    fn path(&self, tenant: &TenantId, digest: &ComponentDigest) -> PathBuf;

    /// Removes a component; whether it was there.
    async fn remove(&self, tenant: &TenantId, digest: &ComponentDigest) -> Result<bool, StorageError>;

    /// Removes all of a tenant's components.
    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError>;
}

/// Looks at components before they are let in, in the sandbox they will live in.
#[async_trait]
pub trait Gate: Send + Sync {
    /// What a component is. The error says in a sentence what a person can do about it: not a component, another version of
    /// the contract and which function differs, an import that does not exist, too large, too long or too much to compile.
    /// What it takes to find out is the tenant's.
    async fn inspect(&self, tenant: &TenantId, file: &ComponentFile) -> Result<ComponentFacts, PolicyError>;

    /// Opens the components of a pipeline as a job would, and asks each role once about a made-up document of one page.
    async fn rehearse(&self, tenant: &TenantId, pipeline: &Pipeline) -> Result<(), PolicyError>;
}

/// Components by role, by digest.
pub type ComponentsByRole = BTreeMap<Role, ComponentDigest>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        let digest = ComponentDigest::of(b"component");
        let text = digest.to_string();
        assert_eq!(text.len(), 71);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(text.strip_prefix("sha256:").unwrap().parse(), Ok(digest));
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{text}\""));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let signed = format!("sha256:+{}", "0".repeat(63));
        for text in ["", "sha256:", "sha256:12", "latest", &"é".repeat(32), &signed] {
            assert!(text.parse::<ComponentDigest>().is_err(), "{text}");
        }
    }
}
