//! Checks the quotas of a tenant before its work is accepted.
//!
//! A quota of the tenant takes precedence over the host's quota, which is a setting. In both, 0 means no limit: a tenant that may
//! do nothing is suspended instead. An exceeded quota becomes available again by itself (request rate, daily amounts) or after
//! the tenant acts (jobs, stored bytes). The refusal names the quota and says when a retry can succeed. A submission that exceeds
//! `upload_bytes` or `stored_bytes` on its own gets status 413, because neither waiting nor deleting helps.
//!
//! The daily quotas are checked when a job is submitted, when it starts, and before each of its pages
//! (`usage/quota_reservations.rs`). A job that exhausts a daily quota returns to the queue with the name of the quota as the reason.
//! It keeps its finished pages and continues when the quota allows more.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, RateLimiter};
use parking_lot::Mutex;
use tokio::time::Instant;
use weir_core::clock::unix_time_millis;
use weir_core::settings::Settings;
use weir_core::shared_limits::RateLimit;
use weir_core::tenancy::{Quotas, Tenant};
use weir_core::usage::{QuotaExhaustedError, Usage, UsageMeter as _, UsageStore};
use weir_core::{StorageError, TenantId};

use crate::shared_limits::{ShareApplies, SharedLimits};
use crate::tenant_metric_labels::TenantMetricLabels;
use crate::usage::{HostQuotas, UsageRecorder};

/// `Retry-After` where another job of the tenant has to start or end first.
const SHORT_RETRY_AFTER: Duration = Duration::from_secs(5);
/// `Retry-After` for stored bytes, which only decrease when the tenant deletes something.
const STORED_BYTES_RETRY_AFTER: Duration = Duration::from_secs(3600);
const STORED_BYTES_QUOTA: &str = "stored_bytes";
/// The maximum number of tenants whose request rate is tracked.
const MAX_TRACKED_TENANTS: usize = 10_000;
/// A tenant can send the requests of this many seconds at once.
const BURST_SECONDS: u32 = 2;
/// A rate limiter without requests for this long can be dropped: a burst covers two seconds, so it is full again by then.
const RATE_LIMITER_IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// A quota of a tenant that a request exceeds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct QuotaExceeded {
    /// The name of the quota.
    pub quota: &'static str,
    /// What was exceeded, and what the tenant can do.
    pub detail: String,
    /// When a retry can succeed; `None` if the request alone exceeds the quota, so that waiting does not help.
    pub retry_after: Option<Duration>,
}

/// Why a quota check failed.
#[derive(Debug, thiserror::Error)]
pub enum QuotaCheckError {
    /// A quota is exceeded.
    #[error(transparent)]
    Exceeded(#[from] QuotaExceeded),
    /// The usage of the tenant cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Checks quotas and limits the request rate of each tenant. It counts each refusal.
pub struct QuotaLimiter {
    host_quotas: HostQuotas,
    shared_limits: Arc<SharedLimits>,
    usage_recorder: Arc<UsageRecorder>,
    usage_store: Arc<dyn UsageStore>,
    tenant_labels: Arc<TenantMetricLabels>,
    rate_limiters: Mutex<HashMap<TenantId, TenantRateLimiter>>,
}

struct TenantRateLimiter {
    requests_per_second: NonZeroU32,
    limiter: DefaultDirectRateLimiter,
    last_request: Instant,
}

impl QuotaLimiter {
    /// Creates a limiter with the quotas of the settings.
    pub(crate) fn new(
        settings: &Settings,
        shared_limits: Arc<SharedLimits>,
        usage_recorder: Arc<UsageRecorder>,
        usage_store: Arc<dyn UsageStore>,
        tenant_labels: Arc<TenantMetricLabels>,
    ) -> Self {
        Self {
            host_quotas: HostQuotas::new(settings),
            shared_limits,
            usage_recorder,
            usage_store,
            tenant_labels,
            rate_limiters: Mutex::default(),
        }
    }

    /// Returns the effective limits of a tenant; `None` means no limit.
    pub fn effective_limits(&self, tenant: &Tenant) -> Quotas {
        self.host_quotas.effective_limits(tenant)
    }

    /// Counts a request of a tenant, and refuses it if the tenant exceeds its request rate.
    pub async fn check_and_count_request(&self, tenant: &Tenant) -> Result<(), QuotaExceeded> {
        if let Some(limit) = self.effective_limits(tenant).requests_per_second
            && let Some(wait) = self.wait_time_if_rate_exceeded(&tenant.id, limit).await
        {
            let detail = format!("this tenant may send at most {limit} requests per second");
            return Err(self.count_and_build_refusal(&tenant.id, "requests_per_second", detail, Some(wait)));
        }
        let one_request = Usage {
            requests: 1,
            ..Usage::default()
        };
        self.usage_recorder.record_usage(&tenant.id, &one_request);
        Ok(())
    }

    /// Returns how long the tenant has to wait if it sends more than `limit` requests per second to all nodes, else `None`.
    async fn wait_time_if_rate_exceeded(&self, tenant: &TenantId, limit: u64) -> Option<Duration> {
        let per_second = u32::try_from(limit).unwrap_or(u32::MAX).max(1);
        let rate = RateLimit {
            per_second,
            burst: per_second.saturating_mul(BURST_SECONDS),
        };
        match self.shared_limits.count_request(tenant.as_str(), rate).await {
            Ok(wait) => wait,
            Err(ShareApplies) => {
                self.wait_time_if_share_exceeded(tenant, self.shared_limits.share_of(per_second))
            }
        }
    }

    /// Like [`Self::wait_time_if_rate_exceeded`], for the requests to this node.
    fn wait_time_if_share_exceeded(&self, tenant: &TenantId, per_second: u32) -> Option<Duration> {
        let per_second = NonZeroU32::new(per_second)?;
        let now = Instant::now();
        let mut rates = self.rate_limiters.lock();
        if rates.len() >= MAX_TRACKED_TENANTS && !rates.contains_key(tenant) {
            rates.retain(|_, rate| now.duration_since(rate.last_request) < RATE_LIMITER_IDLE_TIMEOUT);
            if rates.len() >= MAX_TRACKED_TENANTS {
                // Too many tenants are active at once to track them all: accept the request instead of refusing everyone.
                return None;
            }
        }
        let new_limiter =
            || TenantRateLimiter {
                requests_per_second: per_second,
                limiter: RateLimiter::direct(governor::Quota::per_second(per_second).allow_burst(
                    per_second.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_SECONDS - 1)),
                )),
                last_request: now,
            };
        let rate = rates.entry(tenant.clone()).or_insert_with(new_limiter);
        if rate.requests_per_second != per_second {
            *rate = new_limiter();
        }
        rate.last_request = now;
        let not_until = rate.limiter.check().err()?;
        Some(not_until.wait_time_from(DefaultClock::default().now()))
    }

