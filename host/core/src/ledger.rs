//! Records of the ledger: jobs, documents, pages, events and component logs.

use serde::{Deserialize, Serialize};

use crate::collection_and_labels::CollectionAndLabelsRequest;
use crate::component_log::NumberedComponentLogRecord;
use crate::decision::Label;
use crate::event::{ErrorInfo, Event};
use crate::id::{DocumentId, JobId, PageNumber, RevisionId, TenantId};
use crate::job_claim::JobClaim;
use crate::page::OutlineEntry;
use crate::page_text::TextSource;

pub use crate::event::JobState;

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Id of the job.
    pub id: JobId,
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// Name of its pipeline.
    pub pipeline: String,
    /// Its processing fingerprint, the same from start to end.
    pub revision: RevisionId,
    /// Current state.
    pub state: JobState,
    /// Creation time in milliseconds since 1970.
    pub created_millis: u64,
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRecord {
    /// Id of the document.
    pub id: DocumentId,
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// File name in the latest job.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Number of pages in the file.
    pub pages: u32,
    /// Title from the PDF metadata.
    pub title: Option<String>,
    /// Its outline.
    pub outline: Vec<OutlineEntry>,
    /// Collection that its passages are indexed in.
    pub collection: String,
    /// Labels of all its passages and summaries.
    pub labels: Vec<Label>,
    /// Collection and labels that jobs requested.
    #[serde(rename = "requested")]
    pub requested_collection_and_labels: CollectionAndLabelsRequest,
    /// Time of the first job with it, in milliseconds since 1970.
    pub created_millis: u64,
}

/// A page that is done or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRecord {
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// Its document.
    pub document: DocumentId,
    /// The page.
    pub page: PageNumber,
    /// The processing fingerprint of the job that processed it.
    pub revision: RevisionId,
    /// The job that processed it.
    pub job: JobId,
    /// How processing ended.
    pub state: FinalPageState,
}

/// How processing of a page ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum FinalPageState {
    /// The page is done.
    Done {
        /// How its text was obtained.
        source: TextSource,
        /// Number of indexed passages.
        passages: u32,
        /// Blob key of its image, if it is stored.
        image: Option<String>,
        /// Blob key of its text, if it was read.
        text: Option<String>,
    },
    /// The page failed and is not retried.
    Failed {
        /// Why.
        error: ErrorInfo,
    },
}

/// An entry that the ledger writes. A group of entries is committed in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum LedgerEntry {
    /// Writes nothing. All entries of the commit are refused with [`StorageError::ClaimLost`](crate::StorageError::ClaimLost) if the job has
    /// been claimed again since.
    RequireClaim(JobClaim),
    /// A job was created or changed its state.
    Job(JobRecord),
    /// A document was added or changed. A known document keeps its `created_millis`.
    Document(DocumentRecord),
    /// A page ended. Replaces the earlier record of the page with this processing fingerprint.
    Page(PageRecord),
    /// An event happened.
    Event(TenantId, Event),
    /// A component of one of the tenant's jobs wrote to its log, or a call of it failed.
    ComponentLog(TenantId, NumberedComponentLogRecord),
}

impl LedgerEntry {
    /// Returns the tenant whose rows the entry changes.
    #[must_use]
    pub const fn tenant(&self) -> &TenantId {
        match self {
            Self::RequireClaim(claim) => &claim.tenant,
            Self::Job(job) => &job.tenant,
            Self::Document(document) => &document.tenant,
            Self::Page(page) => &page.tenant,
            Self::Event(tenant, _) | Self::ComponentLog(tenant, _) => tenant,
        }
    }
}
