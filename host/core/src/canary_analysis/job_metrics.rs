//! Metrics of jobs, which the canary analysis compares.

use serde::{Deserialize, Serialize};

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

/// Returns the sum of the metrics of these jobs.
pub fn sum_job_metrics(jobs: &[JobSample]) -> JobMetrics {
    jobs.iter()
        .fold(JobMetrics::default(), |all, job| all.merge(job.metrics))
}
