//! Whose job is next. It knows no clock and no thread: the time is an argument, so that its behaviour is tested as
//! arithmetic.
//!
//! Across tenants the queue is start-time fair (Goyal, Vin, Cheng 1996), by the estimated cost of jobs in pages: a tenant with
//! one job stands beside the head of a tenant with a thousand, not behind them, and nobody gains by having been idle. The
//! tenant is the upper level, and the lane the lower: were it the other way round, whoever calls all jobs interactive would
//! take eight ninths of the host from tenants who do not.
//!
//! Within a tenant the job with the highest response ratio is next, (waited + service) / service (Brinch Hansen 1971): a small
//! job overtakes a large one, and a large one that has waited long enough overtakes everything, so nothing starves. The lane
//! multiplies the ratio by its weight of eight to one, which says the same of urgency: a bulk job goes ahead of newly come
//! interactive ones once it has waited seven times as long as it takes.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_core::{JobId, Lane, TenantId};

/// How much more urgent an interactive job is than a bulk job of the same tenant.
const INTERACTIVE_WEIGHT: f64 = 8.0;

/// A job that waits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) job: JobId,
    pub(crate) tenant: TenantId,
    pub(crate) lane: Lane,
    /// Estimated pages, above 0.
    pub(crate) cost: f64,
    /// When it came.
    pub(crate) since: Duration,
}

impl Waiting {
    /// How much it is this job's turn among its tenant's, at the time `now`. A page counts as a second, and opening a job as
    /// one more; only the ratio of times matters, so a faster host changes little.
    fn urgency(&self, now: Duration) -> f64 {
        let service = 1.0 + self.cost;
        let waited = now.saturating_sub(self.since).as_secs_f64();
        let lane = match self.lane {
            Lane::Interactive => INTERACTIVE_WEIGHT,
            Lane::Bulk => 1.0,
        };
        lane * (waited + service) / service
    }
}

#[derive(Default)]
struct Flow {
    /// End tag in virtual time.
    end: f64,
    jobs: Vec<Waiting>,
    /// When it last had a turn.
    served: Duration,
}

impl Flow {
    fn start(&self, virtual_time: f64) -> f64 {
        self.end.max(virtual_time)
    }
}

/// The jobs of all tenants that wait.
#[derive(Default)]
pub(crate) struct JobQueue {
    virtual_time: f64,
    // Ordered, so that equal tags are decided the same way every time.
    flows: BTreeMap<TenantId, Flow>,
    waiting: usize,
}

impl JobQueue {
    /// Jobs waiting.
    pub(crate) const fn len(&self) -> usize {
        self.waiting
    }

    /// Jobs of a tenant that wait.
    pub(crate) fn of(&self, tenant: &TenantId) -> usize {
        self.flows.get(tenant).map_or(0, |flow| flow.jobs.len())
    }

    /// Puts a job in.
    pub(crate) fn push(&mut self, job: Waiting) {
        self.flows.entry(job.tenant.clone()).or_default().jobs.push(job);
        self.waiting += 1;
    }

    /// The tenant whose turn it is, of those that `may` run a job now.
    pub(crate) fn turn(&self, may: impl Fn(&TenantId) -> bool) -> Option<&TenantId> {
        let now = self.virtual_time;
        let waiting = self
            .flows
            .iter()
            .filter(|(tenant, flow)| !flow.jobs.is_empty() && may(tenant));
        waiting
            .min_by(|(_, a), (_, b)| a.start(now).total_cmp(&b.start(now)))
            .map(|(tenant, _)| tenant)
    }

    /// Takes the tenant's next job and counts it as a turn.
    pub(crate) fn pop(&mut self, tenant: &TenantId, weight: f64, now: Duration) -> Option<Waiting> {
        let flow = self.flows.get_mut(tenant)?;
        let urgencies = flow.jobs.iter().map(|job| job.urgency(now)).enumerate();
        // Of equals the one that came first; `max_by` would take the last.
        let (next, _) = urgencies.reduce(|best, one| if one.1 > best.1 { one } else { best })?;
        let job = flow.jobs.remove(next);
        let start = flow.start(self.virtual_time);
        self.virtual_time = start;
        flow.end = start + job.cost / sound(weight);
        flow.served = now;
        self.waiting -= 1;
        self.forget_idle();
        Some(job)
    }

    /// Corrects what a job was thought to cost, once it is known.
    pub(crate) fn settle(&mut self, tenant: &TenantId, weight: f64, thought: f64, was: f64) {
        if let Some(flow) = self.flows.get_mut(tenant) {
            flow.end += (was - thought) / sound(weight);
        }
    }

    /// Takes a job out; `None` if it does not wait.
    pub(crate) fn withdraw(&mut self, tenant: &TenantId, job: JobId) -> Option<Waiting> {
        let flow = self.flows.get_mut(tenant)?;
        let at = flow.jobs.iter().position(|waiting| waiting.job == job)?;
        let job = flow.jobs.remove(at);
        self.waiting -= 1;
        self.forget_idle();
        Some(job)
    }

