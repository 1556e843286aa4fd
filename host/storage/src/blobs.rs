//! Blobs as files: `<data>/blobs/<tenant>/<key>`.
//!
//! A blob is written under another name and renamed into place, so a reader sees all of it or none. What a killed process
//! left half-written lies in one folder that the next opener empties. Writing does not wait for the disk; [`flush`] does,
//! once for a group of blobs, which is what the engine's group commits want: a sync for each page image would cost more
//! than drawing it.
//!
//! [`flush`]: BlobStore::flush

mod flush;
mod unsynced;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::sleep;
use weir_core::ports::BlobStore;
use weir_core::{StorageError, TenantId};

use self::unsynced::{SyncFile, Unsynced};
use crate::folder::make_private;
use crate::kept::{Kept, size};
use crate::location::Location;

/// Longest key in bytes.
const MAX_KEY: usize = 1024;
/// Longest part of a key between two slashes; file systems take 255.
const MAX_SEGMENT: usize = 255;
/// Files that may be owed a sync, each with a descriptor. A put beyond that flushes.
const MAX_UNSYNCED: usize = 256;
/// How long a blob is owed a sync at most. Most are flushed with their page; those of a page that was given up are not.
const FLUSH_AFTER: Duration = Duration::from_secs(10);
/// Holds what is being written. No tenant can have a name with a dot.
const UNFINISHED: &str = ".unfinished";

/// A [`BlobStore`] of files.
pub struct FileBlobs {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    kept: Arc<Kept>,
    next: AtomicU64,
    unsynced: Mutex<Unsynced>,
    /// One flush at a time: what another has taken is not durable yet.
    flushing: Mutex<()>,
    sync: Box<SyncFile>,
    /// A flush is due within [`FLUSH_AFTER`].
    is_flush_due: AtomicBool,
}

impl FileBlobs {
    /// Opens `<data>/blobs`, making it if need be. Blocks on the disk. Only one process may have it open: another's
    /// unfinished files are removed.
    pub(crate) fn open(data: &Path, kept: Arc<Kept>) -> Result<Self, StorageError> {
        let root = data.join("blobs");
        let unfinished = root.join(UNFINISHED);
        match fs::remove_dir_all(&unfinished) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(located(&root, &unfinished).io(&e)),
            _ => {}
        }
        make_private(&unfinished)?;
        Ok(Self {
            inner: Arc::new(Inner {
                root,
                kept,
                next: AtomicU64::new(0),
                unsynced: Mutex::default(),
                flushing: Mutex::new(()),
                sync: Box::new(File::sync_all),
                is_flush_due: AtomicBool::new(false),
            }),
        })
    }

    /// Flushes in a while, so that no descriptor is kept for long.
    fn flush_later(&self) {
        if self.inner.is_flush_due.swap(true, Ordering::Relaxed) {
            return;
        }
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            sleep(FLUSH_AFTER).await;
            let Some(inner) = inner.upgrade() else { return };
            inner.is_flush_due.store(false, Ordering::Relaxed);
            let flushed = tokio::task::spawn_blocking(move || inner.flush()).await;
            if let Ok(Err(error)) = flushed {
                // The blobs are still owed a sync, so the next flush says it again to those who wait for it.
                tracing::warn!(%error, "blobs could not be flushed");
            }
        });
    }

    async fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<R, StorageError> + Send + 'static,
    ) -> Result<R, StorageError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(e) => Err(StorageError::Failed {
                what: "the folder of each blob".into(),
                reason: e.to_string(),
            }),
        }
    }
}

#[async_trait]
impl BlobStore for FileBlobs {
    async fn put(&self, tenant: &TenantId, key: &str, bytes: &[u8]) -> Result<(), StorageError> {
        check_key(key)?;
        let (tenant, key, bytes) = (tenant.clone(), key.to_owned(), bytes.to_vec());
        self.blocking(move |inner| inner.put(&tenant, &key, &bytes))
            .await?;
        self.flush_later();
        Ok(())
    }

    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        check_key(key)?;
        let path = self.inner.tenant(tenant).join(key);
        self.blocking(move |inner| match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if is_no_blob(&e) => Ok(None),
            Err(e) => Err(located(&inner.root, &path).io(&e)),
        })
        .await
    }

    async fn list(&self, tenant: &TenantId, prefix: &str) -> Result<Vec<String>, StorageError> {
        check_prefix(prefix)?;
        let (tenant, prefix) = (self.inner.tenant(tenant), prefix.to_owned());
        self.blocking(move |inner| keys(&inner.root, &tenant, &prefix))
            .await
    }

    async fn delete(&self, tenant: &TenantId, prefix: &str) -> Result<(), StorageError> {
        check_prefix(prefix)?;
        let (tenant, prefix) = (tenant.clone(), prefix.to_owned());
        self.blocking(move |inner| inner.delete(&tenant, &prefix)).await
    }

    async fn flush(&self) -> Result<(), StorageError> {
        self.blocking(Inner::flush).await
    }
}

impl Inner {
    fn tenant(&self, tenant: &TenantId) -> PathBuf {
        self.root.join(tenant.as_str())
    }

