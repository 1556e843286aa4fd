//! Reserves parts of tenants' quotas for pages and for requests to language models before they start.
//!
//! A page counts as used once it has ended. Until then it is reserved, so that the pages of all concurrent jobs together stay within
//! the quota. How much model time, component time and disk space a page needs is known only afterwards. Near such a limit, only
//! as many pages start at the same time as are expected to fit. The last of them may exceed the limit by what it needs beyond that.

use async_trait::async_trait;
use weir_core::clock::unix_time_millis;
use weir_core::tenancy::Quotas;
use weir_core::usage::{
    QuotaExhaustedError, QuotaReserveError, Usage, UsageDay, UsageQuotaLimiter, day_from_millis,
};
use weir_core::{StorageError, TenantId};

use super::usage_recorder::{QuotaSources, UsageRecorder};

/// The expected number of stored bytes of a page: its image, its lines and its passages.
const EXPECTED_BYTES_PER_PAGE: u64 = 1 << 20;

/// Returns the limits on language models, with the amounts of `usage` that count against them.
fn pair_llm_limits_with_usage(limits: &Quotas, usage: &Usage) -> [(&'static str, Option<u64>, u64); 3] {
    [
        ("llm_calls_per_day", limits.llm_calls_per_day, usage.llm_calls),
        (
            "llm_tokens_per_day",
            limits.llm_tokens_per_day,
            usage.total_llm_tokens(),
        ),
        (
            "llm_cost_micros_per_day",
            limits.llm_cost_micros_per_day,
            usage.llm_cost_micros,
        ),
    ]
}

/// Whether a request to a language model fits beside the reserved ones, or has to wait until one of them ends. `expected` is its
/// expected usage. The last request may exceed a limit, because its actual usage is known only when it ends.
fn llm_call_fits(
    limits: &Quotas,
    used: &Usage,
    reserved: &Usage,
    expected: &Usage,
) -> Result<bool, QuotaExhaustedError> {
    let amounts = [used, reserved, expected].map(|usage| pair_llm_limits_with_usage(limits, usage));
    let [used, reserved, expected] = amounts;
    let mut fits = true;
    for (((quota, limit, used), (_, _, reserved)), (_, _, expected)) in
        used.into_iter().zip(reserved).zip(expected)
    {
        let Some(limit) = limit else { continue };
        if used >= limit {
            return Err(QuotaExhaustedError { quota, limit });
        }
        let all = used.saturating_add(reserved).saturating_add(expected);
        fits &= all <= limit || reserved == 0;
    }
    Ok(fits)
}

/// The limit of a quota and the tenant's usage of it.
struct PageQuotaLimitAndUsage {
    quota: &'static str,
    limit: u64,
    used: u64,
    /// The mean usage of a page; `None` before the first page of the day has ended.
    usage_per_page: Option<u64>,
}

/// How many pages may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AllowedPagesOrWait {
    Pages(u64),
    /// None until a reserved page ends.
    AfterRelease,
}

impl PageQuotaLimitAndUsage {
    fn is_exhausted(&self) -> bool {
        self.used >= self.limit
    }

    /// Returns how many pages fit beside `reserved` reserved pages.
    fn pages_that_fit(&self, reserved: u64) -> AllowedPagesOrWait {
        let left = self.limit.saturating_sub(self.used);
        let fit = self.usage_per_page.map_or(1, |each| left / each.max(1));
        match fit.saturating_sub(reserved) {
            // At least one page has to run to learn the usage of a page.
            0 if reserved == 0 => AllowedPagesOrWait::Pages(1),
            0 => AllowedPagesOrWait::AfterRelease,
            pages => AllowedPagesOrWait::Pages(pages),
        }
    }
}

