//! Tenants, their API keys, their quotas and the retention periods of their records.
//!
//! An API key is `weir_<id>_<secret>`. The id selects the record, and only the SHA-256 of the secret is stored. The
//! secret has 256 bits from the system's random generator. So a slow password hash would not improve security, and
//! would let clients keep the host busy.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::id::TenantId;
use crate::overridable_numbers::overridable_numbers;
pub use crate::overridable_numbers::{OverridableNumbers, OverrideError};
use crate::retention::RetentionPeriods;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Name of the tenant.
    pub id: TenantId,
    /// Whether it may use the host.
    pub state: TenantState,
    /// Share of a busy host relative to other tenants; above 0, by default 1.
    pub weight: f64,
    /// Quotas that differ from the host's defaults.
    pub quotas: Quotas,
    /// Retention periods that differ from the host's defaults.
    pub retention: RetentionPeriods,
    /// Creation time in milliseconds since 1970.
    pub created_millis: u64,
}

/// Whether a tenant may use the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TenantState {
    /// The tenant may use the host.
    Active,
    /// The tenant's keys are refused and its jobs wait. Nothing is deleted.
    Suspended,
}

/// Permission of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyScope {
    /// Create, cancel and retry jobs; delete documents.
    Ingest,
    /// Read jobs, documents, events and usage; search.
    Read,
    /// Push components and change pipelines.
    Components,
    /// Create and change tenants and keys, of every tenant. It gives no access to the documents of tenants.
    Admin,
}

impl KeyScope {
    /// All scopes.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Read, Self::Components, Self::Admin];

    /// Returns the name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Components => "components",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for KeyScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No scope has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a scope: use ingest, read, components or admin")]
pub struct KeyScopeError(pub String);

impl FromStr for KeyScope {
    type Err = KeyScopeError;
    fn from_str(name: &str) -> Result<Self, KeyScopeError> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.name() == name)
            .ok_or_else(|| KeyScopeError(name.to_owned()))
    }
}

/// The stored part of an API key.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// Public part of the key: 12 hexadecimal digits.
    pub id: String,
    /// The tenant of the key.
    pub tenant: TenantId,
    /// Permissions of the key, sorted and without duplicates.
    pub scopes: Vec<KeyScope>,
    /// SHA-256 of the secret.
    pub secret_digest: [u8; 32],
    /// Name that the owner gave the key.
    pub display_name: String,
    /// Creation time in milliseconds since 1970.
    pub created_millis: u64,
    /// Time from which on the key is refused.
    pub expires_millis: Option<u64>,
    /// Time when the key was revoked.
    pub revoked_millis: Option<u64>,
}

impl fmt::Debug for ApiKeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyRecord")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

overridable_numbers! {
    /// Quotas of a tenant. `None` uses the host's default, the setting `default_quota.<name>`. A quota of 0 means no
    /// limit.
    Quotas, "quota", at most i64::MAX.unsigned_abs();
    /// Maximum running jobs.
    concurrent_jobs => "concurrent_jobs";
    /// Maximum queued jobs.
    queued_jobs => "queued_jobs";
    /// Maximum HTTP requests in a second, on average. Bursts of twice as many are accepted.
    requests_per_second => "requests_per_second";
    /// Maximum bytes of one upload.
    upload_bytes => "upload_bytes";
    /// Maximum pages in a day (UTC).
    pages_per_day => "pages_per_day";
    /// Maximum stored bytes of uploads, components and the blobs of documents, such as page images.
    stored_bytes => "stored_bytes";
    /// Maximum milliseconds of the time of OCR and embedding models in a day (UTC).
    inference_millis_per_day => "inference_millis_per_day";
    /// Maximum milliseconds of components' CPU time in a day (UTC).
    guest_millis_per_day => "guest_millis_per_day";
    /// Maximum calls to language models in a day (UTC).
    llm_calls_per_day => "llm_calls_per_day";
    /// Maximum language model tokens in a day (UTC), prompts and responses together.
    llm_tokens_per_day => "llm_tokens_per_day";
    /// Maximum cost of these tokens in a day (UTC), in millionths of the currency of the providers' prices.
    llm_cost_micros_per_day => "llm_cost_micros_per_day";
    /// Maximum memory of one component instance in bytes.
    guest_memory_bytes => "guest_memory_bytes";
}

