//! What is written down of documents, jobs, pages and events.

use serde::{Deserialize, Serialize};

use crate::decision::Label;
use crate::event::{ErrorNote, Event};
use crate::filing::Filing;
use crate::id::{DocumentId, JobId, PageNumber, RevisionId, TenantId};
use crate::page::OutlineEntry;
use crate::said::LogEntry;
use crate::text::TextSource;

pub use crate::job::JobState;

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Name of its pipeline.
    pub pipeline: String,
    /// Revision it runs, from beginning to end.
    pub revision: RevisionId,
    /// Where it stands.
    pub state: JobState,
    /// When it was made, in milliseconds since 1970.
    pub created_millis: u64,
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRecord {
    /// Its id.
    pub id: DocumentId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The file's name when it was last given.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Number of pages in the file.
    pub pages: u32,
    /// Title in its metadata.
    pub title: Option<String>,
    /// Its outline.
    pub outline: Vec<OutlineEntry>,
    /// Collection its passages are filed under.
    pub collection: String,
    /// Labels of all its passages and summaries.
    pub labels: Vec<Label>,
    /// What jobs asked of collection and labels.
    pub requested: Filing,
    /// When it was first taken in, in milliseconds since 1970.
    pub created_millis: u64,
}

/// A page that ended in a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRecord {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its document.
    pub document: DocumentId,
    /// The page.
    pub page: PageNumber,
    /// Revision that did it.
    pub revision: RevisionId,
    /// Job that did it.
    pub job: JobId,
    /// How it ended.
    pub state: PageState,
}

/// How a page ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum PageState {
    /// Done.
    Done {
        /// Where its text came from.
        source: TextSource,
        /// Passages indexed.
        passages: u32,
        /// Blob key of its image, if it was kept.
        image: Option<String>,
        /// Blob key of its lines, if it was read.
        text: Option<String>,
    },
    /// Failed for good.
    Failed {
        /// Why.
        error: ErrorNote,
    },
}

/// Something to be written; a group of entries is committed as one.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A job began or changed its state.
    Job(JobRecord),
    /// A document was taken in; one already known keeps its `created_millis`.
    Document(DocumentRecord),
    /// A page ended; replaces what was known of the page for this revision.
    Page(PageRecord),
    /// An event happened.
    Event(TenantId, Event),
    /// A component of one of the tenant's jobs said something.
    Said(TenantId, LogEntry),
}
