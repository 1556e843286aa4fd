//! Documents that are being removed: no job is put in for one, and none is removed while a job needs it.
//!
//! Both sides ask the ledger, in one transaction each, so the rule holds for any number of processes and survives a crash: a
//! removal that was cut short is found at the next start and finished.

use async_trait::async_trait;

use crate::error::StorageError;
use crate::id::{DocumentId, JobId, TenantId};

/// Result of [`Removals::begin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// The caller removes the document and then calls [`Removals::end`].
    Begun,
    /// Another removal of the document is under way.
    Removing,
    /// A job that has not ended has the document among its files.
    InWork,
}

/// Keeps the list of documents that are being removed.
#[async_trait]
pub trait Removals: Send + Sync {
    /// Begins the removal of a document; durable when it returns [`Begin::Begun`]. From then on
    /// [`Orders::put`](crate::order::Orders::put) refuses orders with the document.
    async fn begin(&self, tenant: &TenantId, document: &DocumentId) -> Result<Begin, StorageError>;

    /// Ends a removal: orders with the document are accepted again.
    async fn end(&self, tenant: &TenantId, document: &DocumentId) -> Result<(), StorageError>;

    /// The removals that have begun and not ended, of all tenants.
    async fn unended(&self) -> Result<Vec<(TenantId, DocumentId)>, StorageError>;

    /// The jobs that had the document among their files, in no particular order.
    async fn jobs_with(&self, tenant: &TenantId, document: &DocumentId) -> Result<Vec<JobId>, StorageError>;
}
