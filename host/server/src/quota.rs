//! What a tenant may use, checked before work is taken.
//!
//! A quota of the tenant stands over the host's, which is a setting; 0 is no limit in both places, since a tenant that may do
//! nothing is a suspended one. What is used up comes back by itself (requests, the amounts of a day) or when the tenant does
//! something about it (jobs, stored bytes): the refusal names the quota and says when it may be worth asking again. A
//! submission that is larger than it may ever be, by `upload_bytes` or `stored_bytes`, is another matter: it is answered with 413,
//! since neither waiting nor deleting helps.
//!
//! The quotas of a day are checked when a job is submitted, when it begins, and before each of its pages (`usage/reserve.rs`): a
//! job that has used one up is held in the queue by its name, keeps what is done, and goes on when the quota allows more.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, RateLimiter};
use parking_lot::Mutex;
use tokio::time::Instant;
use weir_core::settings::Settings;
use weir_core::tenancy::{Quotas, Tenant};
use weir_core::usage::{Meter as _, QuotaExhausted, Usage};
use weir_core::{StorageError, TenantId};

use crate::app::{App, now_millis};
use crate::problem::Problem;
use crate::usage::HostQuotas;

/// When to ask again where something of the tenant's own must end or go first.
const SOON: Duration = Duration::from_secs(5);
/// The same for stored bytes, which do not go by themselves.
const WHEN_DELETED: Duration = Duration::from_secs(3600);
const STORED_BYTES: &str = "stored_bytes";
/// Tenants whose rate of requests is kept.
const RATES: usize = 10_000;
/// After so long without a request a rate has no memory: bursts are of two seconds.
const FORGOTTEN: Duration = Duration::from_secs(3);

/// The host's quotas and the rates of requests.
pub(crate) struct QuotaDesk {
    host: HostQuotas,
    rates: Mutex<HashMap<TenantId, Rate>>,
}

struct Rate {
    per_second: NonZeroU32,
    limiter: DefaultDirectRateLimiter,
    last: Instant,
}

impl QuotaDesk {
    /// With the settings' quotas.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            host: HostQuotas::new(settings),
            rates: Mutex::default(),
        }
    }

    /// The limits that count for a tenant; `None` is none.
    pub(crate) fn limits(&self, tenant: &Tenant) -> Quotas {
        self.host.limits(tenant)
    }

    /// Counts a request of a tenant, and refuses it if there are too many.
    pub(crate) fn request(&self, app: &App, tenant: &Tenant) -> Result<(), Problem> {
        let limit = self.limits(tenant).requests_per_second;
        if let Some(wait) = limit.and_then(|limit| self.too_fast(&tenant.id, limit)) {
            let detail = format!(
                "this tenant may send {} requests a second",
                limit.unwrap_or_default()
            );
            return Err(refusal(app, &tenant.id, "requests_per_second", detail, wait));
        }
        let one = Usage {
            requests: 1,
            ..Usage::default()
        };
        app.metering.used(&tenant.id, &one);
        Ok(())
    }

    /// How long to wait, if the tenant sends more than `limit` requests a second.
    fn too_fast(&self, tenant: &TenantId, limit: u64) -> Option<Duration> {
        let per_second = NonZeroU32::new(u32::try_from(limit).unwrap_or(u32::MAX))?;
        let now = Instant::now();
        let mut rates = self.rates.lock();
        if rates.len() >= RATES && !rates.contains_key(tenant) {
            rates.retain(|_, rate| now.duration_since(rate.last) < FORGOTTEN);
            if rates.len() >= RATES {
                // More tenants at once than this keeps: better to let them pass than to stop them all.
                return None;
            }
        }
        let fresh = || Rate {
            per_second,
            limiter: RateLimiter::direct(
                governor::Quota::per_second(per_second)
                    .allow_burst(per_second.saturating_mul(NonZeroU32::MIN.saturating_add(1))),
            ),
            last: now,
        };
        let rate = rates.entry(tenant.clone()).or_insert_with(fresh);
        if rate.per_second != per_second {
            *rate = fresh();
        }
        rate.last = now;
        let refused = rate.limiter.check().err()?;
        Some(refused.wait_time_from(DefaultClock::default().now()))
    }

    /// The quota that keeps a tenant from beginning a page, if one does.
    pub(crate) async fn exhausted(
        &self,
        app: &App,
        tenant: &Tenant,
    ) -> Result<Option<QuotaExhausted>, StorageError> {
        app.metering.exhausted(&tenant.id, &self.limits(tenant)).await
    }

    /// Refuses what models or components have to work for, if the day's share of that is used up.
    pub(crate) async fn today(&self, app: &App, tenant: &Tenant) -> Result<(), Problem> {
        let Some(QuotaExhausted { quota: name, limit }) = self.exhausted(app, tenant).await? else {
            return Ok(());
        };
        let what = match name {
            "pages_per_day" => "pages",
            "inference_millis_per_day" => "milliseconds of models",
            "guest_millis_per_day" => "milliseconds of components",
            // Files that are sent are counted by their size where they arrive; what is here already adds none.
            _ => return Ok(()),
        };
        let detail = format!("the {limit} {what} of this day (UTC) are used up");
        Err(refusal(
            app,
            &tenant.id,
            name,
            detail,
            until_midnight(now_millis()),
        ))
    }

    /// Refuses to keep an upload of so many bytes beside what is stored and what the tenant's `other_uploads` will be, if that is more
    /// than the tenant may keep. The refusal names what the tenant can do about it.
    pub(crate) async fn storage(
        &self,
        app: &App,
        tenant: &Tenant,
        upload: u64,
        other_uploads: u64,
    ) -> Result<(), Problem> {
        let Some(limit) = self.limits(tenant).stored_bytes else {
            return Ok(());
        };
        if upload > limit {
            count(app, &tenant.id, STORED_BYTES);
            let detail = format!(
                "{upload} bytes are more than the {limit} that this tenant may keep: send less, or have its quota {STORED_BYTES} raised"
            );
            return Err(Problem::too_large(detail).of_quota(STORED_BYTES));
        }
        let stored = app.usage.stored_bytes(&tenant.id).await?;
        if stored.saturating_add(other_uploads).saturating_add(upload) <= limit {
            return Ok(());
        }
        let (arriving, remedy) = match (stored, other_uploads) {
            (_, 0) => (
                String::new(),
                "delete documents or cancel queued jobs that it does not need",
            ),
            (0, arriving) => (
                format!(" and {arriving} more arrive"),
                "wait until its other uploads have ended",
            ),
            (_, arriving) => (
                format!(" and {arriving} more arrive"),
                "delete documents or cancel queued jobs that it does not need",
            ),
        };
        let detail = format!(
            "this tenant keeps {stored} bytes{arriving}, and may keep {limit}: {remedy}, or have its quota {STORED_BYTES} raised"
        );
        Err(refusal(app, &tenant.id, STORED_BYTES, detail, WHEN_DELETED))
    }

    /// The refusal of a job where `limit` already wait.
    pub(crate) fn queue_is_full(&self, app: &App, tenant: &Tenant) -> Problem {
        let limit = self.limits(tenant).queued_jobs.unwrap_or_default();
        let detail = format!("{limit} jobs of this tenant wait already");
        refusal(app, &tenant.id, "queued_jobs", detail, SOON)
    }

    /// The refusal of a submission of more than `limit` bytes; `own` says whether that is the tenant's quota.
    pub(crate) fn too_large(app: &App, tenant: &TenantId, limit: u64, own: bool) -> Problem {
        let problem = Problem::too_large(format!("a submission has at most {limit} bytes here"));
        if own {
            count(app, tenant, "upload_bytes");
            problem.of_quota("upload_bytes")
        } else {
            problem
        }
    }
}