/// A change of a tenant. `None` values, and quotas and retention periods without an entry, do not change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TenantUpdate {
    /// Whether it may use the host.
    pub state: Option<TenantState>,
    /// Share of a busy host.
    pub weight: Option<f64>,
    /// Quotas by name: a limit, or `None` for the host's default. Unknown names are ignored.
    pub quotas: Vec<(String, Option<u64>)>,
    /// Retention periods by name: days, or `None` for the host's default. Unknown names are ignored.
    pub retention: Vec<(String, Option<u64>)>,
}

impl TenantUpdate {
    /// Applies the change to a tenant.
    pub fn apply_to_tenant(&self, tenant: &mut Tenant) {
        tenant.state = self.state.unwrap_or(tenant.state);
        tenant.weight = self.weight.unwrap_or(tenant.weight);
        override_numbers(&mut tenant.quotas, &self.quotas);
        override_numbers(&mut tenant.retention, &self.retention);
    }
}

fn override_numbers(numbers: &mut impl OverridableNumbers, changes: &[(String, Option<u64>)]) {
    for (name, value) in changes {
        if let Some(number) = numbers.by_name_mut(name) {
            *number = *value;
        }
    }
}

/// Stores tenants and API keys. A write is durable when its call returns, and the next call sees it, also from
/// another process.
#[async_trait]
pub trait TenantStore: Send + Sync {
    /// Creates a tenant, unless one with its name exists. Returns whether it was created.
    async fn create_tenant(&self, tenant: &Tenant) -> Result<bool, StorageError>;

    /// Changes a tenant atomically, so that no change of another process is lost. Returns the changed tenant; `None`
    /// if it does not exist.
    async fn update_tenant(
        &self,
        id: &TenantId,
        change: &TenantUpdate,
    ) -> Result<Option<Tenant>, StorageError>;

    /// Returns a tenant; `None` if it does not exist.
    async fn find_tenant(&self, id: &TenantId) -> Result<Option<Tenant>, StorageError>;

    /// Returns all tenants, sorted by name.
    async fn list_tenants(&self) -> Result<Vec<Tenant>, StorageError>;

    /// Suspends a tenant and removes its keys permanently. Returns whether the tenant exists. Requests that started
    /// with one of these keys can no longer change components, revisions or rollouts.
    async fn suspend_tenant_and_remove_keys(&self, id: &TenantId) -> Result<bool, StorageError>;

    /// Removes a tenant with its keys, jobs, documents, events, usage, pipelines and all other records. Returns whether
    /// it existed. The caller must remove vectors and blobs first.
    async fn remove_tenant(&self, id: &TenantId) -> Result<bool, StorageError>;

    /// Writes or replaces an API key. Returns [`StorageError::NotFound`] if its tenant does not exist, and
    /// [`StorageError::Failed`] if another tenant has a key with its id.
    async fn put_api_key(&self, key: &ApiKeyRecord) -> Result<(), StorageError>;

    /// Revokes an API key permanently and atomically. Returns whether the key exists. A key that is already revoked
    /// does not change.
    async fn revoke_api_key(&self, id: &str, now_millis: u64) -> Result<bool, StorageError>;

    /// Writes `replacement` and revokes the key `old` atomically. Returns whether `old` is a key of the same tenant
    /// that was neither revoked nor expired; if not, nothing is written. Errors are those of
    /// [`put_api_key`](Self::put_api_key), and nothing is written either.
    async fn replace_api_key(
        &self,
        old: &str,
        replacement: &ApiKeyRecord,
        now_millis: u64,
    ) -> Result<bool, StorageError>;

    /// Returns an API key by its public part; `None` if it does not exist.
    async fn find_api_key_by_id(&self, id: &str) -> Result<Option<ApiKeyRecord>, StorageError>;

    /// Returns an API key and its tenant, in one read of the store; `None` if the key does not exist.
    async fn find_api_key_with_tenant(
        &self,
        id: &str,
    ) -> Result<Option<(ApiKeyRecord, Tenant)>, StorageError>;

    /// Returns a tenant's API keys, oldest first. Keys of the same creation time are sorted by id.
    async fn list_api_keys(&self, tenant: &TenantId) -> Result<Vec<ApiKeyRecord>, StorageError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_quota_overrides_the_host_default() {
        let host = Quotas {
            concurrent_jobs: Some(4),
            pages_per_day: Some(100),
            ..Quotas::default()
        };
        let own = Quotas {
            concurrent_jobs: Some(1),
            ..Quotas::default()
        };
        let both = own.with_defaults(&host);
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