    /// Returns the exhausted quota that prevents a tenant from starting a page, if there is one.
    pub async fn find_exhausted_page_quota(
        &self,
        tenant: &Tenant,
    ) -> Result<Option<QuotaExhaustedError>, StorageError> {
        self.usage_recorder
            .find_exhausted_page_quota(&tenant.id, &self.effective_limits(tenant))
            .await
    }

    /// Refuses a request that needs models or components if a daily quota for them is exhausted.
    pub async fn check_daily_quotas(&self, tenant: &Tenant) -> Result<(), QuotaCheckError> {
        let Some(QuotaExhaustedError { quota: name, limit }) = self.find_exhausted_page_quota(tenant).await?
        else {
            return Ok(());
        };
        let what = match name {
            "pages_per_day" => "pages",
            "inference_millis_per_day" => "milliseconds of model time",
            "guest_millis_per_day" => "milliseconds of component time",
            // `stored_bytes` is checked where the files arrive, by their size; documents that are already stored add nothing.
            _ => return Ok(()),
        };
        let detail = format!("the daily quota of {limit} {what} is exhausted until midnight UTC");
        let wait = time_until_utc_midnight(unix_time_millis());
        Err(self
            .count_and_build_refusal(&tenant.id, name, detail, Some(wait))
            .into())
    }

    /// Refuses an upload of `upload` bytes if it, the stored bytes and the bytes of the tenant's `other_uploads` together exceed the
    /// quota of stored bytes. The refusal says what the tenant can do.
    pub async fn check_stored_bytes(
        &self,
        tenant: &Tenant,
        upload: u64,
        other_uploads: u64,
    ) -> Result<(), QuotaCheckError> {
        let Some(limit) = self.effective_limits(tenant).stored_bytes else {
            return Ok(());
        };
        if upload > limit {
            let detail = format!(
                "{upload} bytes exceed the {limit} bytes that this tenant may store: send less, or have the quota {STORED_BYTES_QUOTA} raised"
            );
            return Err(self
                .count_and_build_refusal(&tenant.id, STORED_BYTES_QUOTA, detail, None)
                .into());
        }
        let stored = self.usage_store.count_stored_bytes(&tenant.id).await?;
        if stored.saturating_add(other_uploads).saturating_add(upload) <= limit {
            return Ok(());
        }
        let (arriving, remedy) = match (stored, other_uploads) {
            (_, 0) => (
                String::new(),
                "delete documents or cancel queued jobs that it does not need",
            ),
            (0, arriving) => (
                format!(" and uploads {arriving} more"),
                "wait until its other uploads have ended",
            ),
            (_, arriving) => (
                format!(" and uploads {arriving} more"),
                "delete documents or cancel queued jobs that it does not need",
            ),
        };
        let detail = format!(
            "this tenant stores {stored} bytes{arriving}, and may store {limit}: {remedy}, or have the quota {STORED_BYTES_QUOTA} raised"
        );
        Err(self
            .count_and_build_refusal(
                &tenant.id,
                STORED_BYTES_QUOTA,
                detail,
                Some(STORED_BYTES_RETRY_AFTER),
            )
            .into())
    }

