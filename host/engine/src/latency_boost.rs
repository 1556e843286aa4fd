//! Latency boost: a tenant that becomes active on a busy host goes ahead of other tenants for a moment.
//!
//! The fair queue alone gives bad latency on a busy processor, since it decides about each stage alone. The newcomer is next at
//! every stage, yet its page shares the cores with the pages that other tenants have in all stages. So a job that is expected to be
//! short starts with a boost, unless its tenant has other active jobs or the bulk lane is requested for it. Until the job or the boost
//! ends, a page of another tenant starts only if, counting this page, fewer than half of the stage's worker slots are in use. Pages of
//! other tenants that already have slots continue.
//!
//! Slots stay reserved for the boosted tenant even while it has no page for them. Therefore boosts are limited by time and not by
//! work. Each tenant has a budget that refills by a fifth of a second in each second. All tenants together have a budget of twice
//! the size, which refills by half a second. So a tenant is boosted for at most a fifth of the time, and all tenants together
//! for at most half of it.
//!
//! Time in worker slots counts for the fair queue as always, so a tenant with further work repays its boost.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use weir_core::TenantId;

/// Seconds that a tenant's budget refills in each second.
const TENANT_REFILL_RATE: f64 = 0.2;
/// Seconds that the budget of all tenants together refills in each second.
const HOST_REFILL_RATE: f64 = 0.5;
/// The budget of all tenants together, as a multiple of one tenant's budget.
const HOST_BUDGET_FACTOR: f64 = 2.0;
/// The shortest useful boost.
const MIN_BOOST: Duration = Duration::from_millis(20);

/// The active tenants, and which of them are boosted.
pub(crate) struct LatencyBoosts {
    /// The longest boost of a tenant.
    max_boost: Duration,
    /// The number of boosted tenants. Worker slots read it for each permit, without a lock.
    boosted_tenants: AtomicUsize,
    state: Mutex<BoostState>,
}

struct BoostState {
    tenants: HashMap<TenantId, TenantBoost>,
    host_budget: BoostBudget,
}

struct TenantBoost {
    active_jobs: usize,
    /// The time at which the tenant's boost ends; `None` if it has none.
    boosted_until: Option<Instant>,
    budget: BoostBudget,
}

/// A budget of boost time, which refills at `refill_rate` up to `max`.
struct BoostBudget {
    max: Duration,
    refill_rate: f64,
    /// The time at which the budget is full again.
    full_at: Instant,
}

impl BoostBudget {
    fn remaining_time(&self, now: Instant) -> Duration {
        let missing = self.full_at.saturating_duration_since(now);
        self.max.saturating_sub(missing.mul_f64(self.refill_rate))
    }

    fn spend_time(&mut self, boost: Duration, now: Instant) {
        self.full_at = self.full_at.max(now) + boost.div_f64(self.refill_rate);
    }

    /// Gives back the rest of a boost that ended early.
    fn return_unused_time(&mut self, rest: Duration) {
        self.full_at -= rest.div_f64(self.refill_rate);
    }
}

impl LatencyBoosts {
    /// Creates the state for boosts of at most `max_boost`. With zero there are no boosts.
    pub(crate) fn new(max_boost: Duration) -> Self {
        Self {
            max_boost,
            boosted_tenants: AtomicUsize::new(0),
            state: Mutex::new(BoostState {
                tenants: HashMap::new(),
                host_budget: BoostBudget {
                    max: max_boost.mul_f64(HOST_BUDGET_FACTOR),
                    refill_rate: HOST_REFILL_RATE,
                    full_at: Instant::now(),
                },
            }),
        }
    }

    /// Registers a job as active. Returns the end of its boost; `None` if it has none. `allow_boost` is false for jobs that are expected
    /// to be long, and for those for which the bulk lane is requested.
    pub(crate) fn register_job_and_update_boost(
        &self,
        tenant: &TenantId,
        allow_boost: bool,
        now: Instant,
    ) -> Option<Instant> {
        let mut state = self.state.lock();
        let BoostState { tenants, host_budget } = &mut *state;
        // An idle tenant with a full budget does not differ from a new one.
        tenants.retain(|_, tenant| tenant.active_jobs > 0 || tenant.budget.full_at > now);
        let tenant = tenants.entry(tenant.clone()).or_insert_with(|| TenantBoost {
            active_jobs: 0,
            boosted_until: None,
            budget: BoostBudget {
                max: self.max_boost,
                refill_rate: TENANT_REFILL_RATE,
                full_at: now,
            },
        });
        tenant.active_jobs += 1;
        let boost = tenant
            .budget
            .remaining_time(now)
            .min(host_budget.remaining_time(now));
        if !allow_boost {
            self.end_boost(tenant, host_budget, now);
        } else if tenant.active_jobs == 1 && boost >= MIN_BOOST {
            tenant.budget.spend_time(boost, now);
            host_budget.spend_time(boost, now);
            tenant.boosted_until = Some(now + boost);
            self.boosted_tenants.fetch_add(1, Ordering::Relaxed);
        }
        tenant.boosted_until
    }

