//! A head start: who comes to a busy host and has nothing in work there goes ahead of the others, for a moment.
//!
//! Fair shares alone are not quick. With one other tenant at work three pages take twice as long as on an idle host, with nine
//! others ten times, though the others would hardly notice the tenth of a second that would have ended the wait. So a job that
//! someone waits for, of a tenant who has nothing else in work, begins with a head start: until the job ends, or the head start
//! does, the others' pages begin nothing in more than the lesser half of a stage's seats. What they have begun goes on.
//!
//! Seats stay free for the newcomer even while it has nothing to put there. Giving them away in the meantime would keep the
//! machine busier, but then each of its steps, and a page has six, would wait for a step of someone else that began a moment
//! before. That is why head starts are bounded by the time they last and not by the work they do: a tenant has so much, which
//! comes back four times as slowly as it is used, and all tenants together have twice that, which comes back as fast as it is
//! used. So one tenant is ahead a fifth of the time at most and all newcomers together half of it, however many they are, and
//! plain fairness decides the rest. Time spent in seats counts in a tenant's clock as ever: a newcomer who stays gives back
//! what it was ahead.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use weir_core::TenantId;

use crate::Host;

/// Seconds of a tenant's head start that come back in a second in which it is not ahead.
const TENANT_RETURN: f64 = 0.25;
/// The same of all tenants' together.
const HOST_RETURN: f64 = 1.0;
/// Head starts in a row of all tenants together.
const HOST_TIMES: f64 = 2.0;
/// What is shorter would only be a disturbance, in seconds.
const LEAST: f64 = 0.02;

/// Who is in work, and who of them is ahead.
pub(crate) struct HeadStarts {
    /// Seconds of a tenant's head start.
    longest: f64,
    state: Mutex<State>,
}

struct State {
    tenants: HashMap<TenantId, Standing>,
    /// Tenants who are ahead.
    ahead: usize,
    host: Allowance,
}

struct Standing {
    /// Jobs in work.
    jobs: usize,
    /// Those of them without a head start, or no longer in it.
    late: usize,
    allowance: Allowance,
}

impl Standing {
    const fn is_ahead(&self) -> bool {
        self.jobs > 0 && self.late == 0
    }
}

/// Seconds that are used up while someone is ahead, and come back while nobody is.
struct Allowance {
    seconds: f64,
    most: f64,
    back: f64,
    used: bool,
    at: Instant,
}

impl Allowance {
    const fn new(most: f64, back: f64, now: Instant) -> Self {
        Self {
            seconds: most,
            most,
            back,
            used: false,
            at: now,
        }
    }

    /// What is left.
    fn left(&mut self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let change = if self.used { -passed } else { self.back * passed };
        self.seconds = (self.seconds + change).min(self.most);
        self.at = now;
        self.seconds
    }

    /// Whether it is used from now on.
    fn using(&mut self, used: bool, now: Instant) {
        self.left(now);
        self.used = used;
    }
}

/// How a job begins.
pub(crate) struct Begun {
    /// How long it may be ahead; `None` if it is not, or no longer.
    ahead: Option<Duration>,
}

impl HeadStarts {
    /// Of at most `longest` each; without any if that is zero.
    pub(crate) fn new(longest: Duration) -> Self {
        let longest = longest.as_secs_f64();
        Self {
            longest,
            state: Mutex::new(State {
                tenants: HashMap::new(),
                ahead: 0,
                host: Allowance::new(HOST_TIMES * longest, HOST_RETURN, Instant::now()),
            }),
        }
    }

    /// A job begins; `urgent` says whether someone waits for it.
    pub(crate) fn begin(&self, tenant: &TenantId, urgent: bool, now: Instant) -> Begun {
        let mut state = self.state.lock();
        state.forget_idle(now);
        let of_host = state.host.left(now);
        let fresh = || Standing {
            jobs: 0,
            late: 0,
            allowance: Allowance::new(self.longest, TENANT_RETURN, now),
        };
        let standing = state.tenants.entry(tenant.clone()).or_insert_with(fresh);
        let left = standing.allowance.left(now).min(of_host);
        let ahead = urgent && standing.late == 0 && left >= LEAST;
        state.change(tenant, now, |standing| {
            standing.jobs += 1;
            standing.late += usize::from(!ahead);
        });
        Begun {
            ahead: ahead.then(|| Duration::from_secs_f64(left)),
        }
    }

