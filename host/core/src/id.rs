//! Identifiers of tenants, documents, jobs, revisions and passages.
//!
//! Ids are deterministic where possible. The id of a document is the hash of its bytes, and the id of a passage is
//! derived from its position. So repeating work overwrites the earlier result and creates no duplicates.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Number of a page in its document, from 1.
pub type PageNumber = u32;

/// The text is not a valid id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is not 64 hexadecimal digits.
    #[error("'{0}' is not a SHA-256 in hexadecimal: give its 64 digits")]
    Digest(String),
    /// The text is not a valid tenant name.
    #[error("'{0}' is not a tenant: use 1 to 64 of the characters a-z, 0-9, '-' and '_'")]
    Tenant(String),
    /// The text is not a valid job id.
    #[error("'{0}' is not a job id: use the UUID that was returned when the job was created")]
    Job(String),
}

/// A tenant's name: 1 to 64 characters of `a-z`, `0-9`, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// Returns the tenant of a host that has only one.
    pub fn default_tenant() -> Self {
        Self(Arc::from("default"))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns whether `name` is a valid name of a tenant, a collection or a pipeline.
pub fn is_valid_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

impl FromStr for TenantId {
    type Err = IdError;
    fn from_str(name: &str) -> Result<Self, IdError> {
        if is_valid_name(name) {
            Ok(Self(Arc::from(name)))
        } else {
            Err(IdError::Tenant(name.to_owned()))
        }
    }
}

impl TryFrom<String> for TenantId {
    type Error = IdError;
    fn try_from(name: String) -> Result<Self, IdError> {
        name.parse()
    }
}

impl From<TenantId> for String {
    fn from(id: TenantId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Parses 64 hexadecimal digits in upper or lower case.
pub(crate) fn decode_digest(text: &str) -> Option<[u8; 32]> {
    let digest = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
    digest.try_into().ok()
}

macro_rules! digest_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 32]);

        impl $name {
            /// Returns the id of these bytes.
            pub fn from_content(bytes: &[u8]) -> Self {
                Self(Sha256::digest(bytes).into())
            }

            /// Returns the id of a SHA-256 that was computed incrementally.
            pub const fn from_digest(digest: [u8; 32]) -> Self {
                Self(digest)
            }

            /// Returns the 32 bytes of the digest.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                HEXLOWER.encode_display(&self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                decode_digest(text)
                    .map(Self)
                    .ok_or_else(|| IdError::Digest(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

digest_id! {
    /// Id of a document: the SHA-256 of its bytes. The same file has the same id, whatever its name.
    DocumentId
}

digest_id! {
    /// Processing fingerprint: the SHA-256 of a manifest, with the options of the job, and of its components. It is not the
    /// number of a [`Revision`](crate::revision::Revision): two jobs with the same revision but other options have different
    /// fingerprints.
    RevisionId
}

/// Id of a job: a version 7 UUID, so that ids sort by creation time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl JobId {
    /// Creates a new id.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Returns when the id was created by the clock of its creator, in milliseconds since 1970; 0 if the id has no time.
    #[must_use]
    pub fn created_millis(&self) -> u64 {
        self.0.get_timestamp().map_or(0, |timestamp| {
            let (seconds, nanos) = timestamp.to_unix();
            seconds.saturating_mul(1000) + u64::from(nanos / 1_000_000)
        })
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Uuid::parse_str(text)
            .map(Self)
            .map_err(|_| IdError::Job(text.to_owned()))
    }
}

/// Derives the id of a passage in the index: the UUIDv5 of tenant, document, page, passage number and processing fingerprint.
pub fn derive_passage_id(
    tenant: &TenantId,
    document: &DocumentId,
    page: PageNumber,
    passage: u32,
    revision: &RevisionId,
) -> Uuid {
    let mut name = Vec::with_capacity(tenant.as_str().len() + 73);
    name.extend_from_slice(tenant.as_str().as_bytes());
    name.push(0);
    name.extend_from_slice(document.as_bytes());
    name.extend_from_slice(&page.to_be_bytes());
    name.extend_from_slice(&passage.to_be_bytes());
    name.extend_from_slice(revision.as_bytes());
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_id_round_trips_as_text() {
        let id = DocumentId::from_content(b"weir");
        assert_eq!(id.to_string().parse::<DocumentId>().unwrap(), id);
        let bytes: [u8; 32] = std::array::from_fn(|i| (i as u8) << 3 | 5);
        let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(DocumentId::from_digest(bytes).to_string(), digits);
        assert_eq!(digits.to_uppercase().parse(), Ok(DocumentId::from_digest(bytes)));
        assert!("zz".repeat(32).parse::<DocumentId>().is_err());
        assert!("+f".repeat(32).parse::<DocumentId>().is_err());
        assert!("é".repeat(32).parse::<DocumentId>().is_err());
    }

    #[test]
    fn tenant_name_must_be_lower_case() {
        assert!("team-7_x".parse::<TenantId>().is_ok());
        for wrong in ["", "Team", "a/b", "ä", &"x".repeat(65)] {
            assert!(wrong.parse::<TenantId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn passage_id_depends_on_every_part() {
        let (a, b) = (TenantId::default_tenant(), "other".parse().unwrap());
        let (d, e) = (DocumentId::from_content(b"d"), DocumentId::from_content(b"e"));
        let (r, s) = (RevisionId::from_content(b"r"), RevisionId::from_content(b"s"));
        let first = derive_passage_id(&a, &d, 1, 0, &r);
        assert_eq!(first, derive_passage_id(&a, &d, 1, 0, &r));
        for other in [
            derive_passage_id(&b, &d, 1, 0, &r),
            derive_passage_id(&a, &e, 1, 0, &r),
            derive_passage_id(&a, &d, 2, 0, &r),
            derive_passage_id(&a, &d, 1, 1, &r),
            derive_passage_id(&a, &d, 1, 0, &s),
        ] {
            assert_ne!(first, other);
        }
    }
}
