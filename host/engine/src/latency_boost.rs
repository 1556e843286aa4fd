//! Latency boost: a tenant that becomes active on a busy host goes ahead of other tenants for a moment.
//!
//! Fair shares alone give bad latency. With one other active tenant, three pages take twice as long as on an idle host, and with
//! nine others ten times as long. Yet the others would hardly notice the tenth of a second that these pages need. So a job that is
//! not in the bulk lane starts with a boost, unless its tenant has an active job without one. Until the job or the boost ends,
//! pages of other tenants start only while less than half of a stage's worker slots are in use. Their pages in slots continue.
//!
//! Slots stay reserved for the boosted tenant even while it has no page for them. If other pages used them, each of the six steps
//! of a boosted page would wait for a step of another tenant that has just started. Therefore boosts are limited by time and not
//! by work. Each tenant has a budget that refills a quarter as fast as it drains. All tenants together have a budget twice as
//! large, which refills as fast as it drains. So one tenant is boosted for at most a fifth of the time, and all tenants together
//! for at most half of it. Fair queueing decides otherwise.
//!
//! Time in worker slots counts for the fair queue as always, so a tenant with further work repays its boost.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use weir_core::TenantId;

use crate::EngineState;

/// Seconds that a tenant's budget refills in each second without a boost.
const TENANT_REFILL_RATE: f64 = 0.25;
/// Seconds that the budget of all tenants together refills in each second without a boost.
const HOST_REFILL_RATE: f64 = 1.0;
/// The budget of all tenants together, as a multiple of one tenant's budget.
const HOST_BUDGET_FACTOR: f64 = 2.0;
/// The shortest useful boost, in seconds.
const MIN_BOOST_SECONDS: f64 = 0.02;

/// The active tenants, and which of them are boosted.
pub(crate) struct LatencyBoosts {
    /// The longest boost of a tenant, in seconds.
    max_seconds: f64,
    state: Mutex<BoostState>,
}

struct BoostState {
    tenants: HashMap<TenantId, TenantBoost>,
    /// The number of boosted tenants.
    boosted_tenants: usize,
    host_budget: BoostBudget,
}

struct TenantBoost {
    /// Active jobs.
    active_jobs: usize,
    /// Active jobs that have no boost, or whose boost has expired.
    unboosted_jobs: usize,
    budget: BoostBudget,
}

impl TenantBoost {
    const fn is_boosted(&self) -> bool {
        self.active_jobs > 0 && self.unboosted_jobs == 0
    }
}

/// A budget in seconds that drains during a boost and refills otherwise.
struct BoostBudget {
    seconds: f64,
    max_seconds: f64,
    refill_rate: f64,
    is_draining: bool,
    at: Instant,
}

impl BoostBudget {
    const fn new(most: f64, back: f64, now: Instant) -> Self {
        Self {
            seconds: most,
            max_seconds: most,
            refill_rate: back,
            is_draining: false,
            at: now,
        }
    }

    /// Updates the budget and returns the remaining seconds.
    fn remaining_seconds(&mut self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let change = if self.is_draining {
            -passed
        } else {
            self.refill_rate * passed
        };
        self.seconds = (self.seconds + change).min(self.max_seconds);
        self.at = now;
        self.seconds
    }

    /// Sets whether the budget drains from now on.
    fn set_draining(&mut self, used: bool, now: Instant) {
        self.remaining_seconds(now);
        self.is_draining = used;
    }
}

/// The boost of one job.
pub(crate) struct JobBoost {
    /// The longest duration of the boost; `None` if there is none, or it has expired.
    duration: Option<Duration>,
}

impl LatencyBoosts {
    /// Creates the state for boosts of at most `longest`. With zero there are no boosts.
    pub(crate) fn new(longest: Duration) -> Self {
        let longest = longest.as_secs_f64();
        Self {
            max_seconds: longest,
            state: Mutex::new(BoostState {
                tenants: HashMap::new(),
                boosted_tenants: 0,
                host_budget: BoostBudget::new(HOST_BUDGET_FACTOR * longest, HOST_REFILL_RATE, Instant::now()),
            }),
        }
    }