    /// Counts and returns the refusal of a job of a tenant whose queue is full.
    pub(crate) fn refuse_job_for_full_queue(&self, tenant: &Tenant) -> QuotaExceeded {
        let limit = self.effective_limits(tenant).queued_jobs.unwrap_or_default();
        let detail = format!("{limit} jobs of this tenant are already queued");
        self.count_and_build_refusal(&tenant.id, "queued_jobs", detail, Some(SHORT_RETRY_AFTER))
    }

    /// Counts and returns the refusal of a submission of more than `limit` bytes, which the tenant's quota allows.
    pub fn refuse_oversized_upload(&self, tenant: &TenantId, limit: u64) -> QuotaExceeded {
        let detail = format!("a submission may have at most {limit} bytes");
        self.count_and_build_refusal(tenant, "upload_bytes", detail, None)
    }

    fn count_and_build_refusal(
        &self,
        tenant: &TenantId,
        quota: &'static str,
        detail: String,
        retry_after: Option<Duration>,
    ) -> QuotaExceeded {
        self.tenant_labels.count_quota_refusal(tenant, quota);
        let one_refusal = Usage {
            refusals: 1,
            ..Usage::default()
        };
        self.usage_recorder.record_usage(tenant, &one_refusal);
        QuotaExceeded {
            quota,
            detail,
            retry_after,
        }
    }
}

fn time_until_utc_midnight(now_millis: u64) -> Duration {
    const DAY: u64 = 86_400_000;
    Duration::from_millis(DAY - now_millis % DAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeStore, new_test_claims};
    use weir_core::retention::RetentionPeriods;
    use weir_core::tenancy::{OverridableNumbers as _, TenantState};

    fn limiter_with_settings(settings: &Settings) -> QuotaLimiter {
        QuotaLimiter::new(
            settings,
            SharedLimits::new(None, new_test_claims(Arc::default())),
            UsageRecorder::new(),
            Arc::new(FakeStore::default()),
            Arc::new(TenantMetricLabels::new(0)),
        )
    }

    fn tenant_with_quotas(quotas: Quotas) -> Tenant {
        Tenant {
            id: TenantId::default_tenant(),
            state: TenantState::Active,
            weight: 1.0,
            quotas,
            retention: RetentionPeriods::default(),
            created_millis: 0,
        }
    }

    #[test]
    fn each_setting_sets_the_quota_of_its_name() {
        for (value, name) in (1 << 20..).zip(Quotas::NAMES) {
            let mut settings = Settings::default();
            for other in Quotas::NAMES {
                settings.set(&format!("default_quota.{other}"), "0").unwrap();
            }
            settings
                .set(&format!("default_quota.{name}"), &value.to_string())
                .unwrap();
            let mut limits =
                limiter_with_settings(&settings).effective_limits(&tenant_with_quotas(Quotas::default()));
            for other in Quotas::NAMES {
                let expected = (other == name).then_some(value);
                assert_eq!(
                    *limits.by_name_mut(other).unwrap(),
                    expected,
                    "{other} after setting {name}"
                );
            }
        }
    }

    #[test]
    fn zero_means_no_limit_even_if_the_host_has_one() {
        let limiter = limiter_with_settings(&Settings::default());
        let own = Quotas {
            concurrent_jobs: Some(0),
            pages_per_day: Some(7),
            ..Quotas::default()
        };
        let limits = limiter.effective_limits(&tenant_with_quotas(own));
        assert_eq!((limits.concurrent_jobs, limits.pages_per_day), (None, Some(7)));
        assert_eq!(limits.queued_jobs, Some(1000));
    }

    #[test]
    fn bursts_of_twice_the_rate_pass() {
        let limiter = limiter_with_settings(&Settings::default());
        let passed = (0..100)
            .take_while(|_| {
                limiter
                    .wait_time_if_share_exceeded(&TenantId::default_tenant(), 10)
                    .is_none()
            })
            .count();
        assert!((20..=23).contains(&passed), "{passed}");
        let wait = limiter
            .wait_time_if_share_exceeded(&TenantId::default_tenant(), 10)
            .unwrap();
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
        assert!(
            limiter
                .wait_time_if_share_exceeded(&"other".parse().unwrap(), 10)
                .is_none()
        );
        // A changed quota takes effect at once.
        assert!(
            limiter
                .wait_time_if_share_exceeded(&TenantId::default_tenant(), 1000)
                .is_none()
        );
    }

    #[test]
    fn number_of_tracked_tenants_is_bounded() {
        let limiter = limiter_with_settings(&Settings::default());
        for n in 0..MAX_TRACKED_TENANTS + 100 {
            assert!(
                limiter
                    .wait_time_if_share_exceeded(&format!("t{n}").parse().unwrap(), 10)
                    .is_none()
            );
        }
        assert_eq!(limiter.rate_limiters.lock().len(), MAX_TRACKED_TENANTS);
    }

    #[test]
    fn daily_quota_is_renewed_at_midnight() {
        assert_eq!(time_until_utc_midnight(86_400_000), Duration::from_secs(86_400));
        assert_eq!(
            time_until_utc_midnight(2 * 86_400_000 - 1500),
            Duration::from_millis(1500)
        );
    }
}
