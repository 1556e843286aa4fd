//! Copies of uploads and components in `<data>/cache/<kind>/<tenant>/<name>`, because workers read files.
//!
//! The names are hashes, so a copy never becomes outdated. Each tenant has copies of its own: a tenant that has not stored a file must
//! not open it by knowing its hash. Each new copy removes the least recently used ones above a limit, but not those in use, so the folder
//! can be larger for the time that jobs need. One task downloads an object and all others wait for it. A copy is written under a temporary
//! name, synced, compared with its hash and renamed, so that a complete name has complete bytes even after a power failure.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use lru::LruCache;
use parking_lot::Mutex;
use weir_core::local_file::LocalFile;
use weir_core::{StorageError, TenantId};

use super::bucket::S3Bucket;
use crate::data_folder::{available_file_system_bytes, create_private_folder};
use crate::path_with_public_name::PathWithPublicName;

/// The folder in the data folder.
const CACHE_FOLDER: &str = "cache";
/// The folder of files that are being received or downloaded. No kind is equal to it.
const UNFINISHED_FOLDER: &str = ".unfinished";

/// Identifies a cached file, and the object that it is a copy of.
#[derive(Debug, Clone, Copy)]
pub(super) struct CachedObject<'a> {
    /// The folder of the cache and the first part of the key: `uploads` or `components`.
    pub(super) kind: &'static str,
    pub(super) tenant: &'a TenantId,
    pub(super) name: &'a str,
    /// SHA-256 of its bytes.
    pub(super) digest: [u8; 32],
    /// The name in errors.
    pub(super) what: &'a str,
}

impl CachedObject<'_> {
    /// Returns the key of the object, which is also the path in the cache.
    pub(super) fn key(&self) -> String {
        format!("{}/{}/{}", self.kind, self.tenant, self.name)
    }
}

struct Copy {
    bytes: u64,
    /// Shared with the users of the copy.
    lease: Arc<()>,
}

struct CacheState {
    copies: LruCache<String, Copy>,
    total_bytes: u64,
}

/// A bounded cache of files.
pub(super) struct LocalCache {
    root: PathBuf,
    max_bytes: u64,
    state: Mutex<CacheState>,
    /// A lock for each object that is being downloaded.
    downloads: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    next_number: AtomicU64,
}

impl LocalCache {
    /// Opens the cache with the copies of an earlier process, and removes unfinished files. Blocks on the disk.
    pub(super) fn open_and_remove_unfinished_files(
        data: &Path,
        max_bytes: u64,
    ) -> Result<Self, StorageError> {
        let root = data.join(CACHE_FOLDER);
        let unfinished = root.join(UNFINISHED_FOLDER);
        let io = |error: std::io::Error| PathWithPublicName::new("the cache folder", &root).io_error(&error);
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        create_private_folder(&unfinished)?;
        let mut found = Vec::new();
        list_files(&root, "", &mut found).map_err(io)?;
        found.sort_unstable();
        let cache = Self {
            max_bytes,
            state: Mutex::new(CacheState {
                copies: LruCache::unbounded(),
                total_bytes: 0,
            }),
            downloads: Mutex::default(),
            next_number: AtomicU64::new(0),
            root,
        };
        for (_, key, bytes) in found {
            cache.insert(key, bytes);
        }
        Ok(cache)
    }

    /// Returns a new path for a file that is being received or downloaded.
    pub(super) fn new_temporary_path(&self) -> PathBuf {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        self.root.join(UNFINISHED_FOLDER).join(number.to_string())
    }

    /// Returns the free bytes on the disk of the cache; `None` if the system does not report them.
    pub(super) fn available_disk_bytes(&self) -> Option<u64> {
        available_file_system_bytes(&self.root)
    }

    /// Returns a copy of an object, and downloads it if it is not cached. `None` if it does not exist.
    pub(super) async fn open(
        &self,
        bucket: &S3Bucket,
        object: CachedObject<'_>,
    ) -> Result<Option<LocalFile>, StorageError> {
        let key = object.key();
        if let Some(copy) = self.find(&key) {
            return Ok(Some(copy));
        }
        let lock = Arc::clone(self.downloads.lock().entry(key.clone()).or_default());
        let guard = lock.lock().await;
        let opened = match self.find(&key) {
            Some(copy) => Ok(Some(copy)),
            None => self.download(bucket, object, key.clone()).await,
        };
        drop(guard);
        let mut downloads = self.downloads.lock();
        // This task and the map.
        if Arc::strong_count(&lock) <= 2 {
            downloads.remove(&key);
        }
        opened
    }

