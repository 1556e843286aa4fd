//! Uploaded files, stored unchanged until their documents are deleted.
//!
//! A file is received under a temporary name. It becomes a document in one step, when it is complete and its hash is
//! known. So the file of a document is complete or absent at any time. In between, the file can be staged for a job.
//! A staged file survives a crash, and the next start asks the ledger whether the job was accepted.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::error::StorageError;
use crate::id::{DocumentId, JobId, TenantId};

/// An uploaded file that is staged for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedUpload {
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// The job that it is staged for.
    pub job: JobId,
    /// Hash of its bytes.
    pub document: DocumentId,
    /// Path of the file.
    pub path: PathBuf,
}

/// Stores uploads as files, because the PDF workers read files.
#[async_trait]
pub trait UploadStore: Send + Sync {
    /// Returns a new path for a file that is being received, in a folder that only the host can access. The caller
    /// removes the file unless it stages or commits it. Files that a killed host left there are removed at the next
    /// start.
    fn new_temporary_path(&self) -> PathBuf;

    /// Stages a received file for a job that may be accepted later. It is durable when this returns. The file is moved
    /// to a new path, which is returned, even if the job has the same document staged already. The caller removes the
    /// file unless it commits it. [`UploadStore::list_staged_uploads`] finds files that a killed host left. Returns
    /// [`StorageError::NotFound`] if there is no file at `unfinished`.
    async fn stage_received_file_for_job(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<PathBuf, StorageError>;

    /// Stages the stored upload of a document for a job, as if it had been received again. Returns `None` if it is
    /// not stored. The staged file stays complete when the stored upload is removed.
    async fn stage_stored_upload_for_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<Option<PathBuf>, StorageError>;

    /// Returns the staged files of all tenants that were neither committed nor removed, in any order.
    async fn list_staged_uploads(&self) -> Result<Vec<StagedUpload>, StorageError>;

    /// Makes a received or staged file the stored upload of `document`, the hash of its bytes. It is durable when this
    /// returns. The file is moved away from its old path, and replaces the upload if it was stored already. Returns
    /// [`StorageError::NotFound`] if there is no file at `unfinished`.
    async fn commit_upload(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        document: &DocumentId,
    ) -> Result<(), StorageError>;

    /// Returns the free bytes on the disk that holds the uploads; `None` if the system does not report them.
    fn available_disk_bytes(&self) -> Option<u64>;

    /// Returns the path of a document's upload, whether or not it exists.
    fn upload_path(&self, tenant: &TenantId, document: &DocumentId) -> PathBuf;

    /// Removes the upload of a document. Returns whether it existed.
    async fn remove_upload(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError>;

    /// Returns the documents that have a stored upload, sorted.
    async fn list_uploads(&self, tenant: &TenantId) -> Result<Vec<DocumentId>, StorageError>;

    /// Removes all uploads of a tenant, staged files included. It is no error if there are none.
    async fn remove_all_uploads_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError>;
}
