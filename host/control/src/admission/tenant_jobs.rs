//! The queued jobs of one tenant, by urgency.
//!
//! Of the jobs of one lane and one size, the one that was queued first is always the most urgent. So the jobs are in lists by lane and
//! size, and the next job is found among the first of each list. Sizes are rounded to sixteen steps for each doubling, which changes an
//! urgency by at most 2 %, much less than an estimate is wrong. Then a tenant has at most some hundred lists, however many jobs it has.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use weir_core::{JobId, PriorityLane};

use super::queued_job::QueuedJob;

/// Steps of a job's size for each doubling.
const SIZE_STEPS_PER_DOUBLING: f64 = 16.0;

/// The queued jobs of a tenant.
#[derive(Default)]
pub(super) struct TenantJobs {
    lists: BTreeMap<JobClass, VecDeque<ListedJob>>,
    places: HashMap<JobId, (JobClass, QueuePlace)>,
    /// The number of jobs that were added so far.
    added: u64,
    /// When its last job started.
    pub(super) last_start: Duration,
}

/// Jobs that become more urgent in the order in which they were queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct JobClass {
    is_interrupted: bool,
    lane: PriorityLane,
    size_step: i32,
}

/// When a job was queued; of jobs that were queued at the same time, the one that was added first precedes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct QueuePlace {
    queued_at: Duration,
    added: u64,
}

struct ListedJob {
    place: QueuePlace,
    job: QueuedJob,
}

impl JobClass {
    fn of_job(job: &QueuedJob) -> Self {
        // Each page counts as one second of service, and opening the job as one more.
        let size = (1.0 + job.estimated_pages).log2();
        Self {
            is_interrupted: job.is_interrupted,
            lane: job.lane,
            size_step: (size * SIZE_STEPS_PER_DOUBLING).round() as i32,
        }
    }

    /// Returns the urgency of a job of this class that was queued at `queued_at`. Only the ratio of the times matters, so the speed of the
    /// host changes little.
    fn urgency(self, queued_at: Duration, now: Duration) -> f64 {
        if self.is_interrupted {
            return f64::INFINITY;
        }
        let service = (f64::from(self.size_step) / SIZE_STEPS_PER_DOUBLING).exp2();
        let waited = now.saturating_sub(queued_at).as_secs_f64();
        self.lane.lane_weight() * (waited + service) / service
    }
}

impl TenantJobs {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn contains(&self, job: JobId) -> bool {
        self.places.contains_key(&job)
    }

    pub(super) fn job_ids(&self) -> impl Iterator<Item = JobId> {
        self.places.keys().copied()
    }

    pub(super) fn push(&mut self, job: QueuedJob) {
        self.added += 1;
        let class = JobClass::of_job(&job);
        let place = QueuePlace {
            queued_at: job.queued_at,
            added: self.added,
        };
        self.places.insert(job.job_id, (class, place));
        let list = self.lists.entry(class).or_default();
        // Nearly always the end.
        let index = list.partition_point(|listed| listed.place < place);
        list.insert(index, ListedJob { place, job });
    }

    /// Removes the most urgent job. Of equally urgent jobs, the first one queued is next.
    pub(super) fn pop_most_urgent(&mut self, now: Duration) -> Option<QueuedJob> {
        let heads = self.lists.iter().filter_map(|(class, list)| {
            let head = list.front()?;
            Some((class.urgency(head.place.queued_at, now), head))
        });
        let next = heads.reduce(|best, one| match one.0.total_cmp(&best.0) {
            std::cmp::Ordering::Greater => one,
            std::cmp::Ordering::Equal if one.1.place < best.1.place => one,
            _ => best,
        });
        let job = next.map(|(_, head)| head.job.job_id)?;
        self.remove(job)
    }

    /// Removes a job; `None` if it is not queued.
    pub(super) fn remove(&mut self, job: JobId) -> Option<QueuedJob> {
        let (class, place) = self.places.remove(&job)?;
        let list = self.lists.get_mut(&class)?;
        let index = list.partition_point(|listed| listed.place < place);
        let removed = list.remove(index)?.job;
        if list.is_empty() {
            self.lists.remove(&class);
        }
        Some(removed)
    }

    /// Removes the jobs for which `stays` is false. Returns how many.
    pub(super) fn retain(&mut self, stays: impl Fn(&QueuedJob) -> bool) -> usize {
        let before = self.places.len();
        let places = &mut self.places;
        self.lists.retain(|_, list| {
            list.retain(|listed| {
                let stays = stays(&listed.job);
                if !stays {
                    places.remove(&listed.job.job_id);
                }
                stays
            });
            !list.is_empty()
        });
        before - self.places.len()
    }

