//! A job's decisions, had again by other components: what would differ.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::{PolicyError, StorageError};
use crate::id::{JobId, TenantId};
use crate::manifest::Pipeline;

/// What came of putting a job's questions to a pipeline again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// Decisions that were had again.
    pub decisions: u64,
    /// Those that came out otherwise.
    pub differing: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
    /// Questions to capabilities that nobody had asked when the job ran, and that therefore had no answer.
    pub missed: u64,
    /// What the decisions came to when the job ran.
    pub before: Effect,
    /// What they come to now.
    pub after: Effect,
    /// Why the recording has not all of the job's decisions, if it has not.
    pub incomplete: Option<String>,
}

/// A decision that came out otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Role and function, such as `routing.page`.
    pub function: String,
    /// What was asked about, such as `page 7`.
    pub about: String,
    /// The answer when the job ran, or the error.
    pub before: String,
    /// The answer now, or the error.
    pub after: String,
}

/// What decisions come to, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Batches, and pages they ask for.
    pub batches: u64,
    /// See `batches`.
    pub batch_pages: u64,
    /// Pages whose text layer is read.
    pub text_layer: u64,
    /// Pages whose text is recognized.
    pub ocr: u64,
    /// Pages read by a vision-language model.
    pub vision_model: u64,
    /// Pages not read.
    pub not_read: u64,
    /// Passages that become searchable.
    pub passages: u64,
    /// Questions to a language model, for summaries.
    pub model_calls: u64,
    /// Failures after which a page is tried again.
    pub retries: u64,
    /// Failures after which a page is skipped or its document fails.
    pub given_up: u64,
    /// Updates that users see.
    pub updates: u64,
    /// Decisions that were not made: traps, deadlines, nonsense.
    pub errors: u64,
}

impl Effect {
    /// Both together.
    pub const fn and(self, other: Self) -> Self {
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

/// A job whose decisions cannot be had again.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReplayError {
    /// There is no recording.
    #[error("the calls of job {0} were not recorded, or are not kept any more")]
    NotRecorded(JobId),
    /// There is none any more, and why.
    #[error("the calls of job {0} are not kept any more: {1}")]
    NotKept(JobId, String),
    /// There is one that cannot be read.
    #[error("the recording cannot be read: {0}")]
    Unreadable(String),
    /// The components that are to decide now cannot be opened.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Has decisions again, from recordings of jobs.
#[async_trait]
pub trait Replays: Send + Sync {
    /// Puts the recorded questions of a job to a pipeline's components, with the answers that capabilities gave when the job
    /// ran. With the pipeline that the job ran nothing differs.
    async fn replay(
        &self,
        tenant: &TenantId,
        job: &JobId,
        pipeline: &Pipeline,
    ) -> Result<ReplayReport, ReplayError>;

    /// Removes the recordings of these jobs, which have ended. What is still on its way to their files is dropped. A job without
    /// a recording is no error.
    async fn remove_recordings(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<(), StorageError>;

    /// Removes all recordings of a tenant, of which no job is in work.
    async fn clear_recordings(&self, tenant: &TenantId) -> Result<(), StorageError>;
}
