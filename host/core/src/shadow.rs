//! Shadows: revisions whose decisions have no effect.
//!
//! A shadow runs after a job has ended. The job's recorded calls are replayed with the shadow's components, and the
//! decisions are compared with the real ones. So a shadow never delays a job, and it gets exactly the same calls.
//! Components that run beside a job could not get the same calls, because each decision changes the next call.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::id::{JobId, TenantId};
use crate::replay::{DecidedActionCounts, DecisionDifference, ReplayReport};

/// Maximum number of stored comparisons of a pipeline.
pub const MAX_SHADOW_RUNS: u32 = 200;
/// Maximum number of stored differences of a comparison.
pub const MAX_DIFFERENCES_PER_RUN: usize = 5;
/// Maximum number of differences in the totals.
const MAX_EXAMPLES: usize = 20;

/// A revision that runs as a shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowRevision {
    /// The revision.
    pub revision: u32,
    /// Start, in milliseconds since 1970.
    pub since_millis: u64,
}

/// The comparison of one job with a shadow.
#[derive(Debug, Clone, PartialEq)]
pub struct ShadowRun {
    /// The tenant that owns the job.
    pub tenant: TenantId,
    /// The pipeline.
    pub pipeline: String,
    /// Revision of the shadow.
    pub revision: u32,
    /// The job.
    pub job: JobId,
    /// Time of the comparison, in milliseconds since 1970.
    pub compared_at_millis: u64,
    /// The comparison; `Err` says why the job could not be replayed.
    pub report: Result<ReplayReport, String>,
}

/// Totals of a shadow over all compared jobs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShadowTotals {
    /// Number of compared jobs.
    pub compared_jobs: u64,
    /// Jobs with at least one different decision.
    pub differing_jobs: u64,
    /// Number of compared decisions.
    pub decisions: u64,
    /// Decisions that differ.
    pub differing_decisions: u64,
    /// Calls to capabilities that the recordings have no response for, because the jobs did not make them.
    pub missing_capability_responses: u64,
    /// Totals of the real decisions.
    pub recorded_totals: DecidedActionCounts,
    /// Totals of the shadow's decisions.
    pub shadow_totals: DecidedActionCounts,
    /// The latest differences with their jobs.
    pub examples: Vec<(JobId, DecisionDifference)>,
    /// Jobs that could not be replayed.
    pub failed_comparisons: u64,
    /// Why the latest of them could not be replayed.
    pub latest_failure: Option<String>,
}

impl ShadowTotals {
    /// Computes the totals of these comparisons, which are in the order newest first.
    pub fn sum_shadow_runs(runs: impl IntoIterator<Item = ShadowRun>) -> Self {
        let mut all = Self::default();
        for run in runs {
            match run.report {
                Ok(report) => all.add_report(run.job, report),
                Err(reason) => {
                    all.failed_comparisons += 1;
                    all.latest_failure.get_or_insert(reason);
                }
            }
        }
        all
    }

    fn add_report(&mut self, job: JobId, report: ReplayReport) {
        self.compared_jobs += 1;
        self.differing_jobs += u64::from(report.differing > 0);
        self.decisions += report.decisions;
        self.differing_decisions += report.differing;
        self.missing_capability_responses += report.missing_capability_responses;
        self.recorded_totals = self.recorded_totals.sum_with_totals(report.before);
        self.shadow_totals = self.shadow_totals.sum_with_totals(report.after);
        let remaining = MAX_EXAMPLES.saturating_sub(self.examples.len());
        let differences = report.differences.into_iter().take(remaining);
        self.examples
            .extend(differences.map(|difference| (job, difference)));
    }
}

/// Stores comparisons with shadows. Every call concerns one tenant.
#[async_trait]
pub trait ShadowStore: Send + Sync {
    /// Stores a comparison and replaces an earlier one of the job with this pipeline. A pipeline keeps the comparisons
    /// of its newest [`MAX_SHADOW_RUNS`] jobs. When a document is erased from the ledger, the comparisons of its jobs
    /// are removed, and later ones of these jobs are not stored.
    async fn put_shadow_run(&self, run: &ShadowRun) -> Result<(), StorageError>;

    /// Returns the comparisons with a revision that were made at this time or later, in descending order of the jobs'
    /// ids, that is, newest job first.
    async fn list_shadow_runs(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        revision: u32,
        since_millis: u64,
    ) -> Result<Vec<ShadowRun>, StorageError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_run(differing: u64) -> ShadowRun {
        let difference = |n: u64| DecisionDifference {
            function: "routing.page".into(),
            subject: format!("page {n}"),
            before: "a".into(),
            after: "b".into(),
        };
        let effect = |ocr| DecidedActionCounts {
            ocr,
            ..DecidedActionCounts::default()
        };
        ShadowRun {
            tenant: TenantId::default_tenant(),
            pipeline: "ours".into(),
            revision: 2,
            job: JobId::new(),
            compared_at_millis: 1,
            report: Ok(ReplayReport {
                decisions: 10,
                differing,
                differences: (0..differing).map(difference).collect(),
                missing_capability_responses: 1,
                before: effect(3),
                after: effect(4),
                incomplete_reason: None,
            }),
        }
    }

    #[test]
    fn shadow_totals_sum_all_comparisons() {
        let mut failed = make_run(0);
        failed.report = Err("not recorded".into());
        let latest = make_run(2);
        let job = latest.job;
        let totals = ShadowTotals::sum_shadow_runs([latest, make_run(0), failed, make_run(30)]);
        assert_eq!(
            (
                totals.compared_jobs,
                totals.differing_jobs,
                totals.failed_comparisons
            ),
            (3, 2, 1)
        );
        assert_eq!(
            (
                totals.decisions,
                totals.differing_decisions,
                totals.missing_capability_responses
            ),
            (30, 32, 3)
        );
        assert_eq!((totals.recorded_totals.ocr, totals.shadow_totals.ocr), (9, 12));
        assert_eq!((totals.examples.len(), totals.examples[0].0), (20, job));
        assert_eq!(totals.latest_failure.as_deref(), Some("not recorded"));
    }
}
