//! What has become of a job and of its documents.

use weir_core::event::{ErrorNote, FailedPage};
use weir_core::ledger::JobState;
use weir_core::ports::PolicyTally;
use weir_core::usage::QuotaExhausted;
use weir_core::{DocumentId, JobId};

/// What has become of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobOutcome {
    /// The job.
    pub id: JobId,
    /// `Done`, `Failed` or `Cancelled`; `Running` if it was suspended or is held by a quota, or dropped with its engine: the ledger has it as one in
    /// work, and started again under its id it goes on.
    pub state: JobState,
    /// Why the job as a whole failed or stopped, if it was not for a document.
    pub error: Option<ErrorNote>,
    /// The quota that the job is held by: started again under its id once that allows more, it goes on.
    pub held: Option<QuotaExhausted>,
    /// What became of each document, in the order they were given.
    pub documents: Vec<DocumentOutcome>,
    /// How its components did.
    pub policy: PolicyTally,
}

/// What became of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentOutcome {
    /// Its name.
    pub name: String,
    /// Its id, if its file could be read.
    pub document: Option<DocumentId>,
    /// How it ended.
    pub end: DocumentEnd,
}

/// How a document ended.
#[derive(Debug, Clone, PartialEq)]
pub enum DocumentEnd {
    /// Every page asked for has ended in a state.
    Done {
        /// Pages asked for.
        pages: u32,
        /// Pages a search can find.
        searchable: u32,
        /// Pages an earlier job had already done.
        skipped: u32,
        /// Pages that failed, in order.
        failed: Vec<FailedPage>,
    },
    /// It could not be done.
    Failed {
        /// Why.
        error: ErrorNote,
        /// Pages done before, by this job or an earlier one.
        done: u32,
    },
    /// The job was cancelled.
    Cancelled {
        /// Pages done before, by this job or an earlier one.
        done: u32,
    },
    /// It has not ended: the job was suspended, or is held by a quota.
    Suspended {
        /// Pages done before, by this job or an earlier one.
        done: u32,
    },
}
