//! Canary analysis: compares a canary with the stable revision and decides whether to promote it or roll it back.
//!
//! A canary is rolled back if it is slower, fails more often or exceeds more timeouts than the stable revision, by
//! more than its configuration allows. Each rate is compared with that of the stable revision in the same time. So a
//! cause that affects both (an unavailable model, broken documents) does not count against the canary.
//!
//! Jobs differ in their documents and in the load of the host. The means of twenty jobs vary by more than the tenth
//! that is allowed, so a rule that compares means would roll back good canaries and pass bad ones by chance. The
//! analysis therefore runs two statistical tests for each of the five metrics:
//!
//! - *Is the canary worse?* It is rolled back if the observed increase is more than allowed and is unlikely (one in
//!   twenty, over the whole trial) for a canary as good as the stable revision.
//! - *Is the canary within the limits?* It is promoted if, for each metric, the observed values have a chance of at
//!   most one in ten for a canary that exceeds the limit.
//!
//! The trial continues until one of the tests gives a result. Evaluations happen after 5, 10, 20, 40 … jobs of the
//! canary and not after each job, because testing after each job finds a difference in pure noise sooner or later.
//! The risk of the first test is divided among the evaluations and the metrics (Bonferroni). An evaluation uses the
//! jobs up to its job count, whenever it runs. At the last evaluation, after sixteen times the required jobs, the
//! observed values decide.
//!
//! The time per page is compared by ranks. It is a mixture (scans, text, busy and idle minutes) with a long tail, so
//! means and variances say little. Jobs are assigned to revisions at random, which is the only requirement of a rank
//! test. The influence of the host's load is removed first by subtracting the median of the jobs that ended at the
//! same time. To test "a tenth slower", the times of the canary's jobs are reduced by a tenth. Rates of pages and
//! calls are counted by job, because a problem in a document affects many of its pages.
//! `canary_analysis/statistics.rs` names the methods and their sources.
//!
//! Error rates with the default configuration on simulated jobs (200 trials each of four loads,
//! `canary_analysis/tests.rs`): at most 3 in 100 canaries that equal the stable revision are rolled back, and the
//! others are promoted after 80 to 160 jobs. Of canaries that take 15 % longer for a page, 2 to 9 in 100 are
//! promoted. Of canaries that trap on one page in twenty, at most 2 in 100 are promoted.

mod evaluation;
mod statistics;
#[cfg(test)]
mod tests;

pub use evaluation::CanaryEvaluation;
use serde::{Deserialize, Serialize};

/// Configuration of the analysis of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct CanaryAnalysisConfig {
    /// Whether the host promotes the canary or rolls it back without a person.
    pub automatic: bool,
    /// Ended jobs of the canary that are required before it can be promoted. The analysis uses up to sixteen times as
    /// many if the result is not clear.
    #[serde(alias = "jobs")]
    pub min_jobs: u32,
    /// Maximum increase of the time per page over the stable revision, as a fraction: 0.1 is a tenth.
    #[serde(alias = "slower")]
    pub max_slowdown: f64,
    /// Maximum increase of the fraction of failed jobs over the stable revision.
    #[serde(alias = "failures")]
    pub max_failure_increase: f64,
    /// Maximum increase of the fraction of calls that exceed their timeout over the stable revision.
    #[serde(alias = "timeouts")]
    pub max_timeout_increase: f64,
    /// Maximum increase of the fraction of pages on which a component traps or returns an invalid decision, over the
    /// stable revision.
    #[serde(alias = "traps")]
    pub max_trap_increase: f64,
    /// Maximum increase of the fraction of skipped or failed pages over the stable revision.
    #[serde(alias = "skipped")]
    pub max_skipped_increase: f64,
}

impl Default for CanaryAnalysisConfig {
    /// Uses common limits of rollback rules: a tenth slower, a twentieth more failures, a tenth more timeouts.
    fn default() -> Self {
        Self {
            automatic: true,
            min_jobs: 20,
            max_slowdown: 0.1,
            max_failure_increase: 0.05,
            max_timeout_increase: 0.1,
            max_trap_increase: 0.02,
            max_skipped_increase: 0.02,
        }
    }
}

/// Metrics of jobs that the canary analysis compares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobMetrics {
    /// Jobs that ended.
    pub jobs: u64,
    /// Jobs that failed.
    pub failed_jobs: u64,
    /// Pages done, skipped or failed.
    pub pages: u64,
    /// Pages skipped or failed.
    pub failed_pages: u64,
    /// Component calls.
    pub calls: u64,
    /// Calls that trapped or returned an invalid decision.
    pub traps: u64,
    /// Calls that exceeded their timeout.
    pub timeouts: u64,
    /// Milliseconds from start to end, summed over the jobs that had pages to process.
    pub millis: u64,
}

