//! Job requests: what a client requested, stored so that a restart can run the job again.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::collection_and_labels::CollectionAndLabelsRequest;
use crate::error::StorageError;
use crate::event::Event;
use crate::id::{DocumentId, JobId, PageNumber, TenantId};
use crate::ledger::{JobRecord, JobState};
use crate::page::PriorityLane;
use crate::rollout::RevisionAssignment;

/// A job as the client requested it. It does not change after it is accepted.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRequest {
    /// Id of the job.
    pub job: JobId,
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// The requested lane. With `None` the job is queued by size, and its pages are processed in the lane that the routing component
    /// chooses.
    pub lane: Option<PriorityLane>,
    /// The files, in the order of the request.
    pub files: Vec<RequestedFile>,
    /// Options for processing.
    pub options: JobRequestOptions,
    /// Webhook to send when the job has ended. It is removed after it is delivered or abandoned.
    pub webhook: Option<WebhookTarget>,
    /// The `traceparent` (W3C Trace Context) of the request, if traces are enabled.
    #[serde(rename = "trace", default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl std::fmt::Debug for JobRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Passwords and secrets must not be logged.
        f.debug_struct("JobRequest")
            .field("job", &self.job)
            .field("tenant", &self.tenant)
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

/// A file of a job request.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedFile {
    /// File name as the client gave it.
    pub name: String,
    /// Hash of its bytes, which also names the file in the tenant's folder of uploads.
    pub document: DocumentId,
    /// Size in bytes.
    pub bytes: u64,
    /// Password, if the file is encrypted. The commit that ends the job removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// Options of a job request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobRequestOptions {
    /// First and last page to process, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages: Option<(PageNumber, PageNumber)>,
    /// Resolution of page images in dpi, 36 to 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpi: Option<u32>,
    /// When OCR is used: `auto`, `always` or `never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ocr: Option<String>,
    /// When a vision model reads pages: `auto`, `always` or `never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vision: Option<String>,
    /// Whether pages are processed again that are already done.
    pub force: bool,
    /// Whether documents are summarized.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub summarize: bool,
    /// Requested collection and labels of the documents.
    #[serde(
        rename = "filing",
        skip_serializing_if = "CollectionAndLabelsRequest::is_empty"
    )]
    pub collection_and_labels: CollectionAndLabelsRequest,
}

/// Receiver of the webhook of a job.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookTarget {
    /// URL of the receiver.
    pub url: String,
    /// Key that signs the request.
    pub secret: String,
}

/// Idempotency key of a request. A client can repeat a request with the same key, and it takes effect once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The key from the client, unique for the tenant.
    pub key: String,
    /// SHA-256 of the request, to detect a different request with the same key.
    pub request_digest: [u8; 32],
}

/// An earlier request with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierIdempotentRequest {
    /// SHA-256 of the earlier request.
    pub request_digest: [u8; 32],
    /// The job that it created.
    pub job: JobId,
}

/// Result of [`JobRequestStore::create_job_with_request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutRequestOutcome {
    /// The job was created.
    Created,
    /// The same request was made before and created this job.
    AlreadyCreated(JobId),
    /// A different request was made with the same key.
    KeyConflict,
    /// Nothing was written: this document of the request is being removed.
    DocumentBeingRemoved(DocumentId),
}

/// A job with everything that its status shows.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSnapshot {
    /// Its record.
    pub record: JobRecord,
    /// Its request; `None` for a job of `weir run`.
    pub request: Option<JobRequest>,
    /// The revision that it was assigned, if it has one.
    pub assigned_revision: Option<RevisionAssignment>,
    /// Events of the job, in order.
    pub events: Vec<Event>,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only jobs in this state.
    pub state: Option<JobState>,
    /// Only jobs that were created before this one.
    pub before: Option<JobId>,
    /// Maximum number of jobs.
    pub limit: usize,
}

/// Stores job requests together with the jobs of the ledger. The ledger commit that ends a job removes the passwords
/// of its request.
#[async_trait]
pub trait JobRequestStore: Send + Sync {
    /// Writes a job record, its request and the idempotency key in one transaction. It is durable when this returns.
    /// Of two calls with one key of a tenant, exactly one returns [`PutRequestOutcome::Created`]. With every other
    /// outcome nothing is written. Returns [`StorageError::Failed`] and writes nothing if the job has a request already.
    async fn create_job_with_request(
        &self,
        record: &JobRecord,
        request: &JobRequest,
        idempotency: Option<&IdempotencyKey>,
    ) -> Result<PutRequestOutcome, StorageError>;

    /// Returns the earlier request with this idempotency key; `None` if there was none or the key has expired. A key
    /// is known for at least 24 hours, counted from the creation time of its job to that of a later one.
    async fn find_request_by_idempotency_key(
        &self,
        tenant: &TenantId,
        key: &str,
    ) -> Result<Option<EarlierIdempotentRequest>, StorageError>;

    /// Returns the request of a job; `None` if it does not exist.
    async fn find_job_request(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Option<JobRequest>, StorageError>;

    /// Returns a job with at most `limit` of its events after `after`, in one read of the store; `None` if there is no
    /// such job.
    async fn read_job_snapshot(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Option<JobSnapshot>, StorageError>;

    /// Returns a tenant's jobs, newest first, in descending order of their ids. Jobs without a request are included.
    async fn list_jobs(&self, tenant: &TenantId, filter: &JobFilter) -> Result<Vec<JobRecord>, StorageError>;

    /// Returns the undelivered webhooks of jobs that have ended, with the number of attempts, in ascending order of the
    /// jobs' ids.
    async fn list_undelivered_webhooks(&self) -> Result<Vec<(TenantId, JobId, u32)>, StorageError>;

    /// Records the number of delivery attempts of a webhook, or `None` after it was delivered or abandoned. `None`
    /// removes its URL and its key from the job request. Has no effect if the job has no undelivered webhook.
    async fn record_webhook_attempts_or_end(
        &self,
        tenant: &TenantId,
        job: &JobId,
        attempts: Option<u32>,
    ) -> Result<(), StorageError>;
}
