//! The specification of a job and of its documents.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use weir_core::collection_and_labels::CollectionAndLabelsRequest;
use weir_core::job_claim::JobClaim;
use weir_core::local_file::LocalFile;
use weir_core::manifest::ResolvedPipeline;
use weir_core::uploads::UploadStore;
use weir_core::{DocumentId, JobId, PageNumber, PriorityLane, StorageError, TenantId};

/// The specification of a job.
///
/// A job that the ledger knows under this id is resumed. It keeps its creation time, its events continue after the last one, and
/// pages that are done are not processed again. This applies to a job that was queued, to one that was active when the host
/// ended, and to one that has ended and is retried. In the last case the log continues after `job-ended`.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// The id of the job.
    pub id: JobId,
    /// The tenant that owns the job.
    pub tenant: TenantId,
    /// The pipeline revision whose components decide, from the beginning of the job to its end.
    pub pipeline: Arc<ResolvedPipeline>,
    /// The files to ingest.
    pub documents: Vec<DocumentSpec>,
    /// Whether pages that are done already are processed again.
    pub force: bool,
    /// Whether documents are summarized once their pages are done.
    pub summarize: bool,
    /// Collection and labels of the documents. If a known document has others, all its pages are processed again.
    pub requested_placement: CollectionAndLabelsRequest,
    /// The requested lane. It overrides the lane of the routing component, since the client knows whether a user waits. With `None`
    /// the component decides, which knows the document.
    pub lane: Option<PriorityLane>,
    /// Whether the job may get a latency boost. Pass `false` for a job that is expected to be long. A job for which the bulk lane is
    /// requested gets none.
    pub allow_latency_boost: bool,
    /// The claim of this host to run the job, if its ledger has claims. The results of the job are committed only while it holds.
    pub claim: Option<JobClaim>,
    /// The tenant's share of a busy host, relative to other tenants in the same lane. A value that is not above 0 counts as 1.
    pub weight: f64,
}

impl JobSpec {
    /// Creates a job with a new id, weight 1 and no options.
    pub fn new(tenant: TenantId, pipeline: Arc<ResolvedPipeline>, documents: Vec<DocumentSpec>) -> Self {
        Self {
            id: JobId::new(),
            tenant,
            pipeline,
            documents,
            force: false,
            summarize: false,
            requested_placement: CollectionAndLabelsRequest::default(),
            lane: None,
            allow_latency_boost: true,
            claim: None,
            weight: 1.0,
        }
    }
}

/// Where the file of a document is.
#[derive(Clone)]
pub enum DocumentSource {
    /// A file on this machine, which need not exist.
    LocalPath(PathBuf),
    /// A stored upload. It is opened when its document is started, and closed when the document has ended.
    Upload {
        /// The store of the upload.
        store: Arc<dyn UploadStore>,
        /// The document.
        document: DocumentId,
        /// Size of the upload in bytes.
        bytes: u64,
    },
}

impl DocumentSource {
    /// Opens the file. `None` if an upload is not stored.
    pub(crate) async fn open(&self, tenant: &TenantId) -> Result<Option<LocalFile>, StorageError> {
        match self {
            Self::LocalPath(path) => Ok(Some(path.clone().into())),
            Self::Upload { store, document, .. } => store.open_upload(tenant, document).await,
        }
    }

    /// Returns the size of the file in bytes; 0 on an error, which opening the file will report.
    pub(crate) async fn size_bytes(&self) -> u64 {
        match self {
            Self::LocalPath(path) => tokio::fs::metadata(path).await.map_or(0, |m| m.len()),
            Self::Upload { bytes, .. } => *bytes,
        }
    }
}

impl std::fmt::Debug for DocumentSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LocalPath(path) => path.fmt(f),
            Self::Upload { document, .. } => document.fmt(f),
        }
    }
}

/// A file to ingest.
#[derive(Clone)]
pub struct DocumentSpec {
    /// Where the file is.
    pub source: DocumentSource,
    /// The name of the document in events and search results.
    pub name: String,
    /// The password of the file, if it is encrypted.
    pub password: Option<String>,
    /// The requested pages; all pages if `None`. Page numbers after the last page are ignored.
    pub pages: Option<RangeInclusive<PageNumber>>,
    /// Why the file is missing, if the caller knows that already. The document fails with this reason.
    pub missing: Option<String>,
}

impl DocumentSpec {
    /// Creates a document of all pages of a file, named after the file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.file_name().unwrap_or(path.as_os_str());
        Self {
            name: name.to_string_lossy().into_owned(),
            source: DocumentSource::LocalPath(path),
            password: None,
            pages: None,
            missing: None,
        }
    }
}

impl std::fmt::Debug for DocumentSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DocumentSpec")
            .field("source", &self.source)
            .field("pages", &self.pages)
            .finish_non_exhaustive()
    }
}
