//! Documents that are being removed.
//!
//! No job with a document is accepted while the document is being removed, and no document is removed while an active
//! job needs it. Each side checks and writes in one ledger transaction, so the rule holds for any number of processes
//! and survives a crash. The next start finds an interrupted removal and finishes it.

use async_trait::async_trait;

use crate::error::StorageError;
use crate::id::{DocumentId, JobId, TenantId};

/// Result of [`DocumentRemovalStore::begin_document_removal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeginRemovalOutcome {
    /// The caller removes the document and then calls [`DocumentRemovalStore::end_document_removal`].
    Started,
    /// Another removal of the document is in progress.
    AlreadyInProgress,
    /// A job that has not ended has the document among its files.
    UsedByActiveJob,
}

/// Stores which documents are being removed.
#[async_trait]
pub trait DocumentRemovalStore: Send + Sync {
    /// Starts the removal of a document. It is durable when this returns [`BeginRemovalOutcome::Started`]. From then
    /// on [`create_job_with_request`](crate::job_request::JobRequestStore::create_job_with_request) refuses requests of
    /// the tenant with the document. With every other outcome nothing is written.
    async fn begin_document_removal(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<BeginRemovalOutcome, StorageError>;

    /// Ends a removal. Requests with the document are accepted again. Has no effect if no removal is in progress.
    async fn end_document_removal(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError>;

    /// Returns the removals of all tenants that were started and not ended, in no particular order.
    async fn list_unfinished_removals(&self) -> Result<Vec<(TenantId, DocumentId)>, StorageError>;

    /// Returns the jobs that have the document among their files, in no particular order: those whose request names it,
    /// and those with a document-started event of it. They include jobs from before the document was erased.
    async fn list_jobs_with_document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<JobId>, StorageError>;
}
