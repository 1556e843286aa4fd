//! What a client asked for: the part of a job that a restart needs to begin it again.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::filing::Filing;
use crate::id::{DocumentId, JobId, PageNumber, TenantId};
use crate::ledger::{JobRecord, JobState};
use crate::page::Lane;

/// A job as it was asked for. It is never changed once it is accepted.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The job.
    pub job: JobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The lane asked for; `None` lets the size decide.
    pub lane: Option<Lane>,
    /// The files, in the order of the request.
    pub files: Vec<OrderedFile>,
    /// How to do it.
    pub options: OrderOptions,
    /// Whom to tell when it has ended. Removed once that is delivered or given up.
    pub webhook: Option<Webhook>,
    /// The span of the request, as a `traceparent` of W3C Trace Context, if traces are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Passwords and secrets stay out of logs.
        f.debug_struct("Order")
            .field("job", &self.job)
            .field("tenant", &self.tenant)
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

/// A file of an order.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedFile {
    /// The name the client gave it.
    pub name: String,
    /// Hash of its bytes; it also names the file in the tenant's folder of originals.
    pub document: DocumentId,
    /// Its size.
    pub bytes: u64,
    /// Its password, if it is encrypted. Removed by the commit that ends the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// How an order is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OrderOptions {
    /// First and last page wanted, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages: Option<(PageNumber, PageNumber)>,
    /// Resolution of page images, 36 to 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpi: Option<u32>,
    /// When text is recognized in page images: `auto`, `always` or `never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ocr: Option<String>,
    /// When pages are read by a vision model: `auto`, `always` or `never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vision: Option<String>,
    /// Whether pages are done again that are done already.
    pub force: bool,
    /// Whether documents are summarized.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub summarize: bool,
    /// Collection and labels of the documents.
    #[serde(skip_serializing_if = "Filing::is_empty")]
    pub filing: Filing,
}

/// Whom to tell when a job has ended.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Where to.
    pub url: String,
    /// Key of the signature.
    pub secret: String,
}

/// A request that a client may send twice and that counts once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The client's word for it, unique for the tenant.
    pub key: String,
    /// SHA-256 of what was asked, so that the same word for something else is noticed.
    pub digest: [u8; 32],
}

/// A request that was put in under a client's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// SHA-256 of what was asked.
    pub digest: [u8; 32],
    /// The job it made.
    pub job: JobId,
}

/// What became of an order that was put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// It is new.
    New,
    /// The same request was put in before, as this job.
    Before(JobId),
    /// Another request was put in under the same word.
    Differs,
    /// Nothing was written: this document of the order is being removed.
    Removing(DocumentId),
}

/// Which jobs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only those in this state.
    pub state: Option<JobState>,
    /// Only those made before this one.
    pub before: Option<JobId>,
    /// At most so many.
    pub limit: usize,
}

/// Keeps orders beside the ledger's jobs. A commit of the ledger that ends a job removes the passwords of its order.
#[async_trait]
pub trait Orders: Send + Sync {
    /// Writes a job's record, its order and the client's word for it, all or nothing; durable when it returns. Of two calls
    /// with one word, one is [`Put::New`].
    async fn put(
        &self,
        record: &JobRecord,
        order: &Order,
        idempotency: Option<&Idempotency>,
    ) -> Result<Put, StorageError>;

    /// The request that was put in under this word; `None` if there was none or the word is not known any more.
    async fn earlier(&self, tenant: &TenantId, word: &str) -> Result<Option<Earlier>, StorageError>;

    /// An order.
    async fn order(&self, tenant: &TenantId, job: &JobId) -> Result<Option<Order>, StorageError>;

    /// A tenant's jobs, newest first.
    async fn jobs(&self, tenant: &TenantId, filter: &JobFilter) -> Result<Vec<JobRecord>, StorageError>;

    /// Webhooks that are still owed: the job, and how often it was tried.
    async fn owed_webhooks(&self) -> Result<Vec<(TenantId, JobId, u32)>, StorageError>;

    /// Says how a webhook went: how often it has been tried, or `None` when it was delivered or given up, which removes its
    /// address and secret from the order.
    async fn webhook_tried(
        &self,
        tenant: &TenantId,
        job: &JobId,
        tries: Option<u32>,
    ) -> Result<(), StorageError>;
}