    async fn download(
        &self,
        bucket: &S3Bucket,
        object: CachedObject<'_>,
        key: String,
    ) -> Result<Option<LocalFile>, StorageError> {
        let temporary = TemporaryFile(self.new_temporary_path());
        let Some((bytes, digest)) = bucket.download(&key, object.what, &temporary.0).await? else {
            return Ok(None);
        };
        if digest != object.digest {
            return Err(StorageError::Damaged {
                what: object.what.to_owned(),
                reason: "the bytes on the S3 server do not have its hash".into(),
            });
        }
        let path = self.root.join(&key);
        if let Some(folder) = path.parent() {
            create_private_folder(folder)?;
        }
        fs::rename(&temporary.0, &path)
            .map_err(|error| PathWithPublicName::new(object.what, &path).io_error(&error))?;
        Ok(Some(self.insert(key, bytes)))
    }

    /// Returns a cached copy and marks it as used.
    fn find(&self, key: &str) -> Option<LocalFile> {
        let path = self.root.join(key);
        let mut state = self.state.lock();
        let lease = state.copies.get(key).map(|copy| Arc::clone(&copy.lease))?;
        if path.exists() {
            Some(LocalFile::with_lease(path, lease))
        } else {
            // Somebody has emptied the folder.
            state.remove(key);
            None
        }
    }

    /// Adds a copy that is in its place, and removes others above the limit.
    fn insert(&self, key: String, bytes: u64) -> LocalFile {
        let (path, lease) = (self.root.join(&key), Arc::new(()));
        let file = LocalFile::with_lease(path, lease.clone());
        let mut state = self.state.lock();
        state.remove(&key);
        state.total_bytes += bytes;
        state.copies.put(key, Copy { bytes, lease });
        while state.total_bytes > self.max_bytes {
            let is_unused = |copy: &Copy| Arc::strong_count(&copy.lease) == 1;
            let oldest = state.copies.iter().rev().find(|(_, copy)| is_unused(copy));
            let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            self.remove_copy(&mut state, &key);
        }
        file
    }

    /// Removes the copy of an object that was deleted.
    pub(super) fn remove(&self, key: &str) {
        self.remove_copy(&mut self.state.lock(), key);
    }

    /// Removes the copies whose keys start with `prefix`.
    pub(super) fn remove_prefix(&self, prefix: &str) {
        let mut state = self.state.lock();
        let keys = state.copies.iter().map(|(key, _)| key.clone());
        let keys: Vec<String> = keys.filter(|key| key.starts_with(prefix)).collect();
        for key in keys {
            self.remove_copy(&mut state, &key);
        }
    }

    fn remove_copy(&self, state: &mut CacheState, key: &str) {
        if state.remove(key)
            && let Err(error) = fs::remove_file(self.root.join(key))
        {
            tracing::warn!(key, %error, "cannot remove a file of the cache");
        }
    }
}

impl CacheState {
    fn remove(&mut self, key: &str) -> bool {
        let removed = self.copies.pop(key);
        self.total_bytes -= removed.as_ref().map_or(0, |copy| copy.bytes);
        removed.is_some()
    }
}

/// Removes a file when dropped, if it was not renamed.
struct TemporaryFile(PathBuf);

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Lists the copies below a folder with the time of their download, their keys and their sizes.
fn list_files(root: &Path, folder: &str, found: &mut Vec<(SystemTime, String, u64)>) -> std::io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let (Ok(name), metadata) = (entry.file_name().into_string(), entry.metadata()?) else {
            continue;
        };
        let key = match folder {
            "" => name,
            folder => format!("{folder}/{name}"),
        };
        match metadata.is_dir() {
            true if key == UNFINISHED_FOLDER => {}
            true => list_files(root, &key, found)?,
            false => found.push((metadata.modified()?, key, metadata.len())),
        }
    }
    Ok(())
}