    /// Ends the boost of a tenant that has expired.
    fn end_boost_if_expired(&self, tenant: &TenantId, now: Instant) {
        let BoostState { tenants, host_budget } = &mut *self.state.lock();
        if let Some(tenant) = tenants.get_mut(tenant)
            && tenant.boosted_until.is_some_and(|end| end <= now)
        {
            self.end_boost(tenant, host_budget, now);
        }
    }

    /// Unregisters a job that has ended.
    pub(crate) fn unregister_job(&self, tenant: &TenantId, now: Instant) {
        let BoostState { tenants, host_budget } = &mut *self.state.lock();
        if let Some(tenant) = tenants.get_mut(tenant) {
            tenant.active_jobs = tenant.active_jobs.saturating_sub(1);
            if tenant.active_jobs == 0 {
                self.end_boost(tenant, host_budget, now);
            }
        }
    }

    fn end_boost(&self, tenant: &mut TenantBoost, host_budget: &mut BoostBudget, now: Instant) {
        if let Some(end) = tenant.boosted_until.take() {
            let rest = end.saturating_duration_since(now);
            tenant.budget.return_unused_time(rest);
            host_budget.return_unused_time(rest);
            self.boosted_tenants.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether slots are reserved for a tenant other than this one.
    pub(crate) fn reserves_slots_for_others(&self, tenant: &TenantId) -> bool {
        self.boosted_tenants.load(Ordering::Relaxed) > 0 && !self.is_boosted(tenant)
    }

    fn is_boosted(&self, tenant: &TenantId) -> bool {
        let state = self.state.lock();
        let tenant = state.tenants.get(tenant);
        tenant.is_some_and(|tenant| tenant.boosted_until.is_some())
    }
}

/// Runs the `work` of a job, with a boost if the budgets allow one. `on_boost_end` is called when slots may have become free.
pub(crate) async fn run_with_boost<T>(
    boosts: &LatencyBoosts,
    tenant: &TenantId,
    allow_boost: bool,
    on_boost_end: impl Fn(),
    work: impl Future<Output = T>,
) -> T {
    let boosted_until = boosts.register_job_and_update_boost(tenant, allow_boost, Instant::now());
    let job = RegisteredJobGuard {
        boosts,
        tenant,
        on_boost_end,
    };
    let mut work = pin!(work);
    if let Some(end) = boosted_until {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = sleep_until(end) => {
                boosts.end_boost_if_expired(tenant, Instant::now());
                (job.on_boost_end)();
            }
        }
    }
    work.await
}

/// Unregisters a job when it is dropped.
struct RegisteredJobGuard<'a, F: Fn()> {
    boosts: &'a LatencyBoosts,
    tenant: &'a TenantId,
    on_boost_end: F,
}

