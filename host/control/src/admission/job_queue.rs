//! The fair queue of jobs. It has no clock and no thread: the time is an argument, so tests can check its behavior as arithmetic.
//!
//! Between tenants it uses start-time fair queueing ([`FairClock`]) over the estimated cost of jobs in pages. A tenant with
//! one job competes with the first job of a tenant with a thousand jobs, not with all of them. An idle tenant saves up no credit.
//! Tenants are the upper level and lanes the lower one. In the reverse order, a tenant that marks all its jobs as interactive would
//! take eight ninths of the host from the tenants that do not.
//!
//! Within a tenant the next job is the one with the highest response ratio, (waited + service) / service (Brinch Hansen 1971). A
//! small job overtakes a large one, and a large one that has waited long enough overtakes every other, so no job starves. The
//! interactive lane multiplies the ratio by its weight ([`PriorityLane::lane_weight`]). So a bulk job overtakes newly queued interactive jobs once
//! it has waited seven times as long as it takes. A job that a node has lost while it ran precedes them all. The next job of a tenant is
//! found without looking at all of its jobs ([`TenantJobs`]).

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use weir_core::fair_queue::FairClock;
use weir_core::{JobId, TenantId};

use super::queued_job::QueuedJob;
use super::tenant_jobs::TenantJobs;

/// The free job slots that a tenant may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FreeSlots {
    /// A slot that every tenant may use.
    ForAll,
    /// Only a slot that is reserved for tenants without a running job.
    Reserved,
    None,
}

/// The tenant whose job starts next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NextTenant {
    pub(super) tenant: TenantId,
    /// Whether it would also be next if slots were free for all tenants.
    pub(super) is_in_turn: bool,
}

/// The queued jobs of all tenants.
pub(super) struct JobQueue {
    clock: FairClock<TenantId>,
    /// Tenants with queued jobs.
    tenants: BTreeMap<TenantId, TenantJobs>,
    queued_jobs: usize,
}

impl Default for JobQueue {
    fn default() -> Self {
        Self {
            clock: FairClock::new(0.0),
            tenants: BTreeMap::new(),
            queued_jobs: 0,
        }
    }
}

impl JobQueue {
    /// Returns the number of queued jobs.
    pub(super) const fn len(&self) -> usize {
        self.queued_jobs
    }

    /// Returns the number of queued jobs of a tenant.
    pub(super) fn tenant_queue_len(&self, tenant: &TenantId) -> usize {
        self.tenants.get(tenant).map_or(0, TenantJobs::len)
    }

    /// Returns the ids of all queued jobs.
    pub(super) fn job_ids(&self) -> HashSet<JobId> {
        self.tenants.values().flat_map(TenantJobs::job_ids).collect()
    }

    /// Returns whether a job is queued.
    pub(super) fn contains_job(&self, tenant: &TenantId, job: JobId) -> bool {
        self.tenants.get(tenant).is_some_and(|jobs| jobs.contains(job))
    }

    /// Adds a job.
    pub(super) fn push(&mut self, job: QueuedJob) {
        self.tenants.entry(job.tenant.clone()).or_default().push(job);
        self.queued_jobs += 1;
    }

    /// Returns the tenant whose job starts next. `find_slot` returns the slots that a tenant may use, or `None` if it may start no job
    /// however many there are: such a tenant saves up no credit meanwhile.
    pub(super) fn next_tenant(
        &self,
        find_slot: impl Fn(&TenantId) -> Option<FreeSlots>,
    ) -> Option<NextTenant> {
        let in_turn = self
            .clock
            .next_flow_among(self.tenants.keys().filter(|tenant| find_slot(tenant).is_some()))?;
        let may_start = |tenant: &&TenantId| match find_slot(tenant) {
            Some(FreeSlots::ForAll) => true,
            // Not for a tenant that has used more than its share and has just no running job.
            Some(FreeSlots::Reserved) => *tenant == in_turn || self.clock.is_within_share(tenant),
            Some(FreeSlots::None) | None => false,
        };
        let next = self
            .clock
            .next_flow_among(self.tenants.keys().filter(may_start))?;
        Some(NextTenant {
            tenant: next.clone(),
            is_in_turn: next == in_turn,
        })
    }

