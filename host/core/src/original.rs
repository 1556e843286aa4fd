//! The files that clients sent, byte for byte, kept until their documents are deleted.
//!
//! A file is received under a name that means nothing and becomes a document in one step, once all of it is there and its
//! hash is known. So a document's file is whole or absent, whatever happens while it is sent. In between it can be staged for
//! a job: it then outlives a crash, and the next start asks the ledger whether the job was accepted.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::error::StorageError;
use crate::id::{DocumentId, JobId, TenantId};

/// A file that was staged for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// Whose it is.
    pub tenant: TenantId,
    /// The job it came with.
    pub job: JobId,
    /// The hash of its bytes.
    pub document: DocumentId,
    /// Where it is.
    pub path: PathBuf,
}

/// Keeps originals in files, because what draws pages reads files.
#[async_trait]
pub trait Originals: Send + Sync {
    /// Where to write a file that is being received: a name given once, in a folder that only the host can enter. Whoever
    /// asked removes the file unless it is committed; what a killed host left there is removed at its next start.
    fn unfinished(&self) -> PathBuf;

    /// Keeps a received file for a job that may come to be, durable when it returns; where it is now. Whoever asked removes the
    /// file unless it is committed; what a killed host left is found by [`Originals::staged`].
    async fn stage(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<PathBuf, StorageError>;

    /// Stages the original of a document for a job, as if it had been received again; `None` if it is not kept. The staged file
    /// stays whole when the original is removed.
    async fn stage_kept(
        &self,
        tenant: &TenantId,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<Option<PathBuf>, StorageError>;

    /// What was staged, and neither committed nor removed.
    async fn staged(&self) -> Result<Vec<Staged>, StorageError>;

    /// Makes a received or staged file the original of `document`, the hash of its bytes; durable when it returns. The file is not where
    /// it was any more then.
    async fn commit(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        document: &DocumentId,
    ) -> Result<(), StorageError>;

    /// Bytes that may still be written to the disk of the originals; `None` where the system does not say.
    fn free_bytes(&self) -> Option<u64>;

    /// Where a document's original is, if it is kept.
    fn path(&self, tenant: &TenantId, document: &DocumentId) -> PathBuf;

    /// Removes a document's original; whether it was kept.
    async fn remove(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError>;

    /// The documents whose originals are kept, sorted.
    async fn list(&self, tenant: &TenantId) -> Result<Vec<DocumentId>, StorageError>;

    /// Removes all originals of a tenant, staged ones too.
    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError>;
}
