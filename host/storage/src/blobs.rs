//! Blobs in the data folder: small ones in the database `<data>/blobs.db`, the others as files
//! `<data>/blobs/<tenant>/<document>/<rest of the key>` (`blob_file_path.rs`).
//!
//! A file is written under a temporary name and renamed into place, so a reader sees all of it or nothing. Files of unfinished writes
//! are in one folder, which the next opener empties. A write does not wait for the disk. [`flush_blobs`] syncs a group of blobs at once,
//! because a sync for each page image would cost more than drawing the page.
//!
//! A key may have both a file and a row: while a blob is replaced by one of the other kind, and if the process is killed then. The file
//! counts, because a put of a small blob removes the file only after the row is durable. Earlier versions wrote small blobs as files, and
//! files in a folder for each segment of the key. Such files stay until they are replaced or deleted.
//!
//! [`flush_blobs`]: BlobStore::flush_blobs

mod flush;
mod small_blobs;
mod unsynced_blobs;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::sleep;
use weir_core::blob_key::{check_blob_key, check_blob_key_prefix};
use weir_core::ports::BlobStore;
use weir_core::{StorageError, TenantId};

use self::unsynced_blobs::{SyncFileFn, UnsyncedBlobs};
use crate::blob_file_path::{blob_file_path, key_of_file_name, nested_blob_file_path};
use crate::data_folder::{create_private_folder, size_on_disk};
use crate::path_with_public_name::PathWithPublicName;
use crate::small_blob_database::{MAX_SMALL_BLOB_BYTES, SmallBlobDatabase};
use crate::storage_usage::{MAX_MARKED_PATHS, StorageUsageTracker};

/// Maximum number of blobs that wait for a sync, each with an open descriptor. A put beyond the limit flushes.
const MAX_UNSYNCED_BLOBS: usize = 256;
/// Maximum time that a blob waits for a sync. Most blobs are flushed with their page, but not those of a page whose job was
/// canceled or failed.
const MAX_FLUSH_DELAY: Duration = Duration::from_secs(10);
/// The folder of files that are being written. Tenant names have no dot, so none is equal to it.
const UNFINISHED_FOLDER: &str = ".unfinished";

/// Implements [`BlobStore`] with files and a database of small blobs.
pub struct FileBlobStore {
    folder: Arc<BlobFolder>,
}

struct BlobFolder {
    root: PathBuf,
    small_blobs: SmallBlobDatabase,
    storage_usage: StorageUsageTracker,
    next_number: AtomicU64,
    unsynced: Mutex<UnsyncedBlobs>,
    /// Allows one flush at a time, because blobs that another flush has taken are not durable yet.
    flush_lock: Mutex<()>,
    sync_file: Box<SyncFileFn>,
    /// A flush is scheduled.
    is_flush_scheduled: AtomicBool,
}

impl FileBlobStore {
    /// Opens `<data>/blobs` and `<data>/blobs.db`, and creates them if they do not exist. Removes unfinished files, so only one process may
    /// have them open. Blocks on the disk.
    pub(crate) fn open_and_remove_unfinished_files(
        data: &Path,
        storage_usage: StorageUsageTracker,
    ) -> Result<Self, StorageError> {
        let root = data.join("blobs");
        let unfinished = root.join(UNFINISHED_FOLDER);
        match fs::remove_dir_all(&unfinished) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(blob_path_with_error_name(&root, &unfinished).io_error(&e));
            }
            _ => {}
        }
        create_private_folder(&unfinished)?;
        Ok(Self {
            folder: Arc::new(BlobFolder {
                root,
                small_blobs: SmallBlobDatabase::open_or_create(data)?,
                storage_usage,
                next_number: AtomicU64::new(0),
                unsynced: Mutex::default(),
                flush_lock: Mutex::new(()),
                sync_file: Box::new(File::sync_all),
                is_flush_scheduled: AtomicBool::new(false),
            }),
        })
    }

    /// Schedules a flush, so that no descriptor stays open for long.
    fn schedule_flush(&self) {
        if self.folder.is_flush_scheduled.swap(true, Ordering::Relaxed) {
            return;
        }
        let weak_folder = Arc::downgrade(&self.folder);
        tokio::spawn(async move {
            sleep(MAX_FLUSH_DELAY).await;
            let Some(folder) = weak_folder.upgrade() else {
                return;
            };
            folder.is_flush_scheduled.store(false, Ordering::Relaxed);
            let flushed = tokio::task::spawn_blocking({
                let folder = Arc::clone(&folder);
                move || {
                    folder.flush_unsynced_blobs()?;
                    while folder.small_blobs.lock_writer().shrink()? {}
                    // The file itself becomes shorter when its log is written to it.
                    folder.flush_unsynced_blobs()
                }
            });
            match flushed.await {
                Ok(Err(error)) => {
                    tracing::warn!(%error, "blobs could not be flushed");
                    Self { folder }.schedule_flush();
                }
                Ok(Ok(true)) => Self { folder }.schedule_flush(),
                _ => {}
            }
        });
    }

    async fn run_blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce(&BlobFolder) -> Result<R, StorageError> + Send + 'static,
    ) -> Result<R, StorageError> {
        let folder = Arc::clone(&self.folder);
        match tokio::task::spawn_blocking(move || work(&folder)).await {
            Ok(result) => result,
            Err(e) => Err(StorageError::Failed {
                what: "the folder of each blob".into(),
                reason: e.to_string(),
            }),
        }
    }
}

