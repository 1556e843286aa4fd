//! Tenants, the keys that speak for them, and what each may use.
//!
//! A key is `weir_<id>_<secret>`: the id finds the record, and only the SHA-256 of the secret is kept. The secret has 256 bits
//! from the system's generator, so a slow hash would add nothing but a way to make the host busy.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::id::TenantId;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its name.
    pub id: TenantId,
    /// Whether it may use the host.
    pub state: TenantState,
    /// Its share of a busy host, relative to the others; above 0, 1 for most.
    pub weight: f64,
    /// Where its quotas differ from the host's.
    pub quotas: Quotas,
    /// When it was made, in milliseconds since 1970.
    pub created_millis: u64,
}

/// Whether a tenant may use the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TenantState {
    /// It may.
    Active,
    /// Its keys are refused and its jobs wait; nothing of it is lost.
    Suspended,
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Submit, cancel and retry jobs; delete documents.
    Ingest,
    /// Read jobs, documents, events and usage; search.
    Read,
    /// Push components and change pipelines.
    Components,
    /// Make and change tenants and keys, of every tenant. It gives no access to tenants' documents.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Read, Self::Components, Self::Admin];

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Components => "components",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No scope has that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no scope: use ingest, read, components or admin")]
pub struct ScopeError(pub String);

impl FromStr for Scope {
    type Err = ScopeError;
    fn from_str(name: &str) -> Result<Self, ScopeError> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.name() == name)
            .ok_or_else(|| ScopeError(name.to_owned()))
    }
}

/// What is kept of a key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// The key's public part: 12 hexadecimal digits.
    pub id: String,
    /// Whom it speaks for.
    pub tenant: TenantId,
    /// What it may do, sorted, each once.
    pub scopes: Vec<Scope>,
    /// SHA-256 of the secret.
    pub digest: [u8; 32],
    /// What its owner calls it.
    pub label: String,
    /// When it was made, in milliseconds since 1970.
    pub created_millis: u64,
    /// From when on it is refused.
    pub expires_millis: Option<u64>,
    /// Since when it has been revoked.
    pub revoked_millis: Option<u64>,
}

impl fmt::Debug for KeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRecord")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

