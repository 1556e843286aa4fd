//! The effective limits of tenants: their own quotas, or else the quotas of the settings.

use weir_core::settings::Settings;
use weir_core::tenancy::{Quotas, Tenant};

/// The quotas of the host, which apply where a tenant has none of its own.
#[derive(Debug, Clone)]
pub struct HostQuotas(Quotas);

impl HostQuotas {
    /// Reads the quotas of the settings.
    pub const fn new(settings: &Settings) -> Self {
        Self(Quotas {
            concurrent_jobs: Some(settings.quota_concurrent_jobs),
            queued_jobs: Some(settings.quota_queued_jobs),
            requests_per_second: Some(settings.quota_requests_per_second),
            upload_bytes: Some(settings.quota_upload_bytes),
            pages_per_day: Some(settings.quota_pages_per_day),
            stored_bytes: Some(settings.quota_stored_bytes),
            inference_millis_per_day: Some(settings.quota_inference_millis_per_day),
            guest_millis_per_day: Some(settings.quota_guest_millis_per_day),
            llm_calls_per_day: Some(settings.quota_llm_calls_per_day),
            llm_tokens_per_day: Some(settings.quota_llm_tokens_per_day),
            llm_cost_micros_per_day: Some(settings.quota_llm_cost_micros_per_day),
            guest_memory_bytes: Some(settings.quota_guest_memory_bytes),
        })
    }

    /// Returns the effective limits of a tenant; `None` means no limit.
    pub fn effective_limits(&self, tenant: &Tenant) -> Quotas {
        let mut limits = tenant.quotas.with_defaults(&self.0);
        for name in Quotas::NAMES {
            if let Some(quota) = limits.by_name_mut(name) {
                quota.take_if(|limit| *limit == 0);
            }
        }
        limits
    }
}