fn refusal(app: &App, tenant: &TenantId, name: &'static str, detail: String, wait: Duration) -> Problem {
    count(app, tenant, name);
    Problem::over_quota(name, detail, wait)
}

fn count(app: &App, tenant: &TenantId, name: &'static str) {
    app.metrics.refused(tenant, name);
    let one = Usage {
        refusals: 1,
        ..Usage::default()
    };
    app.metering.used(tenant, &one);
}

fn until_midnight(now_millis: u64) -> Duration {
    const DAY: u64 = 86_400_000;
    Duration::from_millis(DAY - now_millis % DAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::tenancy::TenantState;

    fn tenant(quotas: Quotas) -> Tenant {
        Tenant {
            id: TenantId::single(),
            state: TenantState::Active,
            weight: 1.0,
            quotas,
            created_millis: 0,
        }
    }

    #[test]
    fn every_setting_is_the_quota_of_its_name() {
        for (value, name) in (1 << 20..).zip(Quotas::NAMES) {
            let mut settings = Settings::default();
            for other in Quotas::NAMES {
                settings.set(&format!("quota.{other}"), "0").unwrap();
            }
            settings
                .set(&format!("quota.{name}"), &value.to_string())
                .unwrap();
            let mut limits = QuotaDesk::new(&settings).limits(&tenant(Quotas::default()));
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
    fn nought_is_no_limit_also_over_the_hosts() {
        let desk = QuotaDesk::new(&Settings::default());
        let own = Quotas {
            concurrent_jobs: Some(0),
            pages_per_day: Some(7),
            ..Quotas::default()
        };
        let limits = desk.limits(&tenant(own));
        assert_eq!((limits.concurrent_jobs, limits.pages_per_day), (None, Some(7)));
        assert_eq!(limits.queued_jobs, Some(1000));
    }

    #[test]
    fn bursts_of_twice_the_rate_pass() {
        let desk = QuotaDesk::new(&Settings::default());
        let passed = (0..100)
            .take_while(|_| desk.too_fast(&TenantId::single(), 10).is_none())
            .count();
        assert!((20..=23).contains(&passed), "{passed}");
        let wait = desk.too_fast(&TenantId::single(), 10).unwrap();
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
        assert!(desk.too_fast(&"other".parse().unwrap(), 10).is_none());
        // A quota that was changed counts at once.
        assert!(desk.too_fast(&TenantId::single(), 1000).is_none());
    }

    #[test]
    fn rates_of_no_more_tenants_are_kept_than_there_is_room_for() {
        let desk = QuotaDesk::new(&Settings::default());
        for n in 0..RATES + 100 {
            assert!(desk.too_fast(&format!("t{n}").parse().unwrap(), 10).is_none());
        }
        assert_eq!(desk.rates.lock().len(), RATES);
    }

    #[test]
    fn a_day_ends_at_midnight() {
        assert_eq!(until_midnight(86_400_000), Duration::from_secs(86_400));
        assert_eq!(until_midnight(2 * 86_400_000 - 1500), Duration::from_millis(1500));
    }
}
