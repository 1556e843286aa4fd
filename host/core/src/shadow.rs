//! Revisions that decide beside the real ones, without effect.
//!
//! A shadow is asked after a job has ended: the job's recorded questions are put to it, and its answers are compared with
//! those that counted. So it costs the job nothing, whatever it does, and it is asked exactly what the real one was asked,
//! which a second set of components beside a running job could not be: each decision changes what the next question is.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::id::{JobId, TenantId};
use crate::replay::{Difference, Effect, ReplayReport};

/// Comparisons that a pipeline keeps: those of its last jobs.
pub const SHADOW_RUNS: u32 = 200;
/// Differences that are kept of each.
pub const DIFFERENCES: usize = 5;
/// Differences that are told of all.
const EXAMPLES: usize = 20;

/// A revision that decides without effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    /// Which.
    pub revision: u32,
    /// Since when, in milliseconds since 1970.
    pub since_millis: u64,
}

/// What a shadow would have decided in a job.
#[derive(Debug, Clone, PartialEq)]
pub struct ShadowRun {
    /// Whose job it was.
    pub tenant: TenantId,
    /// The pipeline.
    pub pipeline: String,
    /// The shadow.
    pub revision: u32,
    /// The job.
    pub job: JobId,
    /// When it was compared, in milliseconds since 1970.
    pub at_millis: u64,
    /// What came of it; `Err` says why the job's decisions could not be had again.
    pub report: Result<ReplayReport, String>,
}

/// What a shadow would have decided in all jobs since it began.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShadowShowing {
    /// Jobs compared.
    pub jobs: u64,
    /// Those in which a decision came out otherwise.
    pub differing_jobs: u64,
    /// Decisions compared.
    pub decisions: u64,
    /// Those that came out otherwise.
    pub differing: u64,
    /// Questions to capabilities that the real revision had not asked, and that therefore had no answer.
    pub missed: u64,
    /// What the real decisions came to.
    pub before: Effect,
    /// What the shadow's would have come to.
    pub after: Effect,
    /// The latest of those that came out otherwise, each with its job.
    pub examples: Vec<(JobId, Difference)>,
    /// Jobs whose decisions could not be had again.
    pub uncompared: u64,
    /// Why the latest of them could not.
    pub reason: Option<String>,
}

impl ShadowShowing {
    /// What these show, the latest first.
    pub fn of(runs: impl IntoIterator<Item = ShadowRun>) -> Self {
        let mut all = Self::default();
        for run in runs {
            match run.report {
                Ok(report) => all.add(run.job, report),
                Err(reason) => {
                    all.uncompared += 1;
                    all.reason.get_or_insert(reason);
                }
            }
        }
        all
    }

    fn add(&mut self, job: JobId, report: ReplayReport) {
        self.jobs += 1;
        self.differing_jobs += u64::from(report.differing > 0);
        self.decisions += report.decisions;
        self.differing += report.differing;
        self.missed += report.missed;
        self.before = self.before.and(report.before);
        self.after = self.after.and(report.after);
        let room = EXAMPLES.saturating_sub(self.examples.len());
        let differences = report.differences.into_iter().take(room);
        self.examples
            .extend(differences.map(|difference| (job, difference)));
    }
}

/// Keeps what shadows would have decided. Every call is a tenant's own.
#[async_trait]
pub trait ShadowBook: Send + Sync {
    /// Writes down a comparison, unless a document of the job has been removed. The oldest beyond [`SHADOW_RUNS`] of the pipeline are forgotten.
    async fn put_shadow_run(&self, run: &ShadowRun) -> Result<(), StorageError>;

    /// Comparisons with a revision since then, the latest first.
    async fn shadow_runs(
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

    fn run(differing: u64) -> ShadowRun {
        let difference = |n: u64| Difference {
            function: "routing.page".into(),
            about: format!("page {n}"),
            before: "a".into(),
            after: "b".into(),
        };
        let effect = |ocr| Effect {
            ocr,
            ..Effect::default()
        };
        ShadowRun {
            tenant: TenantId::single(),
            pipeline: "ours".into(),
            revision: 2,
            job: JobId::new(),
            at_millis: 1,
            report: Ok(ReplayReport {
                decisions: 10,
                differing,
                differences: (0..differing).map(difference).collect(),
                missed: 1,
                before: effect(3),
                after: effect(4),
                incomplete: None,
            }),
        }
    }

    #[test]
    fn comparisons_add_up() {
        let mut failed = run(0);
        failed.report = Err("not recorded".into());
        let latest = run(2);
        let job = latest.job;
        let showing = ShadowShowing::of([latest, run(0), failed, run(30)]);
        assert_eq!(
            (showing.jobs, showing.differing_jobs, showing.uncompared),
            (3, 2, 1)
        );
        assert_eq!(
            (showing.decisions, showing.differing, showing.missed),
            (30, 32, 3)
        );
        assert_eq!((showing.before.ocr, showing.after.ocr), (9, 12));
        assert_eq!((showing.examples.len(), showing.examples[0].0), (20, job));
        assert_eq!(showing.reason.as_deref(), Some("not recorded"));
    }
}
