//! Configuration of the canary analysis.

use serde::{Deserialize, Serialize};

/// Minimum number of jobs of each revision for a comparison.
pub(super) const MIN_COMPARABLE_JOBS: usize = 5;
/// The last evaluation is at this multiple of the required jobs.
const LAST_EVALUATION_FACTOR: usize = 16;
/// Upper limit of the required jobs. More would take months to complete.
const MAX_MIN_JOBS: u32 = 1000;

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

impl CanaryAnalysisConfig {
    /// Returns the largest number of canary jobs that an evaluation uses.
    pub fn max_evaluated_jobs(&self) -> u32 {
        u32::try_from(self.min_jobs_before_promotion() * LAST_EVALUATION_FACTOR).unwrap_or(u32::MAX)
    }

    pub(super) fn min_jobs_before_promotion(&self) -> usize {
        self.min_jobs.clamp(1, MAX_MIN_JOBS) as usize
    }

    /// Returns the numbers of canary jobs at which an evaluation happens.
    pub(super) fn evaluation_job_counts(&self) -> Vec<usize> {
        let (required_jobs, first_count) = (
            self.min_jobs_before_promotion(),
            MIN_COMPARABLE_JOBS.min(self.min_jobs_before_promotion()),
        );
        let halves = std::iter::successors(Some(required_jobs), |jobs| Some(jobs / 2));
        let mut counts: Vec<usize> = halves
            .take_while(|jobs| *jobs >= first_count && *jobs > 0)
            .collect();
        counts.reverse();
        counts.extend((1..=LAST_EVALUATION_FACTOR.ilog2()).map(|doubled| required_jobs << doubled));
        counts
    }

    /// Checks the ranges of the values.
    pub fn validate(&self) -> Result<(), String> {
        let limits = [
            ("max-slowdown", self.max_slowdown),
            ("max-failure-increase", self.max_failure_increase),
            ("max-timeout-increase", self.max_timeout_increase),
            ("max-trap-increase", self.max_trap_increase),
            ("max-skipped-increase", self.max_skipped_increase),
        ];
        for (name, limit) in limits {
            if !(0.0..=10.0).contains(&limit) {
                return Err(format!("canary-analysis.{name} is {limit}, not within 0 to 10"));
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