    /// Removes the tenant's most urgent job and charges its estimated cost to the tenant.
    pub(super) fn pop_and_charge_most_urgent_job(
        &mut self,
        next: &NextTenant,
        weight: f64,
        now: Duration,
    ) -> Option<QueuedJob> {
        let tenant = &next.tenant;
        let tenant_jobs = self.tenants.get_mut(tenant)?;
        let job = tenant_jobs.pop_most_urgent(now)?;
        tenant_jobs.last_start = now;
        // A tenant that waits for a slot keeps its claim while others use the slots that are not for it.
        match next.is_in_turn {
            true => self
                .clock
                .charge_and_advance_virtual_time(tenant, job.estimated_pages, weight),
            false => self.clock.charge_out_of_turn(tenant, job.estimated_pages, weight),
        }
        self.queued_jobs -= 1;
        self.drop_idle_tenants();
        Some(job)
    }

    /// Charges the tenant for `actual_pages` in place of `estimated_pages`.
    pub(super) fn charge_actual_cost(
        &mut self,
        tenant: &TenantId,
        weight: f64,
        estimated_pages: f64,
        actual_pages: f64,
    ) {
        self.clock
            .correct_charge_to_actual_cost(tenant, estimated_pages, actual_pages, weight);
    }

    /// Removes a job; `None` if it is not queued.
    pub(super) fn remove_job(&mut self, tenant: &TenantId, job: JobId) -> Option<QueuedJob> {
        let job = self.tenants.get_mut(tenant)?.remove(job)?;
        self.queued_jobs -= 1;
        self.drop_idle_tenants();
        Some(job)
    }

    /// Removes the jobs that are not in `jobs` and were queued before `queued_before`. They have started on other nodes, or have ended.
    /// Returns how many.
    pub(super) fn remove_jobs_except(&mut self, jobs: &HashSet<JobId>, queued_before: Duration) -> usize {
        let before = self.queued_jobs;
        let stays = |job: &QueuedJob| jobs.contains(&job.job_id) || job.queued_at >= queued_before;
        for tenant_jobs in self.tenants.values_mut() {
            if tenant_jobs.retain(stays) > 0 {
                tenant_jobs.last_start = queued_before;
            }
        }
        self.queued_jobs = self.tenants.values().map(TenantJobs::len).sum();
        self.drop_idle_tenants();
        before - self.queued_jobs
    }

    /// Removes all jobs of a tenant.
    pub(super) fn remove_tenant_jobs(&mut self, tenant: &TenantId) -> Vec<QueuedJob> {
        let jobs = self
            .tenants
            .remove(tenant)
            .map(TenantJobs::into_jobs)
            .unwrap_or_default();
        self.queued_jobs -= jobs.len();
        self.drop_idle_tenants();
        jobs
    }

    /// Returns the position of a job among the jobs of its tenant, from 1, as of now; `None` if it is not queued. The jobs of other
    /// tenants do not count, because a tenant must not learn about them.
    pub(super) fn position_in_tenant_queue(
        &self,
        tenant: &TenantId,
        job: JobId,
        now: Duration,
    ) -> Option<usize> {
        let ahead = self.tenants.get(tenant)?.count_more_urgent(job, now)?;
        Some(ahead + 1)
    }

    /// Returns the longest time for which a tenant has had queued jobs and none of them started, among the tenants for which
    /// `is_allowed` is true. A long backlog of one tenant does not count as long as its jobs keep starting.
    pub(super) fn longest_tenant_wait_without_start(
        &self,
        now: Duration,
        is_allowed: impl Fn(&TenantId) -> bool,
    ) -> Option<Duration> {
        let waiting = self.tenants.iter().filter(|(tenant, _)| is_allowed(tenant));
        let waiting_since = |tenant_jobs: &TenantJobs| {
            let first = tenant_jobs.first_queued_at().unwrap_or(now);
            first.max(tenant_jobs.last_start)
        };
        waiting
            .map(|(_, tenant_jobs)| now.saturating_sub(waiting_since(tenant_jobs)))
            .max()
    }

