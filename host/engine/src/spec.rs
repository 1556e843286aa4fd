//! What a job is asked to do.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use weir_core::filing::Filing;
use weir_core::manifest::Pipeline;
use weir_core::{JobId, Lane, PageNumber, TenantId};

/// What a job is to do.
///
/// A job that the ledger knows under this id goes on: it keeps the time it was made, its events continue behind the last
/// one, and pages that are done are not done again. That holds for a job that waited in a queue, for one that was in work
/// when the host ended, and for one that had ended and is tried once more (its log then goes on behind its `job-ended`).
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// The job.
    pub id: JobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What decides, at one revision from beginning to end.
    pub pipeline: Arc<Pipeline>,
    /// The files.
    pub documents: Vec<DocumentSpec>,
    /// Whether pages that are done already are done again.
    pub force: bool,
    /// Whether documents are summarized once their pages are done.
    pub summarize: bool,
    /// Collection and labels of the documents. A known document that was filed otherwise has its pages done again.
    pub filing: Filing,
    /// The lane that was asked for. It stands over what the routing component says, since who asks knows whether someone
    /// waits; `None` leaves it to the component, which knows the document.
    pub lane: Option<Lane>,
    /// The tenant's share of a busy host, relative to other tenants' of the same lane. What is not above 0 counts as 1.
    pub weight: f64,
}

impl JobSpec {
    /// A new job with an id of its own, on equal terms with everyone else's.
    pub fn new(tenant: TenantId, pipeline: Arc<Pipeline>, documents: Vec<DocumentSpec>) -> Self {
        Self {
            id: JobId::new(),
            tenant,
            pipeline,
            documents,
            force: false,
            summarize: false,
            filing: Filing::default(),
            lane: None,
            weight: 1.0,
        }
    }
}

/// A file to ingest.
#[derive(Clone)]
pub struct DocumentSpec {
    /// The file.
    pub path: PathBuf,
    /// What it is called in events and answers.
    pub name: String,
    /// Its password, if it is encrypted.
    pub password: Option<String>,
    /// Pages wanted; all if `None`. What lies beyond the last page is left out.
    pub pages: Option<RangeInclusive<PageNumber>>,
    /// Why there is no such file, if the caller has found that out; the document fails with this reason.
    pub missing: Option<String>,
}

impl DocumentSpec {
    /// All pages of a file, called by its file name.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.file_name().unwrap_or(path.as_os_str());
        Self {
            name: name.to_string_lossy().into_owned(),
            path,
            password: None,
            pages: None,
            missing: None,
        }
    }
}

impl std::fmt::Debug for DocumentSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DocumentSpec")
            .field("path", &self.path)
            .field("pages", &self.pages)
            .finish_non_exhaustive()
    }
}
