//! The files that clients sent, byte for byte, kept until their documents are deleted.
//!
//! A file is received under a name that means nothing and becomes a document in one step, once all of it is there and its
//! hash is known. So a document's file is whole or absent, whatever happens while it is sent.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::error::StorageError;
use crate::id::{DocumentId, TenantId};

/// Keeps originals in files, because what draws pages reads files.
#[async_trait]
pub trait Originals: Send + Sync {
    /// Where to write a file that is being received: a name given once, in a folder that only the host can enter. Whoever
    /// asked removes the file unless it is committed; what a killed host left there is removed at its next start.
    fn unfinished(&self) -> PathBuf;

    /// Makes a received file the original of `document`, the hash of its bytes; durable when it returns. The file is not at
    /// `unfinished` any more then.
    async fn commit(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        document: &DocumentId,
    ) -> Result<(), StorageError>;

    /// Where a document's original is, if it is kept.
    fn path(&self, tenant: &TenantId, document: &DocumentId) -> PathBuf;

    /// Removes a document's original; whether it was kept.
    async fn remove(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError>;

    /// The documents whose originals are kept, sorted.
    async fn list(&self, tenant: &TenantId) -> Result<Vec<DocumentId>, StorageError>;

    /// Removes all originals of a tenant.
    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError>;
}
