//! Jobs after they were accepted: their progress and diagnosis, and their cancellation and retry.

mod cancel_and_retry;
mod diagnosis;
mod lookup_and_diagnosis;
mod progress;
mod progress_cache;

pub use cancel_and_retry::{
    CancelJobError, JobCancelOutcome, RetryJobError, cancel_job, retry_job_as_new_job,
};
pub use diagnosis::{BottleneckDiagnosis, StageEvidence};
pub use lookup_and_diagnosis::{diagnose_job_bottleneck, find_job_and_request};
pub use progress::{
    ComponentProgressUpdate, DocumentProgress, DocumentState, JobProgress, QueueSampleCounts,
};
pub use progress_cache::{JobWithProgress, ProgressCache};