#[async_trait]
impl BlobStore for FileBlobStore {
    async fn put_blob(&self, tenant: &TenantId, key: &str, bytes: &[u8]) -> Result<(), StorageError> {
        check_blob_key(key)?;
        let (tenant, key, bytes) = (tenant.clone(), key.to_owned(), bytes.to_vec());
        self.run_blocking(move |folder| folder.put_blob(&tenant, &key, &bytes))
            .await?;
        self.schedule_flush();
        Ok(())
    }

    async fn get_blob(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        check_blob_key(key)?;
        let (tenant, key) = (tenant.clone(), key.to_owned());
        self.run_blocking(move |folder| folder.get_blob(&tenant, &key))
            .await
    }

    async fn list_blob_keys(&self, tenant: &TenantId, prefix: &str) -> Result<Vec<String>, StorageError> {
        check_blob_key_prefix(prefix)?;
        let (tenant, prefix) = (tenant.clone(), prefix.to_owned());
        self.run_blocking(move |folder| folder.list_keys(&tenant, &prefix))
            .await
    }

    async fn delete_blobs_with_prefix(&self, tenant: &TenantId, prefix: &str) -> Result<(), StorageError> {
        check_blob_key_prefix(prefix)?;
        let (tenant, prefix) = (tenant.clone(), prefix.to_owned());
        // Also if it fails midway.
        self.schedule_flush();
        self.run_blocking(move |folder| folder.delete_blobs_with_prefix(&tenant, &prefix))
            .await
    }

    async fn flush_blobs(&self) -> Result<(), StorageError> {
        if self.run_blocking(BlobFolder::flush_unsynced_blobs).await? {
            self.schedule_flush();
        }
        Ok(())
    }
}

impl BlobFolder {
    fn tenant_folder(&self, tenant: &TenantId) -> PathBuf {
        self.root.join(tenant.as_str())
    }

    fn put_blob(&self, tenant: &TenantId, key: &str, bytes: &[u8]) -> Result<(), StorageError> {
        if bytes.len() <= MAX_SMALL_BLOB_BYTES {
            return self.put_small_blob(tenant, key, bytes);
        }
        self.put_file(tenant, key, bytes)?;
        self.remove_replaced_nested_file(tenant, key)?;
        self.remove_replaced_small_blob(tenant, key)
    }

    fn put_file(&self, tenant: &TenantId, key: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let path = blob_file_path(&self.tenant_folder(tenant), key);
        let io = |e: io::Error| blob_path_with_error_name(&self.root, &path).io_error(&e);
        let (unfinished, file) = self.write_unfinished_file(bytes).map_err(io)?;
        let mut is_full = false;
        let moved =
            self.storage_usage
                .change_files_and_count_bytes(tenant, &storage_usage_path(tenant, key), || {
                    let grown = i64::try_from(bytes.len()).unwrap_or(i64::MAX) - size_on_disk(&path)?;
                    move_into_place(&unfinished, &path)?;
                    // If one key is put several times at once, the file that was moved last is the one to sync.
                    let mut unsynced = self.unsynced.lock();
                    let written = unsynced.new_unsynced_blob(file, bytes);
                    unsynced.blobs.insert(path.clone(), written);
                    is_full = unsynced.blobs.len() > MAX_UNSYNCED_BLOBS;
                    Ok(grown)
                });
        moved
            .and_then(|moved| moved.map_err(io))
            .inspect_err(|_| drop(fs::remove_file(&unfinished)))?;
        if is_full {
            self.flush_unsynced_blobs()?;
        }
        Ok(())
    }