    /// Drops tenants without jobs.
    fn drop_idle_tenants(&mut self) {
        let tenants = &mut self.tenants;
        tenants.retain(|_, tenant| !tenant.is_empty());
        if tenants.is_empty() {
            self.clock.clear_all_flow_tags();
        } else {
            self.clock
                .drop_idle_flow_tags(|tenant| tenants.contains_key(tenant));
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_core::PriorityLane;

    use super::*;

    fn tenant_id(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    fn queued_job(name: &str, lane: PriorityLane, cost: f64, since: u64) -> QueuedJob {
        QueuedJob {
            job_id: JobId::new(),
            tenant: tenant_id(name),
            lane,
            estimated_pages: cost,
            queued_at: Duration::from_secs(since),
            is_interrupted: false,
        }
    }

    fn pop_next(queue: &mut JobQueue, weight: impl Fn(&TenantId) -> f64, now: u64) -> Option<QueuedJob> {
        let next = queue.next_tenant(|_| Some(FreeSlots::ForAll))?;
        queue.pop_and_charge_most_urgent_job(&next, weight(&next.tenant), Duration::from_secs(now))
    }

    fn pop_many(queue: &mut JobQueue, count: usize, now: u64) -> Vec<QueuedJob> {
        (0..count).map_while(|_| pop_next(queue, |_| 1.0, now)).collect()
    }

    fn count_jobs_of(jobs: &[QueuedJob], name: &str) -> usize {
        jobs.iter().filter(|job| job.tenant == tenant_id(name)).count()
    }

    #[test]
    fn one_job_does_not_wait_behind_another_tenants_flood() {
        let mut queue = JobQueue::default();
        for _ in 0..200 {
            queue.push(queued_job("flood", PriorityLane::Bulk, 50.0, 0));
        }
        pop_many(&mut queue, 6, 0);
        queue.push(queued_job("late", PriorityLane::Bulk, 3.0, 1));
        assert_eq!(count_jobs_of(&pop_many(&mut queue, 2, 1), "late"), 1);
        assert_eq!(
            (queue.len(), queue.tenant_queue_len(&tenant_id("late"))),
            (193, 0)
        );
    }

    #[test]
    fn job_starts_follow_weight_and_cost_in_every_lane() {
        for lane in [PriorityLane::Interactive, PriorityLane::Bulk] {
            let mut queue = JobQueue::default();
            for _ in 0..400 {
                queue.push(queued_job("heavy", PriorityLane::Bulk, 10.0, 0));
                queue.push(queued_job("light", lane, 10.0, 0));
            }
            let weight = |t: &TenantId| if *t == tenant_id("heavy") { 3.0 } else { 1.0 };
            let jobs: Vec<_> = (0..400).map_while(|_| pop_next(&mut queue, weight, 0)).collect();
            let heavy = count_jobs_of(&jobs, "heavy");
            assert!((298..=302).contains(&heavy), "{heavy}");
        }

        let mut queue = JobQueue::default();
        for _ in 0..1000 {
            queue.push(queued_job("long", PriorityLane::Bulk, 10.0, 0));
            queue.push(queued_job("short", PriorityLane::Bulk, 1.0, 0));
        }
        let long = count_jobs_of(&pop_many(&mut queue, 550, 0), "long");
        assert!((48..=52).contains(&long), "{long}");
    }

    #[test]
    fn held_tenant_is_skipped_and_saves_up_no_credit() {
        let mut queue = JobQueue::default();
        for _ in 0..100 {
            queue.push(queued_job("held", PriorityLane::Bulk, 1.0, 0));
            queue.push(queued_job("free", PriorityLane::Bulk, 1.0, 0));
        }
        for _ in 0..50 {
            let is_free = |t: &TenantId| (*t != tenant_id("held")).then_some(FreeSlots::ForAll);
            let next = queue.next_tenant(is_free).unwrap();
            assert_eq!(next.tenant, tenant_id("free"));
            queue.pop_and_charge_most_urgent_job(&next, 1.0, Duration::ZERO);
        }
        let jobs = pop_many(&mut queue, 20, 0);
        assert!(
            (9..=11).contains(&count_jobs_of(&jobs, "held")),
            "{}",
            count_jobs_of(&jobs, "held")
        );
        assert!(queue.next_tenant(|_| None).is_none());
    }

    /// Four slots, of which one is reserved for tenants without a running job, are always full.
    #[test]
    fn reserved_slot_changes_no_share_and_serves_new_tenants_at_once() {
        let mut queue = JobQueue::default();
        for _ in 0..1000 {
            queue.push(queued_job("heavy", PriorityLane::Bulk, 10.0, 0));
            queue.push(queued_job("light", PriorityLane::Bulk, 10.0, 0));
        }
        let find_slot = |running: &[TenantId], tenant: &TenantId| {
            let free = 4 - running.len();
            Some(match free {
                2.. => FreeSlots::ForAll,
                1 if !running.contains(tenant) => FreeSlots::Reserved,
                _ => FreeSlots::None,
            })
        };
        let weight = |tenant: &TenantId| if *tenant == tenant_id("heavy") { 3.0 } else { 1.0 };
        let (mut running, mut started): (Vec<TenantId>, Vec<TenantId>) = Default::default();
        let mut start_all = |queue: &mut JobQueue, running: &mut Vec<TenantId>| {
            while let Some(next) = queue.next_tenant(|tenant| find_slot(running, tenant)) {
                queue.pop_and_charge_most_urgent_job(&next, weight(&next.tenant), Duration::ZERO);
                running.push(next.tenant.clone());
                started.push(next.tenant);
            }
        };
        for _ in 0..400 {
            start_all(&mut queue, &mut running);
            // All jobs take the same time.
            running.remove(0);
        }
        queue.push(queued_job("late", PriorityLane::Bulk, 3.0, 1));
        start_all(&mut queue, &mut running);
        assert!(running.contains(&tenant_id("late")), "{running:?}");
        let heavy = started
            .iter()
            .filter(|tenant| **tenant == tenant_id("heavy"))
            .count();
        let share = heavy as f64 / started.len() as f64;
        assert!((share - 0.75).abs() < 0.01, "{share} of {}", started.len());
    }

    #[test]
    fn small_jobs_overtake_and_large_ones_do_not_starve() {
        let mut queue = JobQueue::default();
        let large = queued_job("a", PriorityLane::Bulk, 100.0, 0);
        queue.push(large.clone());
        let mut overtaken = 0;
        // One small job is queued every second, as fast as jobs start.
        for now in 5..1000 {
            queue.push(queued_job("a", PriorityLane::Bulk, 2.0, now - 5));
            if pop_next(&mut queue, |_| 1.0, now).unwrap().job_id == large.job_id {
                break;
            }
            overtaken += 1;
        }
        assert!((50..400).contains(&overtaken), "{overtaken}");
    }

    #[test]
    fn interrupted_jobs_go_before_jobs_that_have_waited_for_longer() {
        let mut queue = JobQueue::default();
        queue.push(queued_job("a", PriorityLane::Interactive, 1.0, 0));
        let waiting = queue.job_ids();
        let interrupted = [0, 1].map(|_| QueuedJob {
            is_interrupted: true,
            ..queued_job("a", PriorityLane::Bulk, 1000.0, 100)
        });
        interrupted.iter().for_each(|job| queue.push(job.clone()));
        let [first, second] = interrupted.map(|job| job.job_id);
        let expected = [first, second, waiting.into_iter().next().unwrap()];
        let position = queue.position_in_tenant_queue(&tenant_id("a"), expected[2], Duration::from_secs(100));
        assert_eq!(position, Some(3));
        assert_eq!(
            pop_many(&mut queue, 3, 100)
                .iter()
                .map(|job| job.job_id)
                .collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn interactive_jobs_go_first_and_bulk_jobs_still_move() {
        let mut queue = JobQueue::default();
        let bulk = queued_job("a", PriorityLane::Bulk, 9.0, 0);
        queue.push(bulk.clone());
        let mut before = 0;
        for now in 1..200 {
            queue.push(queued_job("a", PriorityLane::Interactive, 9.0, now));
            if pop_next(&mut queue, |_| 1.0, now).unwrap().job_id == bulk.job_id {
                break;
            }
            before += 1;
        }
        // Seven times its service time of ten seconds.
        assert!((68..=72).contains(&before), "{before}");
    }

    #[test]
    fn equally_urgent_jobs_start_in_queue_order() {
        let mut queue = JobQueue::default();
        let jobs: Vec<_> = (0..5)
            .map(|_| queued_job("a", PriorityLane::Bulk, 1.0, 0))
            .collect();
        jobs.iter().for_each(|job| queue.push(job.clone()));
        let position_of = |queue: &JobQueue, at: usize| {
            queue.position_in_tenant_queue(&tenant_id("a"), jobs[at].job_id, Duration::ZERO)
        };
        assert_eq!(
            (position_of(&queue, 0), position_of(&queue, 4)),
            (Some(1), Some(5))
        );
        assert_eq!(pop_many(&mut queue, 2, 0), jobs[..2]);
        assert_eq!((position_of(&queue, 1), position_of(&queue, 4)), (None, Some(3)));
    }

    #[test]
    fn actual_cost_is_charged_not_the_estimate() {
        let mut queue = JobQueue::default();
        for _ in 0..100 {
            queue.push(queued_job("modest", PriorityLane::Bulk, 1.0, 0));
            queue.push(queued_job("sly", PriorityLane::Bulk, 1.0, 0));
        }
        let mut sly = 0;
        for _ in 0..44 {
            let job = pop_next(&mut queue, |_| 1.0, 0).unwrap();
            if job.tenant == tenant_id("sly") {
                sly += 1;
                queue.charge_actual_cost(&job.tenant, 1.0, 1.0, 10.0);
            }
        }
        assert!((4..=5).contains(&sly), "{sly}");
    }

    #[test]
    fn removed_job_leaves_no_state() {
        let mut queue = JobQueue::default();
        let jobs: Vec<_> = (0..3)
            .map(|_| queued_job("a", PriorityLane::Bulk, 1.0, 0))
            .collect();
        jobs.iter().for_each(|job| queue.push(job.clone()));
        assert_eq!(queue.tenant_queue_len(&tenant_id("a")), 3);
        assert_eq!(
            queue.remove_job(&tenant_id("a"), jobs[1].job_id),
            Some(jobs[1].clone())
        );
        assert_eq!(queue.tenant_queue_len(&tenant_id("a")), 2);
        assert_eq!(queue.remove_job(&tenant_id("a"), jobs[1].job_id), None);
        assert_eq!(queue.remove_job(&tenant_id("b"), jobs[0].job_id), None);
        assert_eq!(queue.remove_tenant_jobs(&tenant_id("a")).len(), 2);
        assert_eq!((queue.len(), queue.tenants.len()), (0, 0));
    }

    #[test]
    fn jobs_that_other_nodes_have_claimed_are_removed() {
        let mut queue = JobQueue::default();
        let [a, b] = ["a", "b"].map(|tenant| queued_job(tenant, PriorityLane::Bulk, 1.0, 1));
        let new = queued_job("a", PriorityLane::Bulk, 1.0, 5);
        for job in [&a, &b, &new] {
            queue.push(job.clone());
        }
        // `new` was queued after the ledger was read.
        let known = HashSet::from([a.job_id]);
        assert_eq!(queue.remove_jobs_except(&known, Duration::from_secs(5)), 1);
        assert_eq!((queue.len(), queue.tenants.len()), (2, 1));
        // The tenants' jobs start, on other nodes.
        let c = queued_job("c", PriorityLane::Bulk, 1.0, 1);
        queue.push(c.clone());
        queue.push(queued_job("c", PriorityLane::Bulk, 1.0, 1));
        let wait = |queue: &JobQueue| {
            let is_c = |tenant: &TenantId| *tenant == tenant_id("c");
            queue.longest_tenant_wait_without_start(Duration::from_secs(5), is_c)
        };
        assert_eq!(wait(&queue), Some(Duration::from_secs(4)));
        queue.remove_jobs_except(
            &HashSet::from([a.job_id, new.job_id, c.job_id]),
            Duration::from_secs(5),
        );
        assert_eq!(wait(&queue), Some(Duration::ZERO));
        queue.remove_tenant_jobs(&tenant_id("c"));
        assert_eq!(
            queue.remove_jobs_except(&HashSet::new(), Duration::from_secs(6)),
            2
        );
        assert_eq!((queue.len(), queue.tenants.len()), (0, 0));
    }

    #[test]
    fn only_tenant_without_job_starts_counts_as_overload() {
        let mut queue = JobQueue::default();
        let seconds = Duration::from_secs;
        for _ in 0..10 {
            queue.push(queued_job("flood", PriorityLane::Bulk, 1.0, 0));
        }
        pop_next(&mut queue, |_| 1.0, 90);
        assert_eq!(
            queue.longest_tenant_wait_without_start(seconds(100), |_| true),
            Some(seconds(10))
        );
        queue.push(queued_job("waits", PriorityLane::Bulk, 1.0, 40));
        assert_eq!(
            queue.longest_tenant_wait_without_start(seconds(100), |_| true),
            Some(seconds(60))
        );
        assert_eq!(
            queue.longest_tenant_wait_without_start(seconds(100), |_| false),
            None
        );
    }
}
