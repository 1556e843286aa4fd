//! Opening the stores of a data folder, and those on an S3 server instead of it.

use std::path::Path;
use std::sync::Arc;

use weir_core::StorageError;

use crate::blobs::FileBlobStore;
use crate::component_store::FileComponentStore;
use crate::data_folder::{FolderLock, create_private_folder, rename_entries_of_earlier_versions};
use crate::ledger::SqlLedger;
use crate::s3::{S3Bucket, S3Stores};
use crate::unfinished_migration::check_no_unfinished_migration;
use crate::uploads::FileUploadStore;

/// The stores of a data folder, without its index, and those that replace some of them.
pub(crate) struct FileStores {
    pub(crate) folder_lock: Arc<FolderLock>,
    pub(crate) uploads: FileUploadStore,
    pub(crate) components: FileComponentStore,
    pub(crate) blobs: FileBlobStore,
    /// Uploads, components and blobs, if they are on an S3 server.
    pub(crate) s3: Option<S3Stores>,
    pub(crate) ledger: SqlLedger,
}

impl FileStores {
    /// Locks a data folder, creates it if it does not exist, and opens its stores, with `external_ledger` if there is one. Then runs `open_others`, which may block and gets the
    /// lock.
    pub(crate) async fn lock_folder_and_open<R: Send + 'static>(
        data: &Path,
        external_ledger: Option<SqlLedger>,
        bucket: Option<Arc<S3Bucket>>,
        open_others: impl FnOnce(Arc<FolderLock>) -> Result<R, StorageError> + Send + 'static,
    ) -> Result<(Self, R), StorageError> {
        let folder = data.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            create_private_folder(&folder)?;
            let lock = Arc::new(FolderLock::acquire_with_timeout(&folder)?);
            check_no_unfinished_migration(&folder)?;
            rename_entries_of_earlier_versions(&folder)?;
            let ledger = match external_ledger {
                Some(ledger) => ledger,
                None => SqlLedger::open_or_create(&folder, Arc::clone(&lock))?,
            };
            let usage = ledger.storage_usage();
            let stores = Self {
                folder_lock: Arc::clone(&lock),
                uploads: FileUploadStore::open_and_remove_unfinished_files(&folder, usage.clone())?,
                components: FileComponentStore::open_and_remove_unfinished_files(&folder, usage.clone())?,
                blobs: FileBlobStore::open_and_remove_unfinished_files(&folder, usage.clone())?,
                s3: bucket
                    .map(|bucket| S3Stores::open_cache(bucket, &folder, usage))
                    .transpose()?,
                ledger,
            };
            Ok((stores, open_others(lock)?))
        });
        opened.await.map_err(|e| StorageError::Failed {
            what: "opening the data folder".into(),
            reason: e.to_string(),
        })?
    }
}
