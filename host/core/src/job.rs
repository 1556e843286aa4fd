//! How a job stands.

use serde::{Deserialize, Serialize};

/// A job's life: `queued → running → done │ failed │ cancelled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Waiting for its turn.
    Queued,
    /// In work.
    Running,
    /// Every document ended well.
    Done,
    /// A document failed.
    Failed,
    /// Stopped on request.
    Cancelled,
}

impl JobState {
    /// Whether nothing more happens to the job by itself.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}
