//! Replaying the decisions of a job with other components, and the differences.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::{PolicyError, StorageError};
use crate::id::{JobId, TenantId};
use crate::manifest::ResolvedPipeline;

/// Result of replaying the calls of a job with a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// Number of replayed decisions.
    pub decisions: u64,
    /// Number of decisions that differ.
    pub differing: u64,
    /// The first differences.
    pub differences: Vec<DecisionDifference>,
    /// Calls to capabilities that the recording has no response for, because the job did not make them.
    #[serde(rename = "missed")]
    pub missing_capability_responses: u64,
    /// Totals of the recorded decisions.
    pub before: DecidedActionCounts,
    /// Totals of the replayed decisions.
    pub after: DecidedActionCounts,
    /// Why the recording does not have all decisions of the job, if it does not.
    #[serde(rename = "incomplete")]
    pub incomplete_reason: Option<String>,
}

/// A decision that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionDifference {
    /// Role and function, such as `routing.page`.
    pub function: String,
    /// What the decision is about, such as `page 7`.
    #[serde(rename = "about")]
    pub subject: String,
    /// The recorded decision or error.
    pub before: String,
    /// The replayed decision or error.
    pub after: String,
}

/// Totals over a set of decisions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidedActionCounts {
    /// Batches.
    pub batches: u64,
    /// Pages in these batches.
    pub batch_pages: u64,
    /// Pages whose text layer is read.
    pub text_layer: u64,
    /// Pages whose text OCR recognizes.
    pub ocr: u64,
    /// Pages that a vision-language model reads.
    pub vision_model: u64,
    /// Pages that are not read.
    pub not_read: u64,
    /// Searchable passages.
    pub passages: u64,
    /// Requests to a language model for summaries.
    pub model_calls: u64,
    /// Failures after which the page is retried.
    pub retries: u64,
    /// Failures after which the page is skipped or its document fails.
    pub given_up: u64,
    /// Progress updates that users see.
    pub updates: u64,
    /// Failed calls: traps, timeouts and invalid decisions.
    pub errors: u64,
}

impl DecidedActionCounts {
    /// Returns the sum of both.
    pub const fn sum_with_totals(self, other: Self) -> Self {
        Self {
            batches: self.batches + other.batches,
            batch_pages: self.batch_pages + other.batch_pages,
            text_layer: self.text_layer + other.text_layer,
            ocr: self.ocr + other.ocr,
            vision_model: self.vision_model + other.vision_model,
            not_read: self.not_read + other.not_read,
            passages: self.passages + other.passages,
            model_calls: self.model_calls + other.model_calls,
            retries: self.retries + other.retries,
            given_up: self.given_up + other.given_up,
            updates: self.updates + other.updates,
            errors: self.errors + other.errors,
        }
    }
}

/// The decisions of a job cannot be replayed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReplayError {
    /// The job has no recording.
    #[error("the calls of job {0} were not recorded, or the recording was removed")]
    NotRecorded(JobId),
    /// The recording was removed, for this reason.
    #[error("the recording of job {0} was removed: {1}")]
    RecordingRemoved(JobId, String),
    /// The recording cannot be decoded.
    #[error("the recording cannot be read: {0}")]
    Unreadable(String),
    /// The store of recordings cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The components of the pipeline cannot be opened.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Removes recordings.
#[async_trait]
pub trait RecordingRemover: Send + Sync {
    /// Removes the recordings of these jobs, which have ended. Calls that are not written yet are dropped. A job
    /// without a recording is no error.
    async fn remove_job_recordings(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<(), StorageError>;

    /// Removes all recordings of a tenant without running jobs.
    async fn remove_tenant_recordings(&self, tenant: &TenantId) -> Result<(), StorageError>;
}

/// Replays the decisions of jobs from their recordings.
#[async_trait]
pub trait JobReplayer: RecordingRemover {
    /// Replays the recorded calls of a job with a pipeline's components. Capabilities return the recorded responses.
    /// With the job's own pipeline, no decision differs.
    async fn replay_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
        pipeline: &ResolvedPipeline,
    ) -> Result<ReplayReport, ReplayError>;
}
