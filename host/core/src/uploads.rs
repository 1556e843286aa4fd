//! Uploaded files, stored unchanged until their documents are deleted.
//!
//! A file is received in a temporary file on this machine. When it is complete and its hash is known, it is staged for a job.
//! A staged upload survives a crash, and the next start asks the ledger whether the job was accepted. It becomes the stored
//! upload of its document in one step, so the upload of a document is complete or absent at any time.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::error::StorageError;
use crate::id::{DocumentId, JobId, TenantId};
use crate::local_file::LocalFile;

/// Identifies an uploaded file that is staged for a job. A job stages a document once, even if its request has it twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StagedUpload {
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// The job that it is staged for.
    pub job: JobId,
    /// Hash of its bytes.
    pub document: DocumentId,
}

/// Stores uploads. The PDF workers read files, so an upload is opened as a file on this machine.
#[async_trait]
pub trait UploadStore: Send + Sync {
    /// Returns a new path on this machine for a file that is being received, in a folder that only the host can access. The
    /// caller removes the file unless it stages it. Files that a killed host left there are removed at the next start.
    fn new_temporary_path(&self) -> PathBuf;

    /// Stages a received file for a job that may be accepted later. It is durable when this returns, and the file at `received`
    /// is gone. Replaces the same document of the same job. [`UploadStore::list_staged_uploads`] finds uploads that a killed host
    /// left. Returns [`StorageError::NotFound`] if there is no file at `received`.
    async fn stage_received_file(&self, received: &Path, staged: &StagedUpload) -> Result<(), StorageError>;

    /// Stages the stored upload of a document for a job, as if it had been received again. Returns its size in bytes; `None` if it
    /// is not stored. The staged upload stays complete when the stored upload is removed.
    async fn stage_stored_upload(&self, staged: &StagedUpload) -> Result<Option<u64>, StorageError>;

    /// Returns the staged uploads of all tenants that were neither committed nor removed, in any order.
    async fn list_staged_uploads(&self) -> Result<Vec<StagedUpload>, StorageError>;

    /// Makes a staged upload the stored upload of its document. It is durable when this returns, and no longer staged. Replaces the
    /// upload if it was stored already. Changes nothing if it is stored and not staged, so that a commit can be repeated. Returns
    /// [`StorageError::NotFound`] if it is neither staged nor stored.
    async fn commit_staged_upload(&self, staged: &StagedUpload) -> Result<(), StorageError>;

    /// Removes a staged upload. Returns whether it existed.
    async fn remove_staged_upload(&self, staged: &StagedUpload) -> Result<bool, StorageError>;

    /// Removes a staged upload for a caller that cannot wait, such as a destructor. A store on another machine removes it later, in
    /// a task of the current runtime. Errors are logged: the next start removes the upload.
    fn discard_staged_upload(&self, staged: &StagedUpload);

    /// Returns the free bytes on the disk that holds the uploads; `None` if the system does not report them.
    fn available_disk_bytes(&self) -> Option<u64>;

    /// Opens the stored upload of a document; `None` if it is not stored.
    async fn open_upload(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<LocalFile>, StorageError>;

    /// Removes the upload of a document. Returns whether it existed.
    async fn remove_upload(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError>;

    /// Returns the documents that have a stored upload, sorted.
    async fn list_uploads(&self, tenant: &TenantId) -> Result<Vec<DocumentId>, StorageError>;

    /// Removes all uploads of a tenant, staged uploads included. It is no error if there are none.
    async fn remove_all_uploads_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError>;
}