    /// Returns all jobs.
    pub(super) fn into_jobs(self) -> Vec<QueuedJob> {
        let listed = self.lists.into_values().flatten();
        listed.map(|listed| listed.job).collect()
    }

    /// Returns how many jobs are more urgent than a job; `None` if it is not queued.
    pub(super) fn count_more_urgent(&self, job: JobId, now: Duration) -> Option<usize> {
        let (own_class, own_place) = self.places.get(&job)?;
        let own = own_class.urgency(own_place.queued_at, now);
        let ahead = self.lists.iter().map(|(class, list)| {
            list.partition_point(|listed| {
                let urgency = class.urgency(listed.place.queued_at, now);
                urgency > own || (urgency >= own && listed.place < *own_place)
            })
        });
        Some(ahead.sum())
    }

    /// Returns when the job was queued that has waited for the longest time.
    pub(super) fn first_queued_at(&self) -> Option<Duration> {
        let heads = self.lists.values().filter_map(VecDeque::front);
        heads.map(|head| head.place.queued_at).min()
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use weir_core::TenantId;

    use super::*;

    fn random_job(rng: &mut Rng) -> QueuedJob {
        QueuedJob {
            job_id: JobId::new(),
            tenant: TenantId::default_tenant(),
            lane: *rng
                .choice(&[PriorityLane::Interactive, PriorityLane::Bulk])
                .unwrap(),
            estimated_pages: rng.f64() * 2_f64.powi(rng.i32(0..12)) + 0.1,
            queued_at: Duration::from_secs(rng.u64(0..100)),
            is_interrupted: rng.u8(0..20) == 0,
        }
    }

    /// Compares with a search through all jobs.
    #[test]
    fn next_job_and_positions_are_those_of_a_search_through_all_jobs() {
        let mut rng = Rng::with_seed(7);
        let (mut queue, mut all): (TenantJobs, Vec<QueuedJob>) = Default::default();
        for step in 0..600 {
            let now = Duration::from_secs(100 + step);
            for _ in 0..rng.usize(0..3) {
                let job = random_job(&mut rng);
                queue.push(job.clone());
                all.push(job);
            }
            let urgency = |job: &QueuedJob| JobClass::of_job(job).urgency(job.queued_at, now);
            let is_before = |one: usize, other: usize, all: &[QueuedJob]| {
                let (a, b) = (&all[one], &all[other]);
                let places = ((a.queued_at, one), (b.queued_at, other));
                urgency(a) > urgency(b) || (urgency(a) >= urgency(b) && places.0 < places.1)
            };
            if !all.is_empty() && rng.bool() {
                let own = rng.usize(0..all.len());
                let ahead = |other: &usize| is_before(*other, own, &all);
                let expected = (0..all.len()).filter(ahead).count();
                assert_eq!(queue.count_more_urgent(all[own].job_id, now), Some(expected));
                if rng.bool() {
                    let job = all.remove(own);
                    assert_eq!(queue.remove(job.job_id), Some(job));
                }
            }
            let next = (0..all.len()).reduce(|best, one| if is_before(one, best, &all) { one } else { best });
            let expected = next.map(|next| all.remove(next));
            assert_eq!(queue.pop_most_urgent(now), expected);
            assert_eq!(queue.len(), all.len());
            let first = all.iter().map(|job| job.queued_at).min();
            assert_eq!(queue.first_queued_at(), first);
        }
        let kept = all.iter().filter(|job| job.estimated_pages < 9.0).count();
        assert_eq!(queue.retain(|job| job.estimated_pages < 9.0), all.len() - kept);
        assert_eq!((queue.job_ids().count(), queue.into_jobs().len()), (kept, kept));
    }

    #[test]
    fn sizes_are_rounded_by_two_percent() {
        let job = random_job(&mut Rng::with_seed(1));
        for pages in [0.1, 1.0, 3.0, 50.0, 1e6] {
            let class = JobClass::of_job(&QueuedJob {
                estimated_pages: pages,
                lane: PriorityLane::Bulk,
                is_interrupted: false,
                ..job.clone()
            });
            // After as long as it takes, its urgency is 2.
            let service = Duration::from_secs_f64(1.0 + pages);
            let urgency = class.urgency(Duration::ZERO, service);
            assert!((urgency - 2.0).abs() < 0.025, "{pages}: {urgency}");
        }
    }
}