macro_rules! quotas {
    ($($(#[doc = $doc:literal])+ $field:ident => $name:literal;)*) => {
        /// Upper limits; `None` is the host's default, the setting `quota.<name>`, and a limit of 0 there is none at all.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Quotas {
            $($(#[doc = $doc])+ #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<u64>,)*
        }

        impl Quotas {
            /// Names of all quotas, as settings and refusals have them.
            pub const NAMES: &[&str] = &[$($name),*];

            /// A quota by name; `None` if there is no such quota.
            pub fn by_name_mut(&mut self, name: &str) -> Option<&mut Option<u64>> {
                match name {
                    $($name => Some(&mut self.$field),)*
                    _ => None,
                }
            }

            /// These limits, and `host`'s where there are none.
            #[must_use]
            pub fn or(&self, host: &Self) -> Self {
                Self { $($field: self.$field.or(host.$field),)* }
            }
        }
    };
}

quotas! {
    /// Jobs in work at one time.
    concurrent_jobs => "concurrent_jobs";
    /// Jobs waiting.
    queued_jobs => "queued_jobs";
    /// HTTP requests a second, on average; bursts of twice that are let through.
    requests_per_second => "requests_per_second";
    /// Bytes of one submission.
    upload_bytes => "upload_bytes";
    /// Pages a day (UTC).
    pages_per_day => "pages_per_day";
    /// Bytes of documents and page images kept.
    stored_bytes => "stored_bytes";
    /// Milliseconds of models a day (UTC).
    inference_millis_per_day => "inference_millis_per_day";
    /// Milliseconds of components' CPU a day (UTC).
    guest_millis_per_day => "guest_millis_per_day";
    /// Calls to language models a day (UTC).
    llm_calls_per_day => "llm_calls_per_day";
    /// Tokens of language models a day (UTC), of requests and answers together.
    llm_tokens_per_day => "llm_tokens_per_day";
    /// Price of those tokens a day (UTC), in millionths of the currency of the providers' prices.
    llm_cost_micros_per_day => "llm_cost_micros_per_day";
    /// Bytes of memory of one component's instance.
    guest_memory_bytes => "guest_memory_bytes";
}

/// A change of a tenant. What is `None`, and each quota that is not named, stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TenantUpdate {
    /// Whether it may use the host.
    pub state: Option<TenantState>,
    /// Its share of a busy host.
    pub weight: Option<f64>,
    /// Quotas by name: a limit, or `None` for the host's. Unknown names are ignored.
    pub quotas: Vec<(String, Option<u64>)>,
}

impl TenantUpdate {
    /// Changes a tenant.
    pub fn apply(&self, tenant: &mut Tenant) {
        tenant.state = self.state.unwrap_or(tenant.state);
        tenant.weight = self.weight.unwrap_or(tenant.weight);
        for (name, limit) in &self.quotas {
            if let Some(quota) = tenant.quotas.by_name_mut(name) {
                *quota = *limit;
            }
        }
    }
}

/// Keeps tenants and keys. What is written is durable when a call returns, and the next call sees it, also from another
/// process.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Writes a tenant, unless there is one of its name; whether it was written.
    async fn create_tenant(&self, tenant: &Tenant) -> Result<bool, StorageError>;

    /// Changes a tenant in one step, so that no change of another process is lost; the tenant as it is then, or `None` if there is
    /// none.
    async fn change_tenant(
        &self,
        id: &TenantId,
        change: &TenantUpdate,
    ) -> Result<Option<Tenant>, StorageError>;

    /// A tenant.
    async fn tenant(&self, id: &TenantId) -> Result<Option<Tenant>, StorageError>;

    /// All tenants by name.
    async fn tenants(&self) -> Result<Vec<Tenant>, StorageError>;

    /// Suspends a tenant and removes its keys for good; whether there is such a tenant. What was begun with one of the keys
    /// changes nothing any more.
    async fn lock_out(&self, id: &TenantId) -> Result<bool, StorageError>;

    /// Removes a tenant with its keys, jobs, documents, events and usage; whether there was one. Vectors and blobs are the
    /// caller's to remove first.
    async fn remove_tenant(&self, id: &TenantId) -> Result<bool, StorageError>;

    /// Writes or replaces a key.
    async fn put_key(&self, key: &KeyRecord) -> Result<(), StorageError>;

    /// Revokes a key for good, in one step; whether there is such a key. One that is revoked stays as it is.
    async fn revoke_key(&self, id: &str, now_millis: u64) -> Result<bool, StorageError>;

    /// Writes `fresh` and revokes the key `old`, in one step; whether `old` was neither revoked nor expired. Otherwise nothing is
    /// written.
    async fn replace_key(&self, old: &str, fresh: &KeyRecord, now_millis: u64) -> Result<bool, StorageError>;

    /// A key by its public part.
    async fn key(&self, id: &str) -> Result<Option<KeyRecord>, StorageError>;

    /// A tenant's keys, oldest first.
    async fn keys(&self, tenant: &TenantId) -> Result<Vec<KeyRecord>, StorageError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_quota_stands_over_the_hosts() {
        let host = Quotas {
            concurrent_jobs: Some(4),
            pages_per_day: Some(100),
            ..Quotas::default()
        };
        let own = Quotas {
            concurrent_jobs: Some(1),
            ..Quotas::default()
        };
        let both = own.or(&host);
        assert_eq!((both.concurrent_jobs, both.pages_per_day), (Some(1), Some(100)));
    }

    #[test]
    fn every_quota_has_its_own_name() {
        let mut quotas = Quotas::default();
        for (value, name) in (1..).zip(Quotas::NAMES) {
            *quotas.by_name_mut(name).unwrap() = Some(value);
        }
        assert_eq!(quotas.concurrent_jobs, Some(1));
        assert_eq!(quotas.guest_memory_bytes, Some(Quotas::NAMES.len() as u64));
        assert!(quotas.by_name_mut("jobs").is_none());
    }
}
