//! Daily usage of tenants, and reservations within their quotas.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::id::TenantId;

/// Days since 1970, UTC.
pub type UsageDay = u32;

/// Returns the day of a time in milliseconds since 1970.
pub fn day_from_millis(millis: u64) -> UsageDay {
    u32::try_from(millis / 86_400_000).unwrap_or(UsageDay::MAX)
}

/// The resources that a tenant used, for example on one day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// HTTP requests that the rate limit admitted.
    pub requests: u64,
    /// Jobs accepted.
    pub jobs: u64,
    /// Uploaded bytes.
    pub upload_bytes: u64,
    /// Pages that are done or failed.
    pub pages: u64,
    /// Running time of OCR and embedding models, in microseconds.
    pub inference_micros: u64,
    /// CPU time of components, in microseconds.
    pub guest_micros: u64,
    /// Search queries that were accepted.
    pub searches: u64,
    /// Requests that were refused because of a quota.
    pub refusals: u64,
    /// Calls to language models that returned a response, and failed calls that the provider may have billed.
    pub llm_calls: u64,
    /// Prompt tokens of calls to language models.
    pub llm_prompt_tokens: u64,
    /// Response tokens of calls to language models.
    pub llm_answer_tokens: u64,
    /// Cost of these tokens, in millionths of the currency of the providers' prices
    /// (`llm.provider.prompt_price_per_million`).
    pub llm_cost_micros: u64,
}

impl Usage {
    /// Adds the amounts of `other`.
    pub const fn add_amounts(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.jobs = self.jobs.saturating_add(other.jobs);
        self.upload_bytes = self.upload_bytes.saturating_add(other.upload_bytes);
        self.pages = self.pages.saturating_add(other.pages);
        self.inference_micros = self.inference_micros.saturating_add(other.inference_micros);
        self.guest_micros = self.guest_micros.saturating_add(other.guest_micros);
        self.searches = self.searches.saturating_add(other.searches);
        self.refusals = self.refusals.saturating_add(other.refusals);
        self.llm_calls = self.llm_calls.saturating_add(other.llm_calls);
        self.llm_prompt_tokens = self.llm_prompt_tokens.saturating_add(other.llm_prompt_tokens);
        self.llm_answer_tokens = self.llm_answer_tokens.saturating_add(other.llm_answer_tokens);
        self.llm_cost_micros = self.llm_cost_micros.saturating_add(other.llm_cost_micros);
    }

    /// Returns the sum of prompt and response tokens.
    pub const fn total_llm_tokens(&self) -> u64 {
        self.llm_prompt_tokens.saturating_add(self.llm_answer_tokens)
    }
}

/// Receives the usage of metered work. Implementations must not block.
pub trait UsageMeter: Send + Sync {
    /// Adds to the usage of a tenant for today.
    fn record_usage(&self, tenant: &TenantId, usage: &Usage);
}

impl fmt::Debug for dyn UsageMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dyn UsageMeter")
    }
}

/// A quota of a tenant is exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the quota {quota} of {limit} is exhausted: {}", remedy_for_exhausted_quota(.quota))]
pub struct QuotaExhaustedError {
    /// Name of the quota, as in [`Quotas::NAMES`](crate::tenancy::Quotas::NAMES).
    pub quota: &'static str,
    /// The limit.
    pub limit: u64,
}

impl QuotaExhaustedError {
    /// The kind of this error.
    pub const KIND: &str = "quota";
}

/// Returns what a tenant can do about an exhausted quota: daily quotas renew by themselves, stored bytes do not.
fn remedy_for_exhausted_quota(quota: &str) -> &'static str {
    if quota.ends_with("_per_day") {
        "wait until midnight UTC, or have the quota raised"
    } else {
        "delete documents, or have the quota raised"
    }
}

/// A reservation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotaReserveError {
    /// A quota is exhausted.
    #[error(transparent)]
    Exhausted(#[from] QuotaExhaustedError),
    /// The tenant or its usage cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Enforces quotas. Usage is reserved before the work starts, so concurrent work cannot jointly exceed a quota. The
/// last page can exceed a quota whose usage is known only after a page is processed.
#[async_trait]
pub trait UsageQuotaLimiter: Send + Sync {
    /// Reserves between 1 and `most` pages before they are processed, and returns their number. `most` is at least 1.
    /// Some quotas limit resources whose usage is known only after a page is processed. If other work has reserved the rest of
    /// such a quota, waits until that reservation is released.
    async fn reserve_pages(&self, tenant: &TenantId, most: u32) -> Result<u32, QuotaReserveError>;

    /// Reserves a call to a language model with this expected usage. Waits while other calls have reserved the rest
    /// of the quota.
    async fn reserve_llm_call(&self, tenant: &TenantId, expected: &Usage) -> Result<(), QuotaReserveError>;

    /// Releases a reservation after the actual usage was recorded, or if nothing was used.
    fn release_reservation(&self, tenant: &TenantId, reserved: &Usage);
}

/// A reservation that is released when it is dropped.
pub struct QuotaReservation {
    quotas: Arc<dyn UsageQuotaLimiter>,
    tenant: TenantId,
    usage: Usage,
}

impl QuotaReservation {
    /// Creates a guard for usage that `quotas` has reserved for the tenant.
    pub fn new(quotas: &Arc<dyn UsageQuotaLimiter>, tenant: &TenantId, usage: Usage) -> Self {
        Self {
            quotas: Arc::clone(quotas),
            tenant: tenant.clone(),
            usage,
        }
    }
}

impl Drop for QuotaReservation {
    fn drop(&mut self) {
        self.quotas.release_reservation(&self.tenant, &self.usage);
    }
}

/// Stores the daily usage.
#[async_trait]
pub trait UsageStore: Send + Sync {
    /// Adds the usage of several tenants for one day, atomically. It is durable when this returns. Usage of a tenant
    /// that does not exist is discarded. A sum that is too large to be stored becomes the largest that can be stored, at
    /// least `i64::MAX`.
    async fn add_daily_usage_of_tenants(
        &self,
        day: UsageDay,
        amounts: Vec<(TenantId, Usage)>,
    ) -> Result<(), StorageError>;

    /// Returns a tenant's usage of the days `from..=to`, oldest first. Days without usage are omitted.
    async fn list_daily_usage(
        &self,
        tenant: &TenantId,
        from: UsageDay,
        to: UsageDay,
    ) -> Result<Vec<(UsageDay, Usage)>, StorageError>;

    /// Returns the stored bytes of a tenant: its uploads, its components and the blobs of its documents. Returns 0 for
    /// a tenant that does not exist.
    async fn count_stored_bytes(&self, tenant: &TenantId) -> Result<u64, StorageError>;
}
