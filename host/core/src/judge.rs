//! How a canary is judged: what it showed beside the stable revision, and what follows.
//!
//! The rule is that of every roll-out that is undone: slower, failing more, or later than what it replaces, by more than was allowed.
//! Each share is compared with the stable revision's in the same time, so what goes wrong for both (a model that is down, documents
//! that are broken) is no reason.
//!
//! Jobs differ: by their documents, and by what else the host did meanwhile. Twenty jobs' means are off by more than the tenth that is
//! allowed, so a rule that compared means would undo good canaries and let bad ones pass by the throw of a coin. Two questions are put
//! for each of the five things compared, and only an answer counts:
//!
//! - *Is it worse?* The canary is rolled back if what it showed is more than allowed, and would hardly (one in twenty, over the whole
//!   trial) be seen of one that is as good as the stable revision.
//! - *Is it within what is allowed?* It is promoted if all that it showed would be seen of one that is worse than allowed one time
//!   in ten at most.
//!
//! Until either is answered the trial goes on. It is looked at after 5, 10, 20, 40 … jobs of the canary rather than after each: who looks
//! after every job finds something sooner or later, in pure noise too. The risk of the first question is shared out among the looks and
//! the things compared (Bonferroni), and a look sees the jobs up to then, whenever it is asked. At the last, after sixteen times
//! the jobs asked for, what is seen decides.
//!
//! How long a page takes is compared by ranks: it is a mixture (scans, text, busy and idle minutes) with a long tail, of which means and
//! their variances say little and ranks all there is to say; which revision a job gets is drawn at random, which is all that a rank test
//! asks for. What the host did at a time is taken out first, with the median of the jobs that ended then. "A tenth slower" is tested by
//! making the canary's jobs a tenth quicker. Shares of pages and calls are counted by job, since what goes wrong in a document goes wrong
//! on many of its pages. Methods and their sources are in `judge/statistics.rs`.
//!
//! How often it is wrong, with the default rule, on noise as jobs make it (200 trials each of four loads, `judge/tests.rs`): of canaries
//! as good as the stable revision at most 3 in 100 are rolled back, after 80 to 160 jobs the others are promoted; of those that take 15 %
//! longer for a page 2 to 9 in 100 pass, of those that trap on one page of twenty at most 2 in 100.

mod look;
mod statistics;
#[cfg(test)]
mod tests;

pub use look::Look;
use serde::{Deserialize, Serialize};

/// When a canary is judged, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Judge {
    /// Whether it is promoted or rolled back by itself.
    pub automatic: bool,
    /// Jobs of the canary that must have ended before it can be promoted. It takes more where they leave open whether it is worse, up
    /// to sixteen times as many.
    pub jobs: u32,
    /// Makespan per page beyond the stable revision's by which it is rolled back, as a share: 0.1 is a tenth.
    pub slower: f64,
    /// Share of jobs that fail, beyond the stable revision's, by which it is rolled back.
    pub failures: f64,
    /// Share of calls that pass their deadline, beyond the stable revision's.
    pub timeouts: f64,
    /// Share of pages on which a component traps or answers nonsense, beyond the stable revision's.
    pub traps: f64,
    /// Share of pages skipped or failed, beyond the stable revision's.
    pub skipped: f64,
}

impl Default for Judge {
    /// A tenth slower, a twentieth more failures, a tenth more timeouts: the usual rule for undoing a roll-out.
    fn default() -> Self {
        Self {
            automatic: true,
            jobs: 20,
            slower: 0.1,
            failures: 0.05,
            timeouts: 0.1,
            traps: 0.02,
            skipped: 0.02,
        }
    }
}

/// How a job went, as far as its revision is judged by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Showing {
    /// Jobs that ended.
    pub jobs: u64,
    /// Those that failed.
    pub failed_jobs: u64,
    /// Pages done, skipped or failed.
    pub pages: u64,
    /// Pages skipped or failed.
    pub failed_pages: u64,
    /// Calls of components.
    pub calls: u64,
    /// Those that trapped or answered nonsense.
    pub traps: u64,
    /// Those that passed their deadline.
    pub timeouts: u64,
    /// Milliseconds that jobs took from their start to their end, for those that had pages to do.
    pub millis: u64,
}