impl JobMetrics {
    /// Returns the sum of both.
    #[must_use]
    pub const fn merge(self, other: Self) -> Self {
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

/// A job that ended, with its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobSample {
    /// When it ended, in milliseconds since 1970.
    pub ended_at_millis: u64,
    /// Metrics of the job.
    pub metrics: JobMetrics,
}

/// The observed metrics of a canary and of the stable revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanaryEvidence {
    /// The canary, from its start to the evaluation that decided.
    pub canary: JobMetrics,
    /// The stable revision in the same time.
    pub stable: JobMetrics,
    /// Reason of the decision in one sentence.
    pub reason: String,
}

/// The next action for a canary, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanaryAction {
    /// Continue the trial: the data are not sufficient.
    Wait(String),
    /// Promote the canary: no metric is worse than allowed.
    Promote(String),
    /// Roll the canary back: a metric is worse than allowed.
    RollBack(String),
}

/// Minimum number of jobs of each revision for a comparison.
const MIN_COMPARABLE_JOBS: usize = 5;
/// The last evaluation is at this multiple of the required jobs.
const LAST_EVALUATION_FACTOR: usize = 16;
/// Upper limit of the required jobs. More would take months to complete.
const MAX_MIN_JOBS: u32 = 1000;

impl CanaryAnalysisConfig {
    /// Returns the largest number of canary jobs that an evaluation uses.
    pub fn max_evaluated_jobs(&self) -> u32 {
        u32::try_from(self.required_jobs() * LAST_EVALUATION_FACTOR).unwrap_or(u32::MAX)
    }

    fn required_jobs(&self) -> usize {
        self.min_jobs.clamp(1, MAX_MIN_JOBS) as usize
    }

    /// Returns the numbers of canary jobs at which an evaluation happens.
    fn evaluation_job_counts(&self) -> Vec<usize> {
        let (wanted, least) = (
            self.required_jobs(),
            MIN_COMPARABLE_JOBS.min(self.required_jobs()),
        );
        let halves = std::iter::successors(Some(wanted), |jobs| Some(jobs / 2));
        let mut looks: Vec<usize> = halves.take_while(|jobs| *jobs >= least && *jobs > 0).collect();
        looks.reverse();
        looks.extend((1..=LAST_EVALUATION_FACTOR.ilog2()).map(|doubled| wanted << doubled));
        looks
    }

    /// Returns the action before the first evaluation.
    pub fn wait_for_first_evaluation(&self) -> CanaryAction {
        let first = self.evaluation_job_counts().first().copied().unwrap_or(1);
        CanaryAction::Wait(format!(
            "the first evaluation of the canary is after {first} jobs"
        ))
    }

    /// Returns the latest evaluation that the canary's jobs are sufficient for. The jobs are in the order of their
    /// ends.
    pub fn select_evaluation(&self, canary: &[JobSample]) -> Option<CanaryEvaluation> {
        let counted: Vec<JobSample> = canary
            .iter()
            .copied()
            .filter(|job| job.metrics.jobs > 0)
            .collect();
        let looks = self.evaluation_job_counts();
        let reached = looks.iter().rposition(|jobs| *jobs <= counted.len())?;
        let jobs = looks.get(reached).copied()?;
        let next = looks.get(reached + 1).copied();
        Some(CanaryEvaluation {
            config: *self,
            // The last evaluation is repeated with all jobs until the stable revision has enough jobs.
            canary_jobs: match next {
                Some(_) => counted.into_iter().take(jobs).collect(),
                None => counted,
            },
            is_last: next.is_none(),
            next_evaluation_jobs: next.unwrap_or(jobs),
        })
    }

    /// Checks the ranges of the values.
    pub fn validate(&self) -> Result<(), String> {
        let shares = [
            ("max-slowdown", self.max_slowdown),
            ("max-failure-increase", self.max_failure_increase),
            ("max-timeout-increase", self.max_timeout_increase),
            ("max-trap-increase", self.max_trap_increase),
            ("max-skipped-increase", self.max_skipped_increase),
        ];
        for (name, share) in shares {
            if !(0.0..=10.0).contains(&share) {
                return Err(format!("canary-analysis.{name} is {share}, not within 0 to 10"));
            }
        }
        if !(1..=MAX_MIN_JOBS).contains(&self.min_jobs) {
            return Err(format!(
                "canary-analysis.min-jobs is {}, not within 1 to {MAX_MIN_JOBS}",
                self.min_jobs
            ));
        }
        Ok(())
    }
}

/// Returns the sum of the metrics of these jobs.
pub fn sum_job_metrics(jobs: &[JobSample]) -> JobMetrics {
    jobs.iter()
        .fold(JobMetrics::default(), |all, job| all.merge(job.metrics))
}