    /// What is counted as one: the folder that a key begins with.
    fn unit(&self, tenant: &TenantId, key: &str) -> PathBuf {
        let first = key.split_once('/').map_or(key, |(first, _)| first);
        self.tenant(tenant).join(first)
    }

    fn put(&self, tenant: &TenantId, key: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.tenant(tenant).join(key);
        let mut is_full = false;
        let written = self.write(bytes).and_then(|(unfinished, file)| {
            let moved = self.kept.change(tenant, &self.unit(tenant, key), || {
                let grown = i64::try_from(bytes.len()).unwrap_or(i64::MAX) - size(&path)?;
                move_into_place(&unfinished, &path)?;
                // Of several puts of one key the one that was moved last is the one that is synced.
                let mut unsynced = self.unsynced.lock();
                let written = unsynced.written(file, bytes);
                unsynced.files.insert(path.clone(), written);
                is_full = unsynced.files.len() > MAX_UNSYNCED;
                Ok(grown)
            });
            moved.inspect_err(|_| drop(fs::remove_file(&unfinished)))
        });
        written.map_err(|e| located(&self.root, &path).io(&e))?;
        if is_full { self.flush() } else { Ok(()) }
    }

    /// Writes a file that has no name yet that anyone reads.
    fn write(&self, bytes: &[u8]) -> io::Result<(PathBuf, File)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.root.join(UNFINISHED).join(number.to_string());
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

    fn delete(&self, tenant: &TenantId, prefix: &str) -> Result<(), StorageError> {
        let folder = self.tenant(tenant);
        for key in keys(&self.root, &folder, prefix)? {
            let path = folder.join(&key);
            let deleted = self.kept.change(tenant, &self.unit(tenant, &key), || {
                let bytes = size(&path)?;
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                    _ => remove_empty_parents(&path, &folder),
                }
                self.unsynced.lock().files.remove(&path);
                Ok(-bytes)
            });
            deleted.map_err(|e| located(&self.root, &path).io(&e))?;
        }
        if prefix.is_empty() {
            // Stays if it is not empty, or not there at all.
            let _ = fs::remove_dir(&folder);
        }
        Ok(())
    }
}

/// Renames, making the folders above `path`. A delete next to it may remove a folder that is still empty, so it is tried
/// again. Making one may also fail because it is there and, a moment later, is not; whether it is usable, renaming tells.
fn move_into_place(unfinished: &Path, path: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        if let Some(folder) = path.parent() {
            match fs::create_dir_all(folder) {
                Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => {
                    return Err(e);
                }
                _ => {}
            }
        }
        match fs::rename(unfinished, path) {
            Err(e) if e.kind() == ErrorKind::NotFound && tries < 8 => tries += 1,
            result => return result,
        }
    }
}

/// Keys of a tenant that begin with `prefix`, sorted.
fn keys(root: &Path, tenant: &Path, prefix: &str) -> Result<Vec<String>, StorageError> {
    let folder = prefix
        .rfind('/')
        .and_then(|slash| prefix.get(..slash))
        .unwrap_or("");
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let path = tenant.join(&folder);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(e) if is_no_blob(&e) => continue,
            Err(e) => return Err(located(root, &path).io(&e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| located(root, &path).io(&e))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let key = if folder.is_empty() {
                name
            } else {
                format!("{folder}/{name}")
            };
            let is_folder = entry
                .file_type()
                .map_err(|e| located(root, &path).io(&e))?
                .is_dir();
            if is_folder && (key.starts_with(prefix) || prefix.starts_with(&key)) {
                folders.push(key);
            } else if !is_folder && key.starts_with(prefix) {
                found.push(key);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn remove_empty_parents(path: &Path, tenant: &Path) {
    for folder in path.ancestors().skip(1).take_while(|f| *f != tenant) {
        // A folder that is not empty stays, and so do those above it.
        if fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

fn is_no_blob(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory
    )
}

fn located(root: &Path, path: &Path) -> Location {
    Location::below(root, "blob", path)
}

/// A key is one or more parts joined by `/`; a part is letters, digits, `-`, `_` and `.`, and does not begin with a dot. No
/// such key leaves its tenant's folder.
fn check_key(key: &str) -> Result<(), StorageError> {
    let good = key.len() <= MAX_KEY && key.split('/').all(|part| !part.is_empty() && is_part(part));
    if good { Ok(()) } else { Err(refused(key)) }
}

/// As [`check_key`], but the last part may be missing.
fn check_prefix(prefix: &str) -> Result<(), StorageError> {
    match prefix.rsplit_once('/') {
        _ if prefix.len() > MAX_KEY => Err(refused(prefix)),
        Some((folder, last)) if is_part(last) => check_key(folder),
        None if is_part(prefix) => Ok(()),
        _ => Err(refused(prefix)),
    }
}

fn is_part(part: &str) -> bool {
    part.len() <= MAX_SEGMENT
        && !part.starts_with('.')
        && part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn refused(key: &str) -> StorageError {
    StorageError::Failed {
        what: format!("blob key {:?}", key.chars().take(80).collect::<String>()),
        reason: "a key is parts of letters, digits, '-', '_' and '.', joined by '/', none empty or beginning with a dot"
            .into(),
    }
}

#[cfg(test)]
mod tests;
