//! The outcome of a job and of its documents.

use weir_core::event::{ErrorInfo, FailedPage};
use weir_core::ledger::JobState;
use weir_core::ports::PolicyCallAndFailureCounts;
use weir_core::usage::QuotaExhaustedError;
use weir_core::{DocumentId, JobId};

/// The outcome of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobOutcome {
    /// The id of the job.
    pub id: JobId,
    /// `Done`, `Failed` or `Cancelled`. `Running` if the job was suspended, is held by a quota, or was dropped with its engine:
    /// it stays in the ledger as running, and starting it again under its id resumes it.
    pub state: JobState,
    /// Why the job as a whole failed or stopped; `None` if only documents failed.
    pub error: Option<ErrorInfo>,
    /// The quota that holds the job. Starting the job again under its id resumes it, once the quota allows more pages.
    pub exhausted_quota: Option<QuotaExhaustedError>,
    /// The outcome of each document, in the order of the job.
    pub documents: Vec<DocumentOutcome>,
    /// The counts of its policy calls.
    pub policy: PolicyCallAndFailureCounts,
}

/// The outcome of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentOutcome {
    /// The name of the document.
    pub name: String,
    /// The id of the document, if its file could be read.
    pub document: Option<DocumentId>,
    /// The state in which the document ended.
    pub end: DocumentEndState,
}

/// The state in which the processing of a document ended.
#[derive(Debug, Clone, PartialEq)]
pub enum DocumentEndState {
    /// Every requested page is done or has failed.
    Done {
        /// Requested pages.
        pages: u32,
        /// Pages that have passages in the index.
        searchable: u32,
        /// Pages that an earlier job has already done.
        skipped: u32,
        /// Pages that failed, in page order.
        failed: Vec<FailedPage>,
    },
    /// The document failed.
    Failed {
        /// The error that failed the document.
        error: ErrorInfo,
        /// Pages done by this job or an earlier one.
        done: u32,
    },
    /// The job was cancelled.
    Cancelled {
        /// Pages done by this job or an earlier one.
        done: u32,
    },
    /// The document has not ended: the job was suspended, or is held by a quota.
    Suspended {
        /// Pages done by this job or an earlier one.
        done: u32,
    },
}