/// Returns the quotas of a tenant that apply to pages. `usage` is the usage of today.
fn list_page_quota_usage(
    limits: &Quotas,
    usage: &Usage,
    stored: u64,
    reserved: u64,
) -> Vec<PageQuotaLimitAndUsage> {
    let mean_per_page = |amount: u64| amount.checked_div(usage.pages);
    let quota_usage = |quota, limit: Option<u64>, used, of_a_page| {
        limit.map(|limit| PageQuotaLimitAndUsage {
            quota,
            limit,
            used,
            usage_per_page: of_a_page,
        })
    };
    [
        // The usage of a reserved page is known for this quota: one page.
        quota_usage(
            "pages_per_day",
            limits.pages_per_day,
            usage.pages + reserved,
            None,
        ),
        quota_usage(
            "inference_millis_per_day",
            limits.inference_millis_per_day,
            usage.inference_micros / 1000,
            mean_per_page(usage.inference_micros / 1000),
        ),
        quota_usage(
            "guest_millis_per_day",
            limits.guest_millis_per_day,
            usage.guest_micros / 1000,
            mean_per_page(usage.guest_micros / 1000),
        ),
        quota_usage(
            "stored_bytes",
            limits.stored_bytes,
            stored,
            Some(EXPECTED_BYTES_PER_PAGE),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns how many of `max_pages` pages may start now in addition to the reserved pages.
fn count_pages_within_quotas(
    quota_usages: &[PageQuotaLimitAndUsage],
    reserved: u64,
    max_pages: u64,
) -> Result<AllowedPagesOrWait, QuotaExhaustedError> {
    let mut granted = max_pages;
    for quota_usage in quota_usages {
        if quota_usage.is_exhausted() {
            return Err(QuotaExhaustedError {
                quota: quota_usage.quota,
                limit: quota_usage.limit,
            });
        }
        let allowance = match quota_usage.quota {
            "pages_per_day" => AllowedPagesOrWait::Pages(quota_usage.limit - quota_usage.used),
            _ => quota_usage.pages_that_fit(reserved),
        };
        match allowance {
            AllowedPagesOrWait::AfterRelease => return Ok(AllowedPagesOrWait::AfterRelease),
            AllowedPagesOrWait::Pages(pages) => granted = granted.min(pages),
        }
    }
    Ok(AllowedPagesOrWait::Pages(granted))
}

impl UsageRecorder {
    /// Returns the usage of a tenant on a day, and its stored bytes (0 if they are not limited).
    async fn load_usage_and_stored_bytes(
        &self,
        sources: &QuotaSources,
        tenant: &TenantId,
        limits: &Quotas,
        day: UsageDay,
    ) -> Result<(Usage, u64), StorageError> {
        let usage_store = sources.usage_store.as_ref();
        let stored = match limits.stored_bytes {
            Some(_) => usage_store.count_stored_bytes(tenant).await?,
            None => 0,
        };
        let usage = self.usage_on_day(usage_store, tenant, day).await?;
        Ok((usage, stored))
    }

    /// Returns the exhausted quota that prevents a tenant with these limits from starting a page, if there is one.
    pub async fn find_exhausted_page_quota(
        &self,
        tenant: &TenantId,
        limits: &Quotas,
    ) -> Result<Option<QuotaExhaustedError>, StorageError> {
        let Some(sources) = self.quota_sources.get().filter(|_| has_page_limits(limits)) else {
            return Ok(None);
        };
        let day = day_from_millis(unix_time_millis());
        let (usage, stored) = self
            .load_usage_and_stored_bytes(sources, tenant, limits, day)
            .await?;
        let reserved = self.reserved_usage(tenant).pages;
        let quota_usages = list_page_quota_usage(limits, &usage, stored, reserved);
        Ok(count_pages_within_quotas(&quota_usages, reserved, 1).err())
    }
}

fn has_page_limits(limits: &Quotas) -> bool {
    [
        limits.pages_per_day,
        limits.stored_bytes,
        limits.inference_millis_per_day,
        limits.guest_millis_per_day,
    ]
    .iter()
    .any(Option::is_some)
}

#[async_trait]
impl UsageQuotaLimiter for UsageRecorder {
    async fn reserve_pages(&self, tenant: &TenantId, max_pages: u32) -> Result<u32, QuotaReserveError> {
        let Some(sources) = self.quota_sources.get() else {
            return Ok(max_pages);
        };
        loop {
            let released = self.reservation_released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            let Some(record) = sources.tenants.find_tenant(tenant).await? else {
                return Ok(max_pages);
            };
            let limits = sources.host_quotas.effective_limits(&record);
            if !has_page_limits(&limits) {
                return Ok(max_pages);
            }
            let day = day_from_millis(unix_time_millis());
            let (_, stored) = self
                .load_usage_and_stored_bytes(sources, tenant, &limits, day)
                .await?;
            let decided = self.decide_and_reserve_usage(tenant, day, |usage, reserved| {
                let quota_usages = list_page_quota_usage(&limits, usage, stored, reserved.pages);
                let allowance =
                    count_pages_within_quotas(&quota_usages, reserved.pages, u64::from(max_pages))?;
                let pages = match allowance {
                    AllowedPagesOrWait::Pages(pages) => pages,
                    AllowedPagesOrWait::AfterRelease => 0,
                };
                let more = Usage {
                    pages,
                    ..Usage::default()
                };
                Ok::<_, QuotaExhaustedError>((more, allowance))
            });
            match decided.transpose()? {
                Some(AllowedPagesOrWait::Pages(pages)) => {
                    return Ok(u32::try_from(pages).unwrap_or(max_pages));
                }
                Some(AllowedPagesOrWait::AfterRelease) => released.await,
                // The cached usage was dropped in the meantime: load it again.
                None => {}
            }
        }
    }

    async fn reserve_llm_call(&self, tenant: &TenantId, expected: &Usage) -> Result<(), QuotaReserveError> {
        let Some(sources) = self.quota_sources.get() else {
            return Ok(());
        };
        loop {
            let released = self.reservation_released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            let Some(record) = sources.tenants.find_tenant(tenant).await? else {
                return Ok(());
            };
            let limits = sources.host_quotas.effective_limits(&record);
            let of_calls = pair_llm_limits_with_usage(&limits, &Usage::default());
            if of_calls.iter().all(|(_, limit, _)| limit.is_none()) {
                return Ok(());
            }
            let day = day_from_millis(unix_time_millis());
            self.usage_on_day(sources.usage_store.as_ref(), tenant, day)
                .await?;
            let decided = self.decide_and_reserve_usage(tenant, day, |used, reserved| {
                let fits = llm_call_fits(&limits, used, reserved, expected)?;
                let more = if fits { *expected } else { Usage::default() };
                Ok::<_, QuotaExhaustedError>((more, fits))
            });
            match decided.transpose()? {
                Some(true) => return Ok(()),
                Some(false) => released.await,
                // The cached usage was dropped in the meantime: load it again.
                None => {}
            }
        }
    }

    fn release_reservation(&self, tenant: &TenantId, reserved: &Usage) {
        self.release_reserved_usage(tenant, reserved);
    }
}

#[cfg(test)]
mod tests;
