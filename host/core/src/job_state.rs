//! The state of a job.

use serde::{Deserialize, Serialize};

/// State of a job: `queued → running → done │ failed │ cancelled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Waiting to be started.
    Queued,
    /// Being processed.
    Running,
    /// All documents are done.
    Done,
    /// At least one document failed.
    Failed,
    /// Cancelled on request.
    Cancelled,
}

impl JobState {
    /// Returns whether the job has ended and cannot change its state by itself.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}