    /// Takes out all jobs of a tenant.
    pub(crate) fn withdraw_all(&mut self, tenant: &TenantId) -> Vec<Waiting> {
        let jobs = self
            .flows
            .remove(tenant)
            .map(|flow| flow.jobs)
            .unwrap_or_default();
        self.waiting -= jobs.len();
        jobs
    }

    /// How many of the tenant's own jobs go before this one, counting itself, as things stand; `None` if it does not wait.
    /// Other tenants' jobs are theirs to know of.
    pub(crate) fn position(&self, tenant: &TenantId, job: JobId, now: Duration) -> Option<usize> {
        let jobs = &self.flows.get(tenant)?.jobs;
        let (at, own) = jobs.iter().enumerate().find(|(_, waiting)| waiting.job == job)?;
        let own = own.urgency(now);
        let ahead = jobs.iter().enumerate().filter(|(other, waiting)| {
            let urgency = waiting.urgency(now);
            urgency > own || (urgency >= own && *other < at)
        });
        Some(ahead.count() + 1)
    }

    /// The longest time that a tenant which `may` run a job has gone without a turn. A long backlog of its own does not
    /// count: it has its turns, only many of them.
    pub(crate) fn longest_without_turn(
        &self,
        now: Duration,
        may: impl Fn(&TenantId) -> bool,
    ) -> Option<Duration> {
        let waiting = self
            .flows
            .iter()
            .filter(|(tenant, flow)| !flow.jobs.is_empty() && may(tenant));
        let since = |flow: &Flow| {
            flow.jobs
                .iter()
                .map(|job| job.since)
                .min()
                .unwrap_or(now)
                .max(flow.served)
        };
        waiting.map(|(_, flow)| now.saturating_sub(since(flow))).max()
    }

    /// A flow whose end has passed has no memory worth keeping: it would start at the virtual time anyway.
    fn forget_idle(&mut self) {
        let (empty, now) = (self.waiting == 0, self.virtual_time);
        self.flows
            .retain(|_, flow| !flow.jobs.is_empty() || (!empty && flow.end > now));
    }
}

