//! The stores that have records of jobs.

use std::path::Path;
use std::sync::Arc;

use weir_core::StorageError;
use weir_core::recording::RecordingStore;
use weir_core::uploads::UploadStore;

use crate::ExternalStores;
use crate::data_folder::FolderLock;
use crate::file_stores::FileStores;
use crate::ledger::SqlLedger;
use crate::recordings::FileRecordingStore;

/// The stores with records and files of jobs, without the index, whose model need not be known.
pub struct JobRecordStores {
    /// The ledger.
    pub ledger: Arc<SqlLedger>,
    /// Uploaded files.
    pub uploads: Arc<dyn UploadStore>,
    /// Recorded calls of jobs.
    pub recordings: Arc<dyn RecordingStore>,
    _folder_lock: Arc<FolderLock>,
}

impl JobRecordStores {
    /// Opens the stores of a data folder, and those of `external` instead of them. Fails with [`StorageError::InUse`] if another process
    /// has locked the folder.
    pub async fn open(data: &Path, external: ExternalStores) -> Result<Self, StorageError> {
        let (stores, ()) =
            FileStores::lock_folder_and_open(data, external.ledger, external.bucket, |_| Ok(())).await?;
        let (uploads, recordings): (Arc<dyn UploadStore>, Arc<dyn RecordingStore>) = match stores.s3 {
            Some(s3) => (Arc::new(s3.uploads), Arc::new(s3.recordings)),
            None => (Arc::new(stores.uploads), Arc::new(FileRecordingStore::new(data))),
        };
        Ok(Self {
            ledger: Arc::new(stores.ledger),
            uploads,
            recordings,
            _folder_lock: stores.folder_lock,
        })
    }

    /// Closes the ledger and releases the folder.
    pub async fn close(self) {
        self.ledger.close().await;
    }
}