    /// The head start of a job is over, before the job is.
    fn spend(&self, tenant: &TenantId, begun: &mut Begun, now: Instant) {
        if begun.ahead.take().is_some() {
            self.state
                .lock()
                .change(tenant, now, |standing| standing.late += 1);
        }
    }

    /// The job has ended.
    pub(crate) fn end(&self, tenant: &TenantId, begun: &mut Begun, now: Instant) {
        let late = usize::from(begun.ahead.take().is_none());
        self.state.lock().change(tenant, now, |standing| {
            standing.jobs = standing.jobs.saturating_sub(1);
            standing.late = standing.late.saturating_sub(late);
        });
    }

    /// Whether someone is ahead, for whom seats are kept free.
    pub(crate) fn any(&self) -> bool {
        self.state.lock().ahead > 0
    }

    /// Whether this tenant is.
    pub(crate) fn is_ahead(&self, tenant: &TenantId) -> bool {
        let state = self.state.lock();
        state.tenants.get(tenant).is_some_and(Standing::is_ahead)
    }
}

/// Does the `work` of a job, with the head start it may have.
pub(crate) async fn run<T>(host: &Host, tenant: &TenantId, urgent: bool, work: impl Future<Output = T>) -> T {
    let mut place = InWork {
        host,
        tenant,
        begun: host.head_starts.begin(tenant, urgent, Instant::now()),
    };
    let mut work = pin!(work);
    if let Some(ahead) = place.begun.ahead {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = sleep(ahead) => place.spend(),
        }
    }
    work.await
}

/// A job in work, however it ends.
struct InWork<'a> {
    host: &'a Host,
    tenant: &'a TenantId,
    begun: Begun,
}

impl InWork<'_> {
    fn spend(&mut self) {
        let starts = &self.host.head_starts;
        starts.spend(self.tenant, &mut self.begun, Instant::now());
        self.host.seats.admit();
    }
}

impl Drop for InWork<'_> {
    fn drop(&mut self) {
        let starts = &self.host.head_starts;
        starts.end(self.tenant, &mut self.begun, Instant::now());
        self.host.seats.admit();
    }
}

impl State {
    /// Changes how a tenant stands, and with it what is used up.
    fn change(&mut self, tenant: &TenantId, now: Instant, change: impl FnOnce(&mut Standing)) {
        let Some(standing) = self.tenants.get_mut(tenant) else {
            return;
        };
        let was_ahead = standing.is_ahead();
        change(standing);
        let is_ahead = standing.is_ahead();
        if was_ahead == is_ahead {
            return;
        }
        standing.allowance.using(is_ahead, now);
        match is_ahead {
            true => self.ahead += 1,
            false => self.ahead -= 1,
        }
        self.host.using(self.ahead > 0, now);
    }

