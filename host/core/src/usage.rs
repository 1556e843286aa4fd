//! What tenants have used, by day.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::id::TenantId;

/// Days since 1970, UTC.
pub type Day = u32;

/// The day of a time in milliseconds since 1970.
pub fn day_of(millis: u64) -> Day {
    u32::try_from(millis / 86_400_000).unwrap_or(Day::MAX)
}

/// Amounts used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// HTTP requests answered.
    pub requests: u64,
    /// Jobs accepted.
    pub jobs: u64,
    /// Bytes taken in.
    pub upload_bytes: u64,
    /// Pages that ended, done or failed.
    pub pages: u64,
    /// Microseconds that models worked.
    pub inference_micros: u64,
    /// Microseconds that components ran.
    pub guest_micros: u64,
    /// Searches answered.
    pub searches: u64,
    /// Requests refused for a quota.
    pub refusals: u64,
    /// Calls to language models that were answered, or may have been charged for.
    pub llm_calls: u64,
    /// Tokens of requests to language models.
    pub llm_prompt_tokens: u64,
    /// Tokens that language models answered with.
    pub llm_answer_tokens: u64,
    /// Price of those tokens, in millionths of the currency of the providers' prices.
    pub llm_cost_micros: u64,
}

impl Usage {
    /// Adds another's amounts.
    pub const fn add(&mut self, other: &Self) {
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

    /// The tokens of requests to language models and of their answers.
    pub const fn llm_tokens(&self) -> u64 {
        self.llm_prompt_tokens.saturating_add(self.llm_answer_tokens)
    }
}

/// Told by whoever does metered work; must not block.
pub trait Meter: Send + Sync {
    /// Adds to what a tenant has used today.
    fn used(&self, tenant: &TenantId, usage: &Usage);
}

impl fmt::Debug for dyn Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter")
    }
}

/// A quota of a tenant that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the quota {quota} = {limit} is used up")]
pub struct QuotaExhausted {
    /// Its name, as in [`Quotas::NAMES`](crate::tenancy::Quotas::NAMES).
    pub quota: &'static str,
    /// The limit.
    pub limit: u64,
}

impl QuotaExhausted {
    /// The kind of errors that say so.
    pub const KIND: &str = "quota";
}

/// Why nothing was reserved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// A quota is used up.
    #[error(transparent)]
    Exhausted(#[from] QuotaExhausted),
    /// The tenant or its usage cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Keeps tenants within their quotas: work is reserved before it begins, so that what begins at the same time does not pass a
/// quota together.
#[async_trait]
pub trait UsageQuotas: Send + Sync {
    /// Reserves pages that are about to be worked on: at least 1 and at most `most`, which is at least 1. Waits while others
    /// have reserved what is left of a quota whose use by a page is known only afterwards.
    async fn reserve_pages(&self, tenant: &TenantId, most: u32) -> Result<u32, ReserveError>;

    /// Reserves a call to a language model, which is expected to use this much. Waits while other calls have reserved what is left.
    async fn reserve_llm_call(&self, tenant: &TenantId, expected: &Usage) -> Result<(), ReserveError>;

    /// Gives back what was reserved: it has been metered, or was not used.
    fn release(&self, tenant: &TenantId, reserved: &Usage);
}

/// An amount that is reserved until this is dropped.
pub struct Reservation {
    quotas: Arc<dyn UsageQuotas>,
    tenant: TenantId,
    usage: Usage,
}

impl Reservation {
    /// Holds an amount that `quotas` has reserved for the tenant.
    pub fn new(quotas: &Arc<dyn UsageQuotas>, tenant: &TenantId, usage: Usage) -> Self {
        Self {
            quotas: Arc::clone(quotas),
            tenant: tenant.clone(),
            usage,
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.quotas.release(&self.tenant, &self.usage);
    }
}

/// Keeps usage.
#[async_trait]
pub trait UsageBook: Send + Sync {
    /// Adds amounts to a tenant's day, all or none; durable when it returns.
    async fn add(&self, day: Day, amounts: Vec<(TenantId, Usage)>) -> Result<(), StorageError>;

    /// What a tenant used, by day, oldest first, of the days `from..=to`; days without use are left out.
    async fn usage(&self, tenant: &TenantId, from: Day, to: Day) -> Result<Vec<(Day, Usage)>, StorageError>;

    /// Bytes a tenant keeps: its documents' originals and what was made of them.
    async fn stored_bytes(&self, tenant: &TenantId) -> Result<u64, StorageError>;
}