    /// Writes a file into the folder of unfinished files.
    fn write_unfinished_file(&self, bytes: &[u8]) -> io::Result<(PathBuf, File)> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.root.join(UNFINISHED_FOLDER).join(number.to_string());
        let mut options = File::options();
        let mut file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(&unfinished)?;
        match file.write_all(bytes) {
            Ok(()) => Ok((unfinished, file)),
            Err(e) => {
                let _ = fs::remove_file(&unfinished);
                Err(e)
            }
        }
    }

    fn delete_blobs_with_prefix(&self, tenant: &TenantId, prefix: &str) -> Result<(), StorageError> {
        let folder = self.tenant_folder(tenant);
        // The rows first, because the file counts if a key has both.
        self.delete_small_blobs_with_prefix(tenant, prefix)?;
        for keys in list_keys_in_folder(&self.root, &folder, prefix)?.chunks(MAX_MARKED_PATHS) {
            let paths = keys.iter().map(|key| storage_usage_path(tenant, key));
            self.storage_usage.mark_paths_before_changes(tenant, paths)?;
            for key in keys {
                self.delete_files(tenant, key)?;
            }
            self.storage_usage.save_changed_file_sizes()?;
        }
        if prefix.is_empty() {
            // Fails if the folder is not empty or does not exist.
            let _ = self
                .storage_usage
                .run_while_no_file_changes(|| fs::remove_dir(&folder));
        }
        Ok(())
    }

    /// Deletes the files of a blob: the one that counts last.
    fn delete_files(&self, tenant: &TenantId, key: &str) -> Result<(), StorageError> {
        let [path, nested] = self.file_paths(tenant, key);
        // A folder with the same path belongs to longer keys.
        if nested != path && self.is_file(&nested)? {
            self.delete_file(tenant, key, &nested)?;
        }
        self.delete_file(tenant, key, &path)
    }

    /// Deletes the file of an earlier version that a file has replaced.
    fn remove_replaced_nested_file(&self, tenant: &TenantId, key: &str) -> Result<(), StorageError> {
        let [path, nested] = self.file_paths(tenant, key);
        if path == nested || !self.is_file(&nested)? {
            return Ok(());
        }
        // The new file must be durable first.
        self.flush_unsynced_blobs()?;
        self.delete_file(tenant, key, &nested)
    }

    /// Returns the paths that the file of a blob can have. If both exist, the first counts.
    fn file_paths(&self, tenant: &TenantId, key: &str) -> [PathBuf; 2] {
        let folder = self.tenant_folder(tenant);
        [blob_file_path(&folder, key), nested_blob_file_path(&folder, key)]
    }

    fn is_file(&self, path: &Path) -> Result<bool, StorageError> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(!metadata.is_dir()),
            Err(e) if is_not_found(&e) => Ok(false),
            Err(e) => Err(blob_path_with_error_name(&self.root, path).io_error(&e)),
        }
    }

    fn delete_file(&self, tenant: &TenantId, key: &str, path: &Path) -> Result<(), StorageError> {
        let folder = self.tenant_folder(tenant);
        let deleted =
            self.storage_usage
                .change_files_and_count_bytes(tenant, &storage_usage_path(tenant, key), || {
                    let bytes = size_on_disk(path)?;
                    match fs::remove_file(path) {
                        Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                            return Err(e);
                        }
                        _ => {}
                    }
                    let changed = remove_empty_parents(path, &folder);
                    let mut unsynced = self.unsynced.lock();
                    unsynced.blobs.remove(path);
                    unsynced.folders.insert(changed.to_owned());
                    Ok(-bytes)
                });
        deleted?.map_err(|e| blob_path_with_error_name(&self.root, path).io_error(&e))
    }
}

/// Returns the path in the data folder that the bytes of a blob are counted under: that of the key's first segment, which is a document.
fn storage_usage_path(tenant: &TenantId, key: &str) -> String {
    let first = key.split_once('/').map_or(key, |(first, _)| first);
    format!("blobs/{tenant}/{first}")
}

/// Renames a file to `path` and creates the parent folders.
fn move_into_place(unfinished: &Path, path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::rename(unfinished, path)
}

/// Lists the keys of a tenant that begin with `prefix`, sorted.
fn list_keys_in_folder(root: &Path, tenant: &Path, prefix: &str) -> Result<Vec<String>, StorageError> {
    let folder = prefix.split_once('/').map_or("", |(document, _)| document);
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let path = tenant.join(&folder);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(e) if is_not_found(&e) => continue,
            Err(e) => return Err(blob_path_with_error_name(root, &path).io_error(&e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| blob_path_with_error_name(root, &path).io_error(&e))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let is_folder = entry
                .file_type()
                .map_err(|e| blob_path_with_error_name(root, &path).io_error(&e))?
                .is_dir();
            let name = key_of_file_name(&name);
            let key = if folder.is_empty() {
                name
            } else {
                format!("{folder}/{name}")
            };
            if is_folder && (key.starts_with(prefix) || prefix.starts_with(&key)) {
                folders.push(key);
            } else if !is_folder && key.starts_with(prefix) {
                found.push(key);
            }
        }
    }
    found.sort_unstable();
    // A killed process can leave a file of an earlier version beside the one that replaced it.
    found.dedup();
    Ok(found)
}

/// Removes the empty folders above a path, up to the tenant's. Returns the folder from which an entry was removed last.
fn remove_empty_parents<'a>(path: &'a Path, tenant: &'a Path) -> &'a Path {
    for folder in path.ancestors().skip(1).take_while(|f| *f != tenant) {
        // A folder that is not empty stays, with its parents.
        if fs::remove_dir(folder).is_err() {
            return folder;
        }
    }
    tenant
}

fn is_not_found(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory
    )
}

fn blob_path_with_error_name(root: &Path, path: &Path) -> PathWithPublicName {
    PathWithPublicName::from_path_below_root(root, "blob", path)
}

#[cfg(test)]
mod tests;