    /// Tenants who have nothing in work and could have a whole head start are like those never seen.
    fn forget_idle(&mut self, now: Instant) {
        self.tenants.retain(|_, standing| {
            standing.jobs > 0 || standing.allowance.left(now) < standing.allowance.most
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    struct Host {
        starts: HeadStarts,
        now: Instant,
    }

    impl Host {
        fn new() -> Self {
            Self {
                starts: HeadStarts::new(ms(500)),
                now: Instant::now(),
            }
        }

        fn begin(&self, name: &str) -> Begun {
            self.starts.begin(&tenant(name), true, self.now)
        }

        fn end(&self, name: &str, mut begun: Begun) {
            self.starts.end(&tenant(name), &mut begun, self.now);
        }

        fn is_ahead(&self, name: &str) -> bool {
            self.starts.is_ahead(&tenant(name))
        }
    }

    #[test]
    fn a_newcomer_is_ahead_until_its_head_start_or_its_job_ends() {
        let mut host = Host::new();
        let mut flood = host.begin("flood");
        assert_eq!(flood.ahead, Some(ms(500)));
        host.now += ms(500);
        host.starts.spend(&tenant("flood"), &mut flood, host.now);
        assert!(!host.is_ahead("flood") && !host.starts.any());

        host.now += ms(60_000);
        let small = host.begin("small");
        assert!(host.is_ahead("small") && host.starts.any() && !host.is_ahead("flood"));
        host.now += ms(100);
        host.end("small", small);
        assert!(!host.starts.any());
        host.end("flood", flood);
    }

    #[test]
    fn who_has_work_past_its_head_start_gets_no_other() {
        let mut host = Host::new();
        let mut first = host.begin("flood");
        host.starts.spend(&tenant("flood"), &mut first, host.now + ms(1));
        host.now += ms(60_000);
        let second = host.begin("flood");
        assert!(second.ahead.is_none() && !host.is_ahead("flood"));
        host.end("flood", first);
        assert!(!host.is_ahead("flood"));
        host.end("flood", second);
        assert!(host.begin("flood").ahead.is_some());
    }

    #[test]
    fn a_flood_that_begins_uses_up_no_more_than_one_head_start() {
        let mut host = Host::new();
        let mut flood: Vec<_> = (0..50).map(|_| host.begin("flood")).collect();
        host.now += ms(500);
        for begun in &mut flood {
            host.starts.spend(&tenant("flood"), begun, host.now);
        }
        assert_eq!(host.begin("small").ahead, Some(ms(500)));
    }

    #[test]
    fn two_small_jobs_of_a_newcomer_are_ahead_together() {
        let mut host = Host::new();
        let (one, two) = (host.begin("small"), host.begin("small"));
        assert!(one.ahead.is_some() && two.ahead.is_some());
        host.now += ms(100);
        host.end("small", one);
        assert!(host.is_ahead("small"));
        host.end("small", two);
        assert!(!host.starts.any());
    }

    #[test]
    fn what_nobody_waits_for_has_no_head_start() {
        let host = Host::new();
        assert!(
            host.starts
                .begin(&tenant("bulk"), false, host.now)
                .ahead
                .is_none()
        );
        assert!(!host.starts.any());
        let off = HeadStarts::new(Duration::ZERO);
        assert!(off.begin(&tenant("a"), true, Instant::now()).ahead.is_none());
    }

    /// Jobs of `tenants` in turn, each ahead as long as it may for a minute: the seconds somebody was.
    fn ahead_in_a_minute(tenants: usize, pause: Duration) -> f64 {
        let mut host = Host::new();
        let end = host.now + ms(60_000);
        let mut sum = Duration::ZERO;
        for n in 0.. {
            if host.now >= end {
                break;
            }
            let name = format!("t{}", n % tenants);
            let begun = host.begin(&name);
            let ahead = begun.ahead.unwrap_or_default();
            sum += ahead;
            host.now += ahead;
            host.end(&name, begun);
            host.now += pause;
        }
        sum.as_secs_f64()
    }

    #[test]
    fn a_tenant_is_ahead_a_fifth_of_the_time_and_all_of_them_half_of_it() {
        let one = ahead_in_a_minute(1, ms(1));
        assert!((11.0..14.0).contains(&one), "{one}");
        let many = ahead_in_a_minute(100, ms(1));
        assert!((29.0..32.0).contains(&many), "{many}");
    }

    #[test]
    fn tenants_who_left_are_forgotten() {
        let mut host = Host::new();
        for n in 0..500 {
            let name = format!("t{n}");
            let begun = host.begin(&name);
            host.now += ms(10);
            host.end(&name, begun);
            host.now += ms(10_000);
        }
        assert!(host.starts.state.lock().tenants.len() <= 1);
    }
}
