//! The event log of a job: one ordered, gap-free sequence of facts, the same for every reader.

use serde::{Deserialize, Serialize};

use crate::decision::{QueueState, StageTime};
use crate::id::{DocumentId, JobId, PageNumber};
use crate::page::Stage;

/// An entry of a job's event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Place in the log; the first is 1 and none is left out.
    pub seq: u64,
    /// The job.
    pub job: JobId,
    /// The document it is about; `None` for the job as a whole.
    pub document: Option<DocumentId>,
    /// Milliseconds since the job was made; never less than that of the event before.
    pub at_millis: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: EventKind,
}

/// An error as events and answers carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorNote {
    /// A stable word for programs.
    pub kind: String,
    /// One line for people.
    pub message: String,
}

/// A page that failed for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedPage {
    /// The page.
    pub page: PageNumber,
    /// Why.
    pub error: ErrorNote,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum EventKind {
    /// Work on a document begins; once more if the host was started again in between.
    DocumentStarted {
        /// The file's name.
        name: String,
        /// Pages asked for.
        pages: u32,
        /// Those of them an earlier job has done.
        already_done: u32,
    },
    /// A batch left the rasterizer.
    BatchRasterized {
        /// First page of the batch.
        first_page: PageNumber,
        /// Pages in it.
        pages: u32,
        /// Resolution.
        dpi: u32,
        /// Queue depths at that moment.
        queues: Vec<QueueState>,
        /// Stage times so far.
        times: Vec<StageTime>,
    },
    /// A page has been stored, read and, where asked for, made searchable.
    PageDone {
        /// The page.
        page: PageNumber,
        /// Whether a search can find it.
        searchable: bool,
        /// Passages indexed.
        passages: u32,
    },
    /// A page failed and is being tried again.
    PageRetried {
        /// The page.
        page: PageNumber,
        /// Where it failed.
        stage: Stage,
        /// How often it has failed there.
        attempt: u32,
        /// Why.
        error: ErrorNote,
    },
    /// A page failed for good.
    PageFailed {
        /// The page.
        page: PageNumber,
        /// Where it failed.
        stage: Stage,
        /// Why.
        error: ErrorNote,
    },
    /// A component did not decide, and the default took over for that call.
    PolicyFailed {
        /// Why.
        error: ErrorNote,
    },
    /// The progress component has something to say.
    Progress {
        /// 0 to 100.
        percent: f32,
        /// For people.
        message: String,
        /// Seconds left, if that can be told.
        seconds_left: Option<u32>,
    },
    /// The document is done.
    DocumentDone {
        /// The file's name.
        name: String,
        /// Pages asked for.
        pages: u32,
        /// Pages a search can find.
        searchable: u32,
        /// Pages an earlier job had already done.
        skipped: u32,
        /// Pages that failed.
        failed: Vec<FailedPage>,
    },
    /// The document could not be done. An event without a document id is about a file that could not even be read.
    DocumentFailed {
        /// The file's name.
        name: String,
        /// Why.
        error: ErrorNote,
        /// Pages done before.
        done: u32,
    },
    /// Work on the document was cancelled.
    DocumentCancelled {
        /// The file's name.
        name: String,
        /// Pages done before.
        done: u32,
    },
    /// The job has ended.
    JobEnded {
        /// How.
        state: crate::ledger::JobState,
    },
}