impl Showing {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            jobs: self.jobs + other.jobs,
            failed_jobs: self.failed_jobs + other.failed_jobs,
            pages: self.pages + other.pages,
            failed_pages: self.failed_pages + other.failed_pages,
            calls: self.calls + other.calls,
            traps: self.traps + other.traps,
            timeouts: self.timeouts + other.timeouts,
            millis: self.millis + other.millis,
        }
    }
}

/// A job that ended, and what it showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// When it ended, in milliseconds since 1970.
    pub at_millis: u64,
    /// What it showed.
    pub showing: Showing,
}

/// What a canary and the stable revision showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The canary, from its beginning to the look at which it was judged.
    pub canary: Showing,
    /// The stable revision, in the same time.
    pub stable: Showing,
    /// Why it ended as it did, in a sentence.
    pub reason: String,
}

/// What follows from how a canary did, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It is too early to say, of what.
    Wait(String),
    /// It did no worse.
    Promote(String),
    /// It did worse in this.
    RollBack(String),
}

/// Jobs of either revision from which on there is something to compare.
const ENOUGH: usize = 5;
/// The last look is at so many times the jobs asked for.
const LAST: usize = 16;
/// Most that can be asked for: a rule that needs more would be met in months.
const MOST_JOBS: u32 = 1000;

impl Judge {
    /// Jobs of a canary that are ever looked at.
    pub fn most_jobs(&self) -> u32 {
        u32::try_from(self.wanted() * LAST).unwrap_or(u32::MAX)
    }

    fn wanted(&self) -> usize {
        self.jobs.clamp(1, MOST_JOBS) as usize
    }

    /// Numbers of jobs at which a canary is looked at.
    fn looks(&self) -> Vec<usize> {
        let (wanted, least) = (self.wanted(), ENOUGH.min(self.wanted()));
        let halves = std::iter::successors(Some(wanted), |jobs| Some(jobs / 2));
        let mut looks: Vec<usize> = halves.take_while(|jobs| *jobs >= least && *jobs > 0).collect();
        looks.reverse();
        looks.extend((1..=LAST.ilog2()).map(|doubled| wanted << doubled));
        looks
    }

    /// What is said before the first look.
    pub fn too_early(&self) -> Judgement {
        let first = self.looks().first().copied().unwrap_or(1);
        Judgement::Wait(format!("the canary is looked at after {first} jobs"))
    }

    /// The latest look at a canary that its jobs, in the order of their ends, are enough for.
    pub fn look(&self, canary: &[Shown]) -> Option<Look> {
        let counted: Vec<Shown> = canary
            .iter()
            .copied()
            .filter(|job| job.showing.jobs > 0)
            .collect();
        let looks = self.looks();
        let reached = looks.iter().rposition(|jobs| *jobs <= counted.len())?;
        let jobs = looks.get(reached).copied()?;
        let next = looks.get(reached + 1).copied();
        Some(Look {
            judge: *self,
            // The last one is repeated, with all there is, until it has the company it needs.
            canary: match next {
                Some(_) => counted.into_iter().take(jobs).collect(),
                None => counted,
            },
            last: next.is_none(),
            next: next.unwrap_or(jobs),
        })
    }

    /// Whether its figures can be meant.
    pub fn check(&self) -> Result<(), String> {
        let shares = [
            ("slower", self.slower),
            ("failures", self.failures),
            ("timeouts", self.timeouts),
            ("traps", self.traps),
            ("skipped", self.skipped),
        ];
        for (name, share) in shares {
            if !(0.0..=10.0).contains(&share) {
                return Err(format!("judge.{name} is {share}, not within 0 to 10"));
            }
        }
        if !(1..=MOST_JOBS).contains(&self.jobs) {
            return Err(format!(
                "judge.jobs is {}, not within 1 to {MOST_JOBS}",
                self.jobs
            ));
        }
        Ok(())
    }
}

/// All that jobs showed.
pub fn sum(jobs: &[Shown]) -> Showing {
    jobs.iter()
        .fold(Showing::default(), |all, job| all.and(job.showing))
}
