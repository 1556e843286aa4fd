//! One evaluation of a canary: the two statistical tests for each of the compared metrics.

use super::config::{CanaryAnalysisConfig, MIN_COMPARABLE_JOBS};
use super::job_metrics::{JobMetrics, JobSample, sum_job_metrics};
use super::statistics::{
    EventAndTrialCounts, binomial_upper_tail_p_value, fisher_exact_p_value, hodges_lehmann_shift,
    mann_whitney_z, normal_upper_tail, rate_difference_upper_bound, subtract_block_medians,
};

/// A compared rate: its description, its maximum increase, and its two counts (events and trials).
type ComparedRate = (&'static str, f64, fn(&JobMetrics) -> (u64, u64));
/// Maximum jobs of the stable revision for each job of the canary: the ratio beside a canary of 10 %.
const STABLE_JOBS_PER_CANARY_JOB: usize = 9;
/// Probability that a canary as good as the stable revision is rolled back during its whole trial.
const FALSE_ROLLBACK_RISK: f64 = 0.05;
/// Number of compared metrics, among which the risk is divided.
const COMPARED_METRICS: f64 = 5.0;
/// The 90 % quantile of the standard normal distribution: a canary above a limit passes one evaluation with a
/// probability of at most 10 %.
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

/// The input of one evaluation: the canary's jobs that it uses, and its position among the evaluations.
#[derive(Debug, Clone)]
pub struct DueCanaryEvaluation {
    config: CanaryAnalysisConfig,
    canary_jobs: Vec<JobSample>,
    is_last: bool,
    /// Number of canary jobs at the next evaluation.
    next_evaluation_jobs: usize,
}

impl CanaryAnalysisConfig {
    /// Returns the action while no evaluation is due: to wait, with the number of jobs at the first one.
    pub fn wait_action_before_first_evaluation(&self) -> CanaryAction {
        let first = self.evaluation_job_counts().first().copied().unwrap_or(1);
        CanaryAction::Wait(format!(
            "the first evaluation of the canary is after {first} jobs"
        ))
    }

    /// Returns the latest evaluation that is due after these jobs of the canary; `None` before the first. The jobs
    /// are in the order in which they ended.
    pub fn select_latest_due_evaluation(&self, canary: &[JobSample]) -> Option<DueCanaryEvaluation> {
        let counted: Vec<JobSample> = canary
            .iter()
            .copied()
            .filter(|job| job.metrics.jobs > 0)
            .collect();
        let evaluation_job_counts = self.evaluation_job_counts();
        let reached = evaluation_job_counts
            .iter()
            .rposition(|jobs| *jobs <= counted.len())?;
        let jobs = evaluation_job_counts.get(reached).copied()?;
        let next = evaluation_job_counts.get(reached + 1).copied();
        Some(DueCanaryEvaluation {
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
enum MetricComparisonResult {
    Worse(String),
    WithinLimit,
    /// The observation, and whether it exceeds the limit.
    Inconclusive {
        finding: String,
        exceeds_limit: bool,
    },
}

impl DueCanaryEvaluation {
    /// Returns when the last of the canary's jobs ended, in milliseconds since 1970. Jobs of the stable revision
    /// count up to then.
    pub fn last_job_ended_at_millis(&self) -> u64 {
        self.canary_jobs.last().map_or(0, |job| job.ended_at_millis)
    }

    /// Returns the maximum number of jobs of the stable revision that the evaluation uses. The caller spreads them
    /// evenly over the time until the canary's last job.
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
        let results: Vec<MetricComparisonResult> =
            match stable.len() < MIN_COMPARABLE_JOBS.min(config.min_jobs_before_promotion()) {
                true => self
                    .compared_rate_definitions()
                    .map(|rate| self.check_rate_without_stable(rate))
                    .collect(),
                false => {
                    let page_duration = std::iter::once(self.compare_page_duration(&stable));
                    self.compared_rate_definitions()
                        .map(|rate| self.compare_rate_with_stable(rate, &stable))
                        .chain(page_duration)
                        .collect()
                }
            };
        let (mut inconclusive, mut over_limit) = (Vec::new(), None);
        for result in results {
            match result {
                MetricComparisonResult::Worse(reason) => return CanaryAction::RollBack(reason),
                MetricComparisonResult::WithinLimit => {}
                MetricComparisonResult::Inconclusive {
                    finding: observation,
                    exceeds_limit,
                } => {
                    if exceeds_limit && over_limit.is_none() {
                        over_limit = Some(observation.clone());
                    }
                    inconclusive.push(observation);
                }
            }
        }
        let (new, old) = (self.canary_jobs.len(), stable.len());
        if old < MIN_COMPARABLE_JOBS.min(config.min_jobs_before_promotion()) {
            return CanaryAction::Wait(format!(
                "{old} jobs of the stable revision are too few to compare with {new} jobs of the canary"
            ));
        }
        if self.is_last {
            return match over_limit {
                Some(observation) => {
                    CanaryAction::RollBack(format!("{observation}, at the last evaluation after {new} jobs"))
                }
                None => CanaryAction::Promote(format_promotion_reason(new, old)),
            };
        }
        if new < config.min_jobs_before_promotion() {
            return CanaryAction::Wait(format!(
                "the next evaluation of the canary is after {} jobs",
                self.next_evaluation_jobs
            ));
        }
        match inconclusive.into_iter().next() {
            None => CanaryAction::Promote(format_promotion_reason(new, old)),
            Some(observation) => CanaryAction::Wait(format!(
                "{observation}; {new} jobs are not conclusive: the next evaluation is after {}",
                self.next_evaluation_jobs
            )),
        }
    }

    fn compared_rate_definitions(&self) -> impl Iterator<Item = ComparedRate> {
        let config = &self.config;
        let rates: [ComparedRate; 4] = [
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
        rates.into_iter()
    }

    /// Returns the accepted probability that one comparison of one evaluation rolls back by chance.
    fn false_rollback_risk_per_comparison(&self) -> f64 {
        FALSE_ROLLBACK_RISK / COMPARED_METRICS / self.config.evaluation_job_counts().len() as f64
    }

    fn compare_rate_with_stable(
        &self,
        (description, allowed, counts_of): ComparedRate,
        stable: &[JobSample],
    ) -> MetricComparisonResult {
        let count = |jobs: &[JobSample]| {
            EventAndTrialCounts::from_jobs_with_design_effect(jobs.iter().map(|job| counts_of(&job.metrics)))
        };
        let (new, old) = (count(&self.canary_jobs), count(stable));
        let increase = new.event_rate() - old.event_rate();
        let observation = format!(
            "{description}: {:.1} % compared to {:.1} % of the stable revision, the limit is {:.1} points more",
            new.event_rate() * 100.0,
            old.event_rate() * 100.0,
            allowed * 100.0
        );
        if increase > allowed && fisher_exact_p_value(new, old) < self.false_rollback_risk_per_comparison() {
            MetricComparisonResult::Worse(observation)
        } else if rate_difference_upper_bound(new, old, PROMOTION_Z) < allowed {
            MetricComparisonResult::WithinLimit
        } else {
            MetricComparisonResult::Inconclusive {
                finding: observation,
                exceeds_limit: increase > allowed,
            }
        }
    }

    /// Tests the rate against the limit itself, as if the stable revision had no such events. Used while the stable
    /// revision has too few jobs.
    fn check_rate_without_stable(
        &self,
        (description, allowed, counts_of): ComparedRate,
    ) -> MetricComparisonResult {
        let new = EventAndTrialCounts::from_jobs_with_design_effect(
            self.canary_jobs.iter().map(|job| counts_of(&job.metrics)),
        );
        let observation = format!(
            "{description}: {:.1} %, the limit is {:.1} %",
            new.event_rate() * 100.0,
            allowed * 100.0
        );
        if binomial_upper_tail_p_value(new, allowed) < self.false_rollback_risk_per_comparison() {
            MetricComparisonResult::Worse(observation)
        } else {
            MetricComparisonResult::Inconclusive {
                finding: observation,
                exceeds_limit: false,
            }
        }
    }

    fn compare_page_duration(&self, stable: &[JobSample]) -> MetricComparisonResult {
        let (new, old) = subtract_block_medians(
            ln_millis_per_page_of_jobs(&self.canary_jobs),
            ln_millis_per_page_of_jobs(stable),
        );
        let Some(increase) = hodges_lehmann_shift(&new, &old) else {
            return MetricComparisonResult::Inconclusive {
                finding: "no job processed a page".into(),
                exceeds_limit: false,
            };
        };
        let allowed = self.config.max_slowdown.ln_1p();
        let chance = normal_upper_tail(mann_whitney_z(&new, &old));
        let observation = format!(
            "a page takes {:+.1} % compared to the stable revision ({} and {} jobs, p = {}), the limit is {:.0} % more",
            increase.exp_m1() * 100.0,
            new.len(),
            old.len(),
            format_fraction_as_permille(chance),
            self.config.max_slowdown * 100.0
        );
        let shifted: Vec<f64> = new.iter().map(|log_duration| log_duration - allowed).collect();
        if increase > allowed && chance < self.false_rollback_risk_per_comparison() {
            MetricComparisonResult::Worse(observation)
        } else if mann_whitney_z(&shifted, &old) < -PROMOTION_Z {
            MetricComparisonResult::WithinLimit
        } else {
            MetricComparisonResult::Inconclusive {
                finding: observation,
                exceeds_limit: increase > allowed,
            }
        }
    }
}

/// Returns when each job ended and the logarithm of its milliseconds per page.
fn ln_millis_per_page_of_jobs(jobs: &[JobSample]) -> Vec<(u64, f64)> {
    let timed = jobs
        .iter()
        .filter(|job| job.metrics.millis > 0 && job.metrics.pages > 0);
    timed
        .map(|job| {
            let millis_per_page = job.metrics.millis as f64 / job.metrics.pages as f64;
            (job.ended_at_millis, millis_per_page.ln())
        })
        .collect()
}

fn format_promotion_reason(new: usize, old: usize) -> String {
    format!("after {new} jobs and {old} of the stable revision nothing was worse than its limit")
}

fn format_fraction_as_permille(chance: f64) -> String {
    match chance * 1000.0 {
        few if few < 0.1 => "less than 0.1 ‰".into(),
        some => format!("{some:.1} ‰"),
    }
}