    /// Registers a job as active, and boosts it if the budgets allow that. `urgent` is false for jobs of the bulk lane.
    pub(crate) fn start_job(&self, tenant: &TenantId, urgent: bool, now: Instant) -> JobBoost {
        let mut state = self.state.lock();
        state.remove_idle_tenants(now);
        let of_host = state.host_budget.remaining_seconds(now);
        let fresh = || TenantBoost {
            active_jobs: 0,
            unboosted_jobs: 0,
            budget: BoostBudget::new(self.max_seconds, TENANT_REFILL_RATE, now),
        };
        let standing = state.tenants.entry(tenant.clone()).or_insert_with(fresh);
        let left = standing.budget.remaining_seconds(now).min(of_host);
        let ahead = urgent && standing.unboosted_jobs == 0 && left >= MIN_BOOST_SECONDS;
        state.update_tenant(tenant, now, |standing| {
            standing.active_jobs += 1;
            standing.unboosted_jobs += usize::from(!ahead);
        });
        JobBoost {
            duration: ahead.then(|| Duration::from_secs_f64(left)),
        }
    }

    /// Ends the boost of a job that is still active.
    fn expire_boost(&self, tenant: &TenantId, begun: &mut JobBoost, now: Instant) {
        if begun.duration.take().is_some() {
            self.state
                .lock()
                .update_tenant(tenant, now, |standing| standing.unboosted_jobs += 1);
        }
    }

    /// Unregisters a job that has ended.
    pub(crate) fn end_job(&self, tenant: &TenantId, begun: &mut JobBoost, now: Instant) {
        let late = usize::from(begun.duration.take().is_none());
        self.state.lock().update_tenant(tenant, now, |standing| {
            standing.active_jobs = standing.active_jobs.saturating_sub(1);
            standing.unboosted_jobs = standing.unboosted_jobs.saturating_sub(late);
        });
    }

    /// Whether any tenant is boosted, for which slots are reserved.
    pub(crate) fn any_boosted(&self) -> bool {
        self.state.lock().boosted_tenants > 0
    }

    /// Whether this tenant is boosted.
    pub(crate) fn is_boosted(&self, tenant: &TenantId) -> bool {
        let state = self.state.lock();
        state.tenants.get(tenant).is_some_and(TenantBoost::is_boosted)
    }
}

/// Runs the `work` of a job, with a boost if the budgets allow one.
pub(crate) async fn run_with_boost<T>(
    host: &EngineState,
    tenant: &TenantId,
    urgent: bool,
    work: impl Future<Output = T>,
) -> T {
    let mut place = BoostedJobGuard {
        engine: host,
        tenant,
        boost: host.latency_boosts.start_job(tenant, urgent, Instant::now()),
    };
    let mut work = pin!(work);
    if let Some(ahead) = place.boost.duration {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = sleep(ahead) => place.expire_boost(),
        }
    }
    work.await
}

/// Unregisters a job when it is dropped.
struct BoostedJobGuard<'a> {
    engine: &'a EngineState,
    tenant: &'a TenantId,
    boost: JobBoost,
}

impl BoostedJobGuard<'_> {
    fn expire_boost(&mut self) {
        let starts = &self.engine.latency_boosts;
        starts.expire_boost(self.tenant, &mut self.boost, Instant::now());
        self.engine.workers.recheck_waiters();
    }
}

impl Drop for BoostedJobGuard<'_> {
    fn drop(&mut self) {
        let starts = &self.engine.latency_boosts;
        starts.end_job(self.tenant, &mut self.boost, Instant::now());
        self.engine.workers.recheck_waiters();
    }
}

impl BoostState {
    /// Changes the state of a tenant, and starts or stops draining the budgets accordingly.
    fn update_tenant(&mut self, tenant: &TenantId, now: Instant, change: impl FnOnce(&mut TenantBoost)) {
        let Some(standing) = self.tenants.get_mut(tenant) else {
            return;
        };
        let was_ahead = standing.is_boosted();
        change(standing);
        let is_ahead = standing.is_boosted();
        if was_ahead == is_ahead {
            return;
        }
        standing.budget.set_draining(is_ahead, now);
        match is_ahead {
            true => self.boosted_tenants += 1,
            false => self.boosted_tenants -= 1,
        }
        self.host_budget.set_draining(self.boosted_tenants > 0, now);
    }

