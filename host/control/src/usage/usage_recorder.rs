//! Collects the usage of tenants in memory and writes it to the store every few seconds.
//!
//! Writing each request on its own would cost one fsync per request. A crash loses at most the usage of the last seconds, always in
//! favor of the tenant.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use weir_core::clock::unix_time_millis;
use weir_core::settings::Settings;
use weir_core::tenancy::{OverridableNumbers as _, Quotas, Tenant, TenantStore};
use weir_core::usage::{Usage, UsageDay, UsageMeter, UsageStore, day_from_millis};
use weir_core::{StorageError, TenantId};

use crate::tenant_metric_labels::TenantMetricLabels;

/// The interval between two writes.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);
/// Tenants in one write of usage: a store may lock each of them.
const MAX_TENANTS_PER_WRITE: usize = 500;
/// The maximum number of tenants whose stored usage is cached.
const MAX_CACHED_TENANTS: usize = 10_000;

/// The quotas of the host, which apply where a tenant has none of its own.
#[derive(Debug, Clone)]
pub struct HostQuotas(Quotas);

impl HostQuotas {
    /// Reads the quotas of the settings.
    pub const fn new(settings: &Settings) -> Self {
        Self(Quotas {
            concurrent_jobs: Some(settings.default_quota_concurrent_jobs),
            queued_jobs: Some(settings.default_quota_queued_jobs),
            requests_per_second: Some(settings.default_quota_requests_per_second),
            upload_bytes: Some(settings.default_quota_upload_bytes),
            pages_per_day: Some(settings.default_quota_pages_per_day),
            stored_bytes: Some(settings.default_quota_stored_bytes),
            inference_millis_per_day: Some(settings.default_quota_inference_millis_per_day),
            guest_millis_per_day: Some(settings.default_quota_guest_millis_per_day),
            llm_calls_per_day: Some(settings.default_quota_llm_calls_per_day),
            llm_tokens_per_day: Some(settings.default_quota_llm_tokens_per_day),
            llm_cost_micros_per_day: Some(settings.default_quota_llm_cost_micros_per_day),
            guest_memory_bytes: Some(settings.default_quota_guest_memory_bytes),
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

/// Where the recorder reads the quotas of tenants and their stored usage.
pub struct QuotaSources {
    /// The tenants with their quotas.
    pub tenants: Arc<dyn TenantStore>,
    /// The stored usage.
    pub usage_store: Arc<dyn UsageStore>,
    /// The quotas of the settings.
    pub host_quotas: HostQuotas,
    /// The labels of tenants in metrics.
    pub tenant_labels: Arc<TenantMetricLabels>,
}

/// Collects the usage of tenants, and reserves parts of their quotas. It is created before the parts of the host that report usage
/// to it. The server writes the usage to the store.
#[derive(Default)]
pub struct UsageRecorder {
    totals: Mutex<UnwrittenCachedAndReservedUsage>,
    /// Notified when a reservation is released.
    pub(crate) reservation_released: Notify,
    pub(crate) quota_sources: OnceLock<QuotaSources>,
    /// Held while the store is read or written, so that no amount is counted twice.
    store_lock: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct UnwrittenCachedAndReservedUsage {
    unwritten: HashMap<(UsageDay, TenantId), Usage>,
    /// The cached usage of one day that is in the store.
    stored_usage_cache: HashMap<TenantId, (UsageDay, Usage)>,
    /// The reserved usage.
    reserved: HashMap<TenantId, Usage>,
}

impl UsageRecorder {
    /// Creates an instance without usage.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Sets the sources of limits and usage. Before this call, nothing is limited.
    pub fn set_quota_sources(&self, sources: QuotaSources) {
        // A second server with the same instance has the same sources.
        let _ = self.quota_sources.set(sources);
    }

    /// Returns the usage of a tenant on a day so far.
    pub async fn usage_on_day(
        &self,
        usage_store: &dyn UsageStore,
        tenant: &TenantId,
        day: UsageDay,
    ) -> Result<Usage, StorageError> {
        if let Some(usage) = self.totals.lock().cached_usage_on_day(tenant, day) {
            return Ok(usage);
        }
        let _store_guard = self.store_lock.lock().await;
        let days = usage_store.list_daily_usage(tenant, day, day).await?;
        let written = days
            .into_iter()
            .find(|(of, _)| *of == day)
            .map(|(_, usage)| usage)
            .unwrap_or_default();
        let mut state = self.totals.lock();
        if state.stored_usage_cache.len() >= MAX_CACHED_TENANTS {
            state.stored_usage_cache.clear();
        }
        state.stored_usage_cache.insert(tenant.clone(), (day, written));
        Ok(state.cached_usage_on_day(tenant, day).unwrap_or_default())
    }

    /// Returns the reserved usage of a tenant.
    pub(crate) fn reserved_usage(&self, tenant: &TenantId) -> Usage {
        self.totals
            .lock()
            .reserved
            .get(tenant)
            .copied()
            .unwrap_or_default()
    }

    /// Reserves the usage that `decide` returns for the tenant's usage on the day and its reserved usage. Neither can change
    /// meanwhile. Returns `None` if the stored usage is not cached: [`Self::usage_on_day`] loads it.
    pub(crate) fn decide_and_reserve_usage<T, E>(
        &self,
        tenant: &TenantId,
        day: UsageDay,
        decide: impl FnOnce(&Usage, &Usage) -> Result<(Usage, T), E>,
    ) -> Option<Result<T, E>> {
        let mut state = self.totals.lock();
        let used = state.cached_usage_on_day(tenant, day)?;
        let reserved = state.reserved.get(tenant).copied().unwrap_or_default();
        let decided = decide(&used, &reserved).map(|(more, decision)| {
            if more != Usage::default() {
                state
                    .reserved
                    .entry(tenant.clone())
                    .or_default()
                    .add_amounts(&more);
            }
            decision
        });
        Some(decided)
    }

    /// Releases reserved usage.
    pub(crate) fn release_reserved_usage(&self, tenant: &TenantId, reserved: &Usage) {
        let mut state = self.totals.lock();
        if let Some(all) = state.reserved.get_mut(tenant) {
            *all = subtract_usage(all, reserved);
            if *all == Usage::default() {
                state.reserved.remove(tenant);
            }
        }
        drop(state);
        self.reservation_released.notify_waiters();
    }

    /// Returns the usage of a tenant by day, including the usage that is not written yet.
    pub async fn usage_by_day(
        &self,
        usage_store: &dyn UsageStore,
        tenant: &TenantId,
        from: UsageDay,
        to: UsageDay,
    ) -> Result<BTreeMap<UsageDay, Usage>, StorageError> {
        let _store_guard = self.store_lock.lock().await;
        let mut days: BTreeMap<UsageDay, Usage> = usage_store
            .list_daily_usage(tenant, from, to)
            .await?
            .into_iter()
            .collect();
        let state = self.totals.lock();
        let own = state
            .unwritten
            .iter()
            .filter(|((day, of), _)| of == tenant && (from..=to).contains(day));
        for ((day, _), usage) in own {
            days.entry(*day).or_default().add_amounts(usage);
        }
        Ok(days)
    }

    /// Writes the collected usage to the store. After an error, the rest stays in memory.
    pub async fn flush_usage(&self, usage_store: &dyn UsageStore) -> Result<(), StorageError> {
        let _store_guard = self.store_lock.lock().await;
        let mut days: BTreeMap<UsageDay, Vec<(TenantId, Usage)>> = BTreeMap::new();
        for ((day, tenant), usage) in &self.totals.lock().unwritten {
            days.entry(*day).or_default().push((tenant.clone(), *usage));
        }
        for (day, amounts) in &days {
            for group in amounts.chunks(MAX_TENANTS_PER_WRITE) {
                usage_store
                    .add_daily_usage_of_tenants(*day, group.to_vec())
                    .await?;
                let mut state = self.totals.lock();
                for (tenant, usage) in group {
                    state.mark_usage_written(*day, tenant.clone(), usage);
                }
            }
        }
        Ok(())
    }

    /// Drops the usage of a removed tenant.
    pub fn drop_tenant_usage(&self, tenant: &TenantId) {
        let mut state = self.totals.lock();
        state.unwritten.retain(|(_, of), _| of != tenant);
        state.stored_usage_cache.remove(tenant);
    }

    /// Writes the usage periodically, and a last time when `stop` is canceled.
    pub async fn flush_usage_periodically(&self, usage_store: &dyn UsageStore, stop: CancellationToken) {
        loop {
            let stopped = tokio::time::timeout(WRITE_INTERVAL, stop.cancelled())
                .await
                .is_ok();
            if let Err(error) = self.flush_usage(usage_store).await {
                tracing::warn!(%error, "cannot write usage: it stays in memory until the next attempt");
            }
            if stopped {
                return;
            }
        }
    }
}

impl UsageMeter for UsageRecorder {
    fn record_usage(&self, tenant: &TenantId, usage: &Usage) {
        let day = day_from_millis(unix_time_millis());
        if let Some(sources) = self.quota_sources.get().filter(|_| usage.llm_calls > 0) {
            sources.tenant_labels.count_llm_usage(tenant, usage);
        }
        let mut state = self.totals.lock();
        state
            .unwritten
            .entry((day, tenant.clone()))
            .or_default()
            .add_amounts(usage);
    }
}

impl UnwrittenCachedAndReservedUsage {
    fn cached_usage_on_day(&self, tenant: &TenantId, day: UsageDay) -> Option<Usage> {
        let (_, mut usage) = self
            .stored_usage_cache
            .get(tenant)
            .copied()
            .filter(|(of, _)| *of == day)?;
        if let Some(more) = self.unwritten.get(&(day, tenant.clone())) {
            usage.add_amounts(more);
        }
        Some(usage)
    }

    fn mark_usage_written(&mut self, day: UsageDay, tenant: TenantId, usage: &Usage) {
        if let Some((of, written)) = self.stored_usage_cache.get_mut(&tenant)
            && *of == day
        {
            written.add_amounts(usage);
        }
        let key = (day, tenant);
        let Some(unwritten_usage) = self.unwritten.get_mut(&key) else {
            return;
        };
        *unwritten_usage = subtract_usage(unwritten_usage, usage);
        if *unwritten_usage == Usage::default() {
            self.unwritten.remove(&key);
        }
    }
}

fn subtract_usage(all: &Usage, part: &Usage) -> Usage {
    Usage {
        requests: all.requests.saturating_sub(part.requests),
        jobs: all.jobs.saturating_sub(part.jobs),
        upload_bytes: all.upload_bytes.saturating_sub(part.upload_bytes),
        pages: all.pages.saturating_sub(part.pages),
        inference_micros: all.inference_micros.saturating_sub(part.inference_micros),
        guest_micros: all.guest_micros.saturating_sub(part.guest_micros),
        searches: all.searches.saturating_sub(part.searches),
        refusals: all.refusals.saturating_sub(part.refusals),
        llm_calls: all.llm_calls.saturating_sub(part.llm_calls),
        llm_prompt_tokens: all.llm_prompt_tokens.saturating_sub(part.llm_prompt_tokens),
        llm_answer_tokens: all.llm_answer_tokens.saturating_sub(part.llm_answer_tokens),
        llm_cost_micros: all.llm_cost_micros.saturating_sub(part.llm_cost_micros),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeStore;
    use weir_core::retention::RetentionPeriods;
    use weir_core::tenancy::{Quotas, Tenant, TenantState};

    async fn store_with_tenant(id: &TenantId) -> Arc<FakeStore> {
        let tenant = Tenant {
            id: id.clone(),
            state: TenantState::Active,
            weight: 1.0,
            quotas: Quotas::default(),
            retention: RetentionPeriods::default(),
            created_millis: 0,
        };
        let store = Arc::new(FakeStore::default());
        store.create_tenant(&tenant).await.unwrap();
        store
    }

    fn usage_of_pages(pages: u64) -> Usage {
        Usage {
            pages,
            ..Usage::default()
        }
    }

    #[tokio::test]
    async fn usage_is_neither_lost_nor_counted_twice() {
        let (tenant, today) = (TenantId::default_tenant(), day_from_millis(unix_time_millis()));
        let (store, usage_recorder) = (store_with_tenant(&tenant).await, UsageRecorder::new());
        store
            .add_daily_usage_of_tenants(today, vec![(tenant.clone(), usage_of_pages(5))])
            .await
            .unwrap();
        usage_recorder.record_usage(&tenant, &usage_of_pages(2));
        let pages_used_today = || async {
            usage_recorder
                .usage_on_day(&*store, &tenant, today)
                .await
                .unwrap()
                .pages
        };
        assert_eq!(pages_used_today().await, 7);
        store.set_failing(true);
        assert!(usage_recorder.flush_usage(&*store).await.is_err());
        assert_eq!(pages_used_today().await, 7);
        store.set_failing(false);
        usage_recorder.record_usage(&tenant, &usage_of_pages(1));
        usage_recorder.flush_usage(&*store).await.unwrap();
        usage_recorder.flush_usage(&*store).await.unwrap();
        assert_eq!(pages_used_today().await, 8);
        assert_eq!(
            usage_recorder
                .usage_by_day(&*store, &tenant, today, today)
                .await
                .unwrap()[&today]
                .pages,
            8
        );
        assert_eq!(
            store.list_daily_usage(&tenant, today, today).await.unwrap(),
            [(today, usage_of_pages(8))]
        );
        assert!(usage_recorder.totals.lock().unwritten.is_empty());
    }

    #[tokio::test]
    async fn collected_usage_is_written_at_shutdown() {
        let (tenant, today) = (TenantId::default_tenant(), day_from_millis(unix_time_millis()));
        let (store, usage_recorder) = (store_with_tenant(&tenant).await, UsageRecorder::new());
        usage_recorder.record_usage(&tenant, &usage_of_pages(3));
        let stop = CancellationToken::new();
        stop.cancel();
        usage_recorder.flush_usage_periodically(&*store, stop).await;
        assert_eq!(
            store.list_daily_usage(&tenant, today, today).await.unwrap(),
            [(today, usage_of_pages(3))]
        );
    }
}
