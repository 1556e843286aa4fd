//! One evaluation of a canary: the two statistical tests for each of the compared metrics.

use super::config::{CanaryAnalysisConfig, MIN_COMPARABLE_JOBS};
use super::job_metrics::{JobMetrics, JobSample, sum_job_metrics};
use super::statistics::{
    EventCount, binomial_p_value, fisher_exact_p_value, hodges_lehmann_shift, mann_whitney_z,
    normal_upper_tail, rate_difference_upper_bound, subtract_block_medians,
};

/// A compared rate: its description, its maximum increase, and its two counts (events and trials).
type RateComparison = (&'static str, f64, fn(&JobMetrics) -> (u64, u64));
/// Maximum jobs of the stable revision for each job of the canary: the ratio beside a canary of 10 %.
const STABLE_JOBS_PER_CANARY_JOB: usize = 9;
/// Probability that a canary as good as the stable revision is rolled back during its whole trial.
const FALSE_ROLLBACK_RISK: f64 = 0.05;
/// Number of compared metrics, among which the risk is divided.
const COMPARED_METRICS: f64 = 5.0;
/// Standard deviations with a tenth of a normal distribution above: the probability that a canary above a limit
/// passes one evaluation.
const PROMOTION_Z: f64 = 1.281_552;

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

/// The canary's jobs that one evaluation uses.
#[derive(Debug, Clone)]
pub struct CanaryEvaluation {
    config: CanaryAnalysisConfig,
    canary_jobs: Vec<JobSample>,
    is_last: bool,
    /// Number of canary jobs at the next evaluation.
    next_evaluation_jobs: usize,
}

impl CanaryAnalysisConfig {
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
}

/// Result of comparing one metric.
enum ComparisonResult {
    Worse(String),
    WithinLimit,
    /// The observation, and whether it exceeds the limit.
    Inconclusive {
        finding: String,
        exceeds_limit: bool,
    },
}

impl CanaryEvaluation {
    /// Returns when the last of the canary's jobs ended, in milliseconds since 1970. Jobs of the stable revision
    /// count up to then.
    pub fn last_job_ended_at_millis(&self) -> u64 {
        self.canary_jobs.last().map_or(0, |job| job.ended_at_millis)
    }

    /// Returns how many jobs of the stable revision the evaluation uses at most. They are spread evenly over that
    /// time.
    pub fn max_stable_jobs(&self) -> u32 {
        u32::try_from(self.canary_jobs.len() * STABLE_JOBS_PER_CANARY_JOB).unwrap_or(u32::MAX)
    }

    /// Returns the metrics of the canary's jobs.
    pub fn canary_metrics(&self) -> JobMetrics {
        sum_job_metrics(&self.canary_jobs)
    }

    /// Compares the canary with the jobs of the stable revision in the same time.
    pub fn decide_canary_action(&self, stable: &[JobSample]) -> CanaryAction {
        let config = &self.config;
        let stable: Vec<JobSample> = stable
            .iter()
            .copied()
            .filter(|job| job.metrics.jobs > 0)
            .collect();
        let answers: Vec<ComparisonResult> =
            match stable.len() < MIN_COMPARABLE_JOBS.min(config.required_jobs()) {
                true => self
                    .rate_comparisons()
                    .map(|share| self.check_rate_without_stable(share))
                    .collect(),
                false => {
                    let pace = std::iter::once(self.compare_page_duration(&stable));
                    self.rate_comparisons()
                        .map(|share| self.compare_rate_with_stable(share, &stable))
                        .chain(pace)
                        .collect()
                }
            };
        let (mut open, mut beyond) = (Vec::new(), None);
        for answer in answers {
            match answer {
                ComparisonResult::Worse(reason) => return CanaryAction::RollBack(reason),
                ComparisonResult::WithinLimit => {}
                ComparisonResult::Inconclusive {
                    finding: seen,
                    exceeds_limit: more,
                } => {
                    if more && beyond.is_none() {
                        beyond = Some(seen.clone());
                    }
                    open.push(seen);
                }
            }
        }
        let (new, old) = (self.canary_jobs.len(), stable.len());
        if old < MIN_COMPARABLE_JOBS.min(config.required_jobs()) {
            return CanaryAction::Wait(format!(
                "{old} jobs of the stable revision are too few to compare with {new} jobs of the canary"
            ));
        }
        if self.is_last {
            return match beyond {
                Some(seen) => {
                    CanaryAction::RollBack(format!("{seen}, at the last evaluation after {new} jobs"))
                }
                None => CanaryAction::Promote(format_promotion_reason(new, old)),
            };
        }
        if new < config.required_jobs() {
            return CanaryAction::Wait(format!(
                "the next evaluation of the canary is after {} jobs",
                self.next_evaluation_jobs
            ));
        }
        match open.into_iter().next() {
            None => CanaryAction::Promote(format_promotion_reason(new, old)),
            Some(seen) => CanaryAction::Wait(format!(
                "{seen}; {new} jobs are not conclusive: the next evaluation is after {}",
                self.next_evaluation_jobs
            )),
        }
    }

    fn rate_comparisons(&self) -> impl Iterator<Item = RateComparison> {
        let config = &self.config;
        let shares: [RateComparison; 4] = [
            ("jobs fail", config.max_failure_increase, |s| {
                (s.failed_jobs, s.jobs)
            }),
            ("calls exceed their timeout", config.max_timeout_increase, |s| {
                (s.timeouts, s.calls)
            }),
            ("traps for a page", config.max_trap_increase, |s| {
                (s.traps, s.pages)
            }),
            ("pages are skipped or fail", config.max_skipped_increase, |s| {
                (s.failed_pages, s.pages)
            }),
        ];
        shares.into_iter()
    }

    /// Returns the accepted probability that one comparison of one evaluation rolls back by chance.
    fn risk_per_comparison(&self) -> f64 {
        FALSE_ROLLBACK_RISK / COMPARED_METRICS / self.config.evaluation_job_counts().len() as f64
    }

    fn compare_rate_with_stable(
        &self,
        (what, allowed, of): RateComparison,
        stable: &[JobSample],
    ) -> ComparisonResult {
        let count = |jobs: &[JobSample]| EventCount::from_jobs(jobs.iter().map(|job| of(&job.metrics)));
        let (new, old) = (count(&self.canary_jobs), count(stable));
        let more = new.event_rate() - old.event_rate();
        let seen = format!(
            "{what}: {:.1} % compared to {:.1} % of the stable revision, the limit is {:.1} points more",
            new.event_rate() * 100.0,
            old.event_rate() * 100.0,
            allowed * 100.0
        );
        if more > allowed && fisher_exact_p_value(new, old) < self.risk_per_comparison() {
            ComparisonResult::Worse(seen)
        } else if rate_difference_upper_bound(new, old, PROMOTION_Z) < allowed {
            ComparisonResult::WithinLimit
        } else {
            ComparisonResult::Inconclusive {
                finding: seen,
                exceeds_limit: more > allowed,
            }
        }
    }

    /// Without enough jobs of the stable revision, compares with a revision that has no failures.
    fn check_rate_without_stable(&self, (what, allowed, of): RateComparison) -> ComparisonResult {
        let new = EventCount::from_jobs(self.canary_jobs.iter().map(|job| of(&job.metrics)));
        let seen = format!(
            "{what}: {:.1} %, the limit is {:.1} %",
            new.event_rate() * 100.0,
            allowed * 100.0
        );
        if binomial_p_value(new, allowed) < self.risk_per_comparison() {
            ComparisonResult::Worse(seen)
        } else {
            ComparisonResult::Inconclusive {
                finding: seen,
                exceeds_limit: false,
            }
        }
    }

    fn compare_page_duration(&self, stable: &[JobSample]) -> ComparisonResult {
        let (new, old) =
            subtract_block_medians(log_page_durations(&self.canary_jobs), log_page_durations(stable));
        let Some(more) = hodges_lehmann_shift(&new, &old) else {
            return ComparisonResult::Inconclusive {
                finding: "no job processed a page".into(),
                exceeds_limit: false,
            };
        };
        let allowed = self.config.max_slowdown.ln_1p();
        let chance = normal_upper_tail(mann_whitney_z(&new, &old));
        let seen = format!(
            "a page takes {:+.1} % compared to the stable revision ({} and {} jobs, p = {}), the limit is {:.0} % more",
            more.exp_m1() * 100.0,
            new.len(),
            old.len(),
            format_permille(chance),
            self.config.max_slowdown * 100.0
        );
        let quickened: Vec<f64> = new.iter().map(|pace| pace - allowed).collect();
        if more > allowed && chance < self.risk_per_comparison() {
            ComparisonResult::Worse(seen)
        } else if mann_whitney_z(&quickened, &old) < -PROMOTION_Z {
            ComparisonResult::WithinLimit
        } else {
            ComparisonResult::Inconclusive {
                finding: seen,
                exceeds_limit: more > allowed,
            }
        }
    }
}

/// Returns when each job ended and the logarithm of its milliseconds per page.
fn log_page_durations(jobs: &[JobSample]) -> Vec<(u64, f64)> {
    let timed = jobs
        .iter()
        .filter(|job| job.metrics.millis > 0 && job.metrics.pages > 0);
    timed
        .map(|job| {
            let pace = job.metrics.millis as f64 / job.metrics.pages as f64;
            (job.ended_at_millis, pace.ln())
        })
        .collect()
}

fn format_promotion_reason(new: usize, old: usize) -> String {
    format!("after {new} jobs and {old} of the stable revision nothing was worse than its limit")
}

fn format_permille(chance: f64) -> String {
    match chance * 1000.0 {
        few if few < 0.1 => "less than 0.1 ‰".into(),
        some => format!("{some:.1} ‰"),
    }
}