    /// Removes tenants without active jobs whose budget is full, since they do not differ from new tenants.
    fn remove_idle_tenants(&mut self, now: Instant) {
        self.tenants.retain(|_, standing| {
            standing.active_jobs > 0 || standing.budget.remaining_seconds(now) < standing.budget.max_seconds
        });
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
        starts: LatencyBoosts,
        now: Instant,
    }

    impl TestBoosts {
        fn new() -> Self {
            Self {
                starts: LatencyBoosts::new(millis(500)),
                now: Instant::now(),
            }
        }

        fn start_job(&self, name: &str) -> JobBoost {
            self.starts.start_job(&tenant_id(name), true, self.now)
        }

        fn end_job(&self, name: &str, mut begun: JobBoost) {
            self.starts.end_job(&tenant_id(name), &mut begun, self.now);
        }

        fn is_boosted(&self, name: &str) -> bool {
            self.starts.is_boosted(&tenant_id(name))
        }
    }

    #[test]
    fn boost_lasts_until_it_expires_or_the_job_ends() {
        let mut host = TestBoosts::new();
        let mut flood = host.start_job("flood");
        assert_eq!(flood.duration, Some(millis(500)));
        host.now += millis(500);
        host.starts
            .expire_boost(&tenant_id("flood"), &mut flood, host.now);
        assert!(!host.is_boosted("flood") && !host.starts.any_boosted());

        host.now += millis(60_000);
        let small = host.start_job("small");
        assert!(host.is_boosted("small") && host.starts.any_boosted() && !host.is_boosted("flood"));
        host.now += millis(100);
        host.end_job("small", small);
        assert!(!host.starts.any_boosted());
        host.end_job("flood", flood);
    }

    #[test]
    fn tenant_with_expired_boost_gets_no_other_until_idle() {
        let mut host = TestBoosts::new();
        let mut first = host.start_job("flood");
        host.starts
            .expire_boost(&tenant_id("flood"), &mut first, host.now + millis(1));
        host.now += millis(60_000);
        let second = host.start_job("flood");
        assert!(second.duration.is_none() && !host.is_boosted("flood"));
        host.end_job("flood", first);
        assert!(!host.is_boosted("flood"));
        host.end_job("flood", second);
        assert!(host.start_job("flood").duration.is_some());
    }

    #[test]
    fn many_jobs_of_one_tenant_share_one_boost() {
        let mut host = TestBoosts::new();
        let mut flood: Vec<_> = (0..50).map(|_| host.start_job("flood")).collect();
        host.now += millis(500);
        for begun in &mut flood {
            host.starts.expire_boost(&tenant_id("flood"), begun, host.now);
        }
        assert_eq!(host.start_job("small").duration, Some(millis(500)));
    }

    #[test]
    fn two_small_jobs_of_a_new_tenant_are_boosted_together() {
        let mut host = TestBoosts::new();
        let (one, two) = (host.start_job("small"), host.start_job("small"));
        assert!(one.duration.is_some() && two.duration.is_some());
        host.now += millis(100);
        host.end_job("small", one);
        assert!(host.is_boosted("small"));
        host.end_job("small", two);
        assert!(!host.starts.any_boosted());
    }

    #[test]
    fn bulk_job_gets_no_boost() {
        let host = TestBoosts::new();
        assert!(
            host.starts
                .start_job(&tenant_id("bulk"), false, host.now)
                .duration
                .is_none()
        );
        assert!(!host.starts.any_boosted());
        let off = LatencyBoosts::new(Duration::ZERO);
        assert!(
            off.start_job(&tenant_id("a"), true, Instant::now())
                .duration
                .is_none()
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
            let begun = host.start_job(&name);
            let ahead = begun.duration.unwrap_or_default();
            sum += ahead;
            host.now += ahead;
            host.end_job(&name, begun);
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
            let begun = host.start_job(&name);
            host.now += millis(10);
            host.end_job(&name, begun);
            host.now += millis(10_000);
        }
        assert!(host.starts.state.lock().tenants.len() <= 1);
    }
}
