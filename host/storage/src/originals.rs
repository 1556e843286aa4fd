//! Originals as files: `<data>/originals/<tenant>/<document>`.
//!
//! A file is received in a folder that the next opener empties, synced, renamed into its tenant's folder, and that folder
//! synced: unlike blobs, which can be made again from it, an original that was acknowledged must not be lost.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use weir_core::original::Originals;
use weir_core::{DocumentId, StorageError, TenantId};

use crate::folder::{make_private, sync_folder};
use crate::kept::{Kept, size};

/// Holds what is being received. No tenant can have a name with a dot.
const UNFINISHED: &str = ".unfinished";

/// An [`Originals`] of files.
pub struct FileOriginals {
    inner: Arc<Inner>,
    next: AtomicU64,
}

struct Inner {
    root: PathBuf,
    kept: Arc<Kept>,
}

impl FileOriginals {
    /// Opens `<data>/originals`, making it if need be. Blocks on the disk. Only one process may have it open: another's
    /// unfinished files are removed.
    pub(crate) fn open(data: &Path, kept: Arc<Kept>) -> Result<Self, StorageError> {
        let root = data.join("originals");
        let unfinished = root.join(UNFINISHED);
        match fs::remove_dir_all(&unfinished) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(&unfinished, &e)),
            _ => {}
        }
        make_private(&unfinished)?;
        Ok(Self {
            inner: Arc::new(Inner { root, kept }),
            next: AtomicU64::new(0),
        })
    }

    async fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<R, StorageError> + Send + 'static,
    ) -> Result<R, StorageError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(e) => Err(StorageError::Failed {
                what: self.inner.root.display().to_string(),
                reason: e.to_string(),
            }),
        }
    }
}

#[async_trait]
impl Originals for FileOriginals {
    fn unfinished(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.inner.root.join(UNFINISHED).join(number.to_string())
    }

    async fn commit(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        let (tenant, unfinished, document) = (tenant.clone(), unfinished.to_owned(), *document);
        self.blocking(move |inner| inner.commit(&tenant, &unfinished, &document))
            .await
    }

    fn path(&self, tenant: &TenantId, document: &DocumentId) -> PathBuf {
        self.inner.path(tenant, document)
    }

    async fn remove(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.blocking(move |inner| inner.remove(&tenant, &document)).await
    }

    async fn list(&self, tenant: &TenantId) -> Result<Vec<DocumentId>, StorageError> {
        let tenant = tenant.clone();
        self.blocking(move |inner| inner.list(&tenant)).await
    }

    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let tenant = tenant.clone();
        self.blocking(move |inner| {
            for document in inner.list(&tenant)? {
                inner.remove(&tenant, &document)?;
            }
            // One that has come meanwhile stays, and the folder with it.
            let _ = fs::remove_dir(inner.folder(&tenant));
            Ok(())
        })
        .await
    }
}

impl Inner {
    fn folder(&self, tenant: &TenantId) -> PathBuf {
        self.root.join(tenant.as_str())
    }

    fn path(&self, tenant: &TenantId, document: &DocumentId) -> PathBuf {
        self.folder(tenant).join(document.to_string())
    }

    fn commit(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        let (folder, path) = (self.folder(tenant), self.path(tenant, document));
        let io = |e: std::io::Error| failed(&path, &e);
        File::open(unfinished)
            .and_then(|file| file.sync_all())
            .map_err(io)?;
        let new_folder = !folder.exists();
        make_private(&folder)?;
        let committed = self.kept.change(tenant, &path, || {
            let grown = size(unfinished)? - size(&path)?;
            fs::rename(unfinished, &path)?;
            Ok(grown)
        });
        committed.map_err(io)?;
        sync_folder(&folder).map_err(io)?;
        if new_folder {
            sync_folder(&self.root).map_err(io)?;
        }
        Ok(())
    }

    fn remove(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        let path = self.path(tenant, document);
        let mut was_kept = true;
        let removed = self.kept.change(tenant, &path, || {
            let bytes = size(&path)?;
            match fs::remove_file(&path) {
                Err(e) if e.kind() == ErrorKind::NotFound => was_kept = false,
                removed => removed?,
            }
            Ok(-bytes)
        });
        removed.map_err(|e| failed(&path, &e))?;
        Ok(was_kept)
    }

    fn list(&self, tenant: &TenantId) -> Result<Vec<DocumentId>, StorageError> {
        let folder = self.folder(tenant);
        let io = |e: std::io::Error| failed(&folder, &e);
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io)?,
        };
        let mut documents = Vec::new();
        for entry in entries {
            let name = entry.map_err(io)?.file_name();
            documents.extend(name.to_str().and_then(|name| name.parse::<DocumentId>().ok()));
        }
        documents.sort_unstable();
        Ok(documents)
    }
}

fn failed(path: &Path, error: &std::io::Error) -> StorageError {
    StorageError::io(path.display().to_string(), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, Arc<Kept>, FileOriginals) {
        let dir = tempfile::tempdir().unwrap();
        let kept = Arc::new(Kept::new([]));
        let originals = FileOriginals::open(dir.path(), Arc::clone(&kept)).unwrap();
        (dir, kept, originals)
    }

    async fn give(originals: &FileOriginals, tenant: &TenantId, bytes: &[u8]) -> DocumentId {
        let (unfinished, document) = (originals.unfinished(), DocumentId::of(bytes));
        fs::write(&unfinished, bytes).unwrap();
        originals.commit(tenant, &unfinished, &document).await.unwrap();
        assert!(!unfinished.exists());
        document
    }

    #[tokio::test]
    async fn originals_are_kept_by_tenant_until_they_are_removed() {
        let (_dir, kept, originals) = open();
        let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let one = give(&originals, &a, b"one").await;
        let two = give(&originals, &a, b"second").await;
        give(&originals, &a, b"one").await;
        give(&originals, &b, b"one").await;
        assert_eq!(fs::read(originals.path(&a, &two)).unwrap(), b"second");
        let mut both = [one, two];
        both.sort_unstable();
        assert_eq!(originals.list(&a).await.unwrap(), both);
        assert_eq!((kept.bytes(&a), kept.bytes(&b)), (9, 3));
        assert!(originals.remove(&a, &one).await.unwrap());
        assert!(!originals.remove(&a, &one).await.unwrap());
        assert_eq!((kept.bytes(&a), kept.bytes(&b)), (6, 3));
        originals.clear(&a).await.unwrap();
        assert!(originals.list(&a).await.unwrap().is_empty());
        assert_eq!(originals.list(&b).await.unwrap(), [one]);
        assert_eq!((kept.bytes(&a), kept.bytes(&b)), (0, 3));
    }

    #[tokio::test]
    async fn what_a_killed_process_was_receiving_is_cleared() {
        let (dir, kept, originals) = open();
        let left = originals.unfinished();
        fs::write(&left, "half").unwrap();
        assert_ne!(left, originals.unfinished());
        drop(originals);
        let originals = FileOriginals::open(dir.path(), kept).unwrap();
        assert!(!left.exists());
        let missing = originals
            .commit(&TenantId::single(), &left, &DocumentId::of(b"half"))
            .await;
        assert!(
            matches!(missing, Err(StorageError::Missing { .. })),
            "{missing:?}"
        );
    }

    #[test]
    fn only_the_owner_can_enter() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, _kept, _originals) = open();
        for folder in ["originals", "originals/.unfinished"] {
            let mode = fs::metadata(dir.path().join(folder))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o077, 0, "{folder}");
        }
    }
}
