//! Who and what: tenants, documents, jobs, revisions and passages.
//!
//! Identity is deterministic wherever it can be. A document is the hash of its bytes and a passage's id is derived from
//! where it stands, so doing work twice overwrites and never doubles.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A page's number in its document; the first page is 1.
pub type PageNumber = u32;

/// An id that is not written as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 64 hexadecimal digits.
    #[error("'{0}' is not a SHA-256 in hexadecimal: give its 64 digits")]
    Digest(String),
    /// Not a tenant name.
    #[error("'{0}' is not a tenant: use 1 to 64 of the characters a-z, 0-9, '-' and '_'")]
    Tenant(String),
    /// Not a job id.
    #[error("'{0}' is not a job id: use the UUID that the job was answered with")]
    Job(String),
}

/// A tenant's name: 1 to 64 characters of `a-z`, `0-9`, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// The tenant of a host that has only one.
    pub fn single() -> Self {
        Self(Arc::from("default"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `name` may name a tenant, a collection or a pipeline.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

impl FromStr for TenantId {
    type Err = IdError;
    fn from_str(name: &str) -> Result<Self, IdError> {
        if is_name(name) {
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
        f.write_str(&self.0)
    }
}

macro_rules! digest_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 32]);

        impl $name {
            /// The id of these bytes.
            pub fn of(bytes: &[u8]) -> Self {
                Self(Sha256::digest(bytes).into())
            }

            /// The id of a SHA-256 computed piecewise.
            pub const fn from_digest(digest: [u8; 32]) -> Self {
                Self(digest)
            }

            /// The 32 bytes of the digest.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Written for every page of every document, hence not digit by digit through the formatter.
                let digit = |n: u8| n + if n < 10 { b'0' } else { b'a' - 10 };
                let mut text = [0; 64];
                for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(&self.0) {
                    *pair = [digit(byte >> 4), digit(byte & 15)];
                }
                f.write_str(std::str::from_utf8(&text).unwrap_or_default())
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
                let wrong = || IdError::Digest(text.to_owned());
                if text.len() != 64 || !text.is_ascii() {
                    return Err(wrong());
                }
                let mut digest = [0; 32];
                for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
                }
                Ok(Self(digest))
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
    /// A document: the SHA-256 of its bytes, so the same file is the same document whatever its name.
    DocumentId
}

digest_id! {
    /// A pipeline's revision: the SHA-256 of its manifest and of the components it names.
    RevisionId
}

/// A job. Version 7, so that ids sort by the time the jobs were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl JobId {
    /// A new id.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
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

/// The id of a passage in the index: UUIDv5 of tenant, document, page, passage and revision.
pub fn passage_id(
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
    fn a_document_id_survives_text() {
        let id = DocumentId::of(b"weir");
        assert_eq!(id.to_string().parse::<DocumentId>().unwrap(), id);
        let bytes: [u8; 32] = std::array::from_fn(|i| (i as u8) << 3 | 5);
        let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(DocumentId::from_digest(bytes).to_string(), digits);
        assert!("zz".repeat(32).parse::<DocumentId>().is_err());
        assert!("é".repeat(32).parse::<DocumentId>().is_err());
    }

    #[test]
    fn tenants_are_named_in_lower_case() {
        assert!("team-7_x".parse::<TenantId>().is_ok());
        for wrong in ["", "Team", "a/b", "ä", &"x".repeat(65)] {
            assert!(wrong.parse::<TenantId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn passage_ids_differ_in_every_part() {
        let (a, b) = (TenantId::single(), "other".parse().unwrap());
        let (d, e) = (DocumentId::of(b"d"), DocumentId::of(b"e"));
        let (r, s) = (RevisionId::of(b"r"), RevisionId::of(b"s"));
        let first = passage_id(&a, &d, 1, 0, &r);
        assert_eq!(first, passage_id(&a, &d, 1, 0, &r));
        for other in [
            passage_id(&b, &d, 1, 0, &r),
            passage_id(&a, &e, 1, 0, &r),
            passage_id(&a, &d, 2, 0, &r),
            passage_id(&a, &d, 1, 1, &r),
            passage_id(&a, &d, 1, 0, &s),
        ] {
            assert_ne!(first, other);
        }
    }
}