/// A weight that can be divided by.
fn sound(weight: f64) -> f64 {
    if weight.is_finite() && weight > 0.0 {
        weight
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    fn job(name: &str, lane: Lane, cost: f64, since: u64) -> Waiting {
        Waiting {
            job: JobId::new(),
            tenant: tenant(name),
            lane,
            cost,
            since: Duration::from_secs(since),
        }
    }

    fn next(queue: &mut JobQueue, weight: impl Fn(&TenantId) -> f64, now: u64) -> Option<Waiting> {
        let turn = queue.turn(|_| true)?.clone();
        queue.pop(&turn, weight(&turn), Duration::from_secs(now))
    }

    fn served(queue: &mut JobQueue, count: usize, now: u64) -> Vec<Waiting> {
        (0..count).map_while(|_| next(queue, |_| 1.0, now)).collect()
    }

    fn of(jobs: &[Waiting], name: &str) -> usize {
        jobs.iter().filter(|job| job.tenant == tenant(name)).count()
    }

    #[test]
    fn one_job_does_not_wait_behind_a_flood() {
        let mut queue = JobQueue::default();
        for _ in 0..200 {
            queue.push(job("flood", Lane::Bulk, 50.0, 0));
        }
        served(&mut queue, 6, 0);
        queue.push(job("late", Lane::Bulk, 3.0, 1));
        assert_eq!(of(&served(&mut queue, 2, 1), "late"), 1);
        assert_eq!((queue.len(), queue.of(&tenant("late"))), (193, 0));
    }

    #[test]
    fn turns_follow_weight_and_cost_whatever_the_lane() {
        for lane in [Lane::Interactive, Lane::Bulk] {
            let mut queue = JobQueue::default();
            for _ in 0..400 {
                queue.push(job("heavy", Lane::Bulk, 10.0, 0));
                queue.push(job("light", lane, 10.0, 0));
            }
            let weight = |t: &TenantId| if *t == tenant("heavy") { 3.0 } else { 1.0 };
            let jobs: Vec<_> = (0..400).map_while(|_| next(&mut queue, weight, 0)).collect();
            let heavy = of(&jobs, "heavy");
            assert!((298..=302).contains(&heavy), "{heavy}");
        }

        let mut queue = JobQueue::default();
        for _ in 0..1000 {
            queue.push(job("long", Lane::Bulk, 10.0, 0));
            queue.push(job("short", Lane::Bulk, 1.0, 0));
        }
        let long = of(&served(&mut queue, 550, 0), "long");
        assert!((48..=52).contains(&long), "{long}");
    }

    #[test]
    fn a_tenant_who_may_not_run_is_passed_over_and_saves_up_nothing() {
        let mut queue = JobQueue::default();
        for _ in 0..100 {
            queue.push(job("held", Lane::Bulk, 1.0, 0));
            queue.push(job("free", Lane::Bulk, 1.0, 0));
        }
        for _ in 0..50 {
            let turn = queue.turn(|t| *t != tenant("held")).unwrap().clone();
            assert_eq!(turn, tenant("free"));
            queue.pop(&turn, 1.0, Duration::ZERO);
        }
        let jobs = served(&mut queue, 20, 0);
        assert!((9..=11).contains(&of(&jobs, "held")), "{}", of(&jobs, "held"));
        assert!(queue.turn(|_| false).is_none());
    }

    #[test]
    fn small_jobs_overtake_and_large_ones_do_not_starve() {
        let mut queue = JobQueue::default();
        let large = job("a", Lane::Bulk, 100.0, 0);
        queue.push(large.clone());
        let mut overtaken = 0;
        // A small job comes every second, as fast as they are served.
        for now in 5..1000 {
            queue.push(job("a", Lane::Bulk, 2.0, now - 5));
            if next(&mut queue, |_| 1.0, now).unwrap().job == large.job {
                break;
            }
            overtaken += 1;
        }
        assert!((50..400).contains(&overtaken), "{overtaken}");
    }

    #[test]
    fn interactive_jobs_go_first_and_bulk_jobs_still_move() {
        let mut queue = JobQueue::default();
        let bulk = job("a", Lane::Bulk, 9.0, 0);
        queue.push(bulk.clone());
        let mut before = 0;
        for now in 1..200 {
            queue.push(job("a", Lane::Interactive, 9.0, now));
            if next(&mut queue, |_| 1.0, now).unwrap().job == bulk.job {
                break;
            }
            before += 1;
        }
        // Seven times its ten seconds.
        assert!((68..=72).contains(&before), "{before}");
    }

    #[test]
    fn of_equal_jobs_the_first_is_first() {
        let mut queue = JobQueue::default();
        let jobs: Vec<_> = (0..5).map(|_| job("a", Lane::Bulk, 1.0, 0)).collect();
        jobs.iter().for_each(|job| queue.push(job.clone()));
        let place = |queue: &JobQueue, at: usize| queue.position(&tenant("a"), jobs[at].job, Duration::ZERO);
        assert_eq!((place(&queue, 0), place(&queue, 4)), (Some(1), Some(5)));
        assert_eq!(served(&mut queue, 2, 0), jobs[..2]);
        assert_eq!((place(&queue, 1), place(&queue, 4)), (None, Some(3)));
    }

    #[test]
    fn what_a_job_was_is_charged_not_what_it_seemed() {
        let mut queue = JobQueue::default();
        for _ in 0..100 {
            queue.push(job("modest", Lane::Bulk, 1.0, 0));
            queue.push(job("sly", Lane::Bulk, 1.0, 0));
        }
        let mut sly = 0;
        for _ in 0..44 {
            let job = next(&mut queue, |_| 1.0, 0).unwrap();
            if job.tenant == tenant("sly") {
                sly += 1;
                queue.settle(&job.tenant, 1.0, 1.0, 10.0);
            }
        }
        assert!((4..=5).contains(&sly), "{sly}");
    }

    #[test]
    fn a_withdrawn_job_leaves_nothing() {
        let mut queue = JobQueue::default();
        let jobs: Vec<_> = (0..3).map(|_| job("a", Lane::Bulk, 1.0, 0)).collect();
        jobs.iter().for_each(|job| queue.push(job.clone()));
        assert_eq!(queue.of(&tenant("a")), 3);
        assert_eq!(queue.withdraw(&tenant("a"), jobs[1].job), Some(jobs[1].clone()));
        assert_eq!(queue.of(&tenant("a")), 2);
        assert_eq!(queue.withdraw(&tenant("a"), jobs[1].job), None);
        assert_eq!(queue.withdraw(&tenant("b"), jobs[0].job), None);
        assert_eq!(queue.withdraw_all(&tenant("a")).len(), 2);
        assert_eq!((queue.len(), queue.flows.len()), (0, 0));
    }

    #[test]
    fn only_a_tenant_without_turns_shows_overload() {
        let mut queue = JobQueue::default();
        let seconds = Duration::from_secs;
        for _ in 0..10 {
            queue.push(job("flood", Lane::Bulk, 1.0, 0));
        }
        queue.pop(&tenant("flood"), 1.0, seconds(90));
        assert_eq!(
            queue.longest_without_turn(seconds(100), |_| true),
            Some(seconds(10))
        );
        queue.push(job("waits", Lane::Bulk, 1.0, 40));
        assert_eq!(
            queue.longest_without_turn(seconds(100), |_| true),
            Some(seconds(60))
        );
        assert_eq!(queue.longest_without_turn(seconds(100), |_| false), None);
    }
}
