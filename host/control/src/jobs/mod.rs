//! Jobs after they were accepted: their progress and diagnosis, and their cancellation and retry.

mod actions;
mod diagnosis;
mod progress;
mod progress_cache;
mod queries;

pub use actions::{CancelJobError, JobCancelOutcome, RetryJobError, cancel_job, retry_job_as_new_job};
pub use diagnosis::{Diagnosis, StageEvidence};
pub use progress::{ComponentProgressUpdate, DocumentProgress, DocumentState, JobProgress, QueueSamples};
pub use progress_cache::ProgressCache;
pub use queries::{diagnose_job, find_job_and_request};