impl<F: Fn()> Drop for RegisteredJobGuard<'_, F> {
    fn drop(&mut self) {
        self.boosts.unregister_job(self.tenant, Instant::now());
        (self.on_boost_end)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn tenant_id(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    struct TestBoosts {
        boosts: LatencyBoosts,
        now: Instant,
    }

    impl TestBoosts {
        fn new() -> Self {
            Self {
                boosts: LatencyBoosts::new(millis(500)),
                now: Instant::now(),
            }
        }

        /// Starts a job that may get a boost and returns the length of its boost.
        fn start_job(&self, name: &str) -> Option<Duration> {
            let end = self
                .boosts
                .register_job_and_update_boost(&tenant_id(name), true, self.now);
            end.map(|end| end - self.now)
        }

        fn end_job(&self, name: &str) {
            self.boosts.unregister_job(&tenant_id(name), self.now);
        }

        /// Advances the time and ends the boost of a tenant if it has expired.
        fn advance(&mut self, time: Duration, name: &str) {
            self.now += time;
            self.boosts.end_boost_if_expired(&tenant_id(name), self.now);
        }

        fn is_boosted(&self, name: &str) -> bool {
            self.boosts.is_boosted(&tenant_id(name))
        }
    }

    #[test]
    fn boost_lasts_until_it_expires_or_the_job_ends() {
        let mut host = TestBoosts::new();
        assert_eq!(host.start_job("flood"), Some(millis(500)));
        host.advance(millis(499), "flood");
        assert!(host.is_boosted("flood"));
        host.advance(millis(1), "flood");
        assert!(!host.is_boosted("flood"));

        host.now += millis(60_000);
        assert_eq!(host.start_job("small"), Some(millis(500)));
        assert!(host.is_boosted("small") && !host.is_boosted("flood"));
        assert!(
            host.boosts.reserves_slots_for_others(&tenant_id("flood"))
                && !host.boosts.reserves_slots_for_others(&tenant_id("small"))
        );
        host.now += millis(100);
        host.end_job("small");
        assert!(!host.is_boosted("small") && !host.boosts.reserves_slots_for_others(&tenant_id("flood")));
        // The unused four fifths were given back. A fifth of the last 200 milliseconds has refilled.
        host.now += millis(100);
        assert_eq!(host.start_job("small"), Some(millis(440)));
    }

    #[test]
    fn tenant_with_expired_boost_gets_no_other_until_idle() {
        let mut host = TestBoosts::new();
        host.start_job("flood");
        host.advance(millis(500), "flood");
        host.now += millis(60_000);
        assert_eq!(host.start_job("flood"), None);
        host.end_job("flood");
        assert!(!host.is_boosted("flood"));
        host.end_job("flood");
        assert!(host.start_job("flood").is_some());
    }

    #[test]
    fn many_jobs_of_one_tenant_share_one_boost() {
        let mut host = TestBoosts::new();
        for _ in 0..50 {
            assert_eq!(host.start_job("flood"), Some(millis(500)));
        }
        host.advance(millis(500), "flood");
        assert!(!host.is_boosted("flood"));
        assert_eq!(host.start_job("small"), Some(millis(500)));
    }

    #[test]
    fn two_small_jobs_of_a_new_tenant_are_boosted_together() {
        let mut host = TestBoosts::new();
        host.start_job("small");
        host.start_job("small");
        host.now += millis(100);
        host.end_job("small");
        assert!(host.is_boosted("small"));
        host.end_job("small");
        assert!(!host.is_boosted("small"));
    }

    #[test]
    fn bulk_job_gets_no_boost_and_ends_the_one_of_its_tenant() {
        let host = TestBoosts::new();
        assert_eq!(
            host.boosts
                .register_job_and_update_boost(&tenant_id("bulk"), false, host.now),
            None
        );
        host.start_job("mixed");
        host.boosts
            .register_job_and_update_boost(&tenant_id("mixed"), false, host.now);
        assert!(!host.is_boosted("mixed") && !host.boosts.reserves_slots_for_others(&tenant_id("bulk")));
        let off = LatencyBoosts::new(Duration::ZERO);
        assert_eq!(
            off.register_job_and_update_boost(&tenant_id("a"), true, Instant::now()),
            None
        );
    }

    /// Runs jobs of `tenants` in turn for a minute, each boosted as long as possible. Returns the boosted seconds.
    fn boosted_seconds_per_minute(tenants: usize, pause: Duration) -> f64 {
        let mut host = TestBoosts::new();
        let end = host.now + millis(60_000);
        let mut sum = Duration::ZERO;
        for n in 0.. {
            if host.now >= end {
                break;
            }
            let name = format!("t{}", n % tenants);
            let boost = host.start_job(&name).unwrap_or_default();
            sum += boost;
            host.now += boost;
            host.end_job(&name);
            host.now += pause;
        }
        sum.as_secs_f64()
    }

    #[test]
    fn tenant_is_boosted_a_fifth_and_all_tenants_half_of_the_time() {
        let one = boosted_seconds_per_minute(1, millis(1));
        assert!((11.0..14.0).contains(&one), "{one}");
        let many = boosted_seconds_per_minute(100, millis(1));
        assert!((29.0..32.0).contains(&many), "{many}");
    }

    #[test]
    fn idle_tenants_are_removed() {
        let mut host = TestBoosts::new();
        for n in 0..500 {
            let name = format!("t{n}");
            host.start_job(&name);
            host.now += millis(10);
            host.end_job(&name);
            host.now += millis(10_000);
        }
        assert!(host.boosts.state.lock().tenants.len() <= 1);
    }
}
