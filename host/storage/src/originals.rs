//! Originals as files: `<data>/originals/<tenant>/<document>`.
//!
//! What is staged for a job is in a folder that is not emptied at the next start, under a name that says whose it is.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use weir_core::original::{Originals, Staged};
use weir_core::{DocumentId, JobId, StorageError, TenantId};

use crate::files::{TenantFiles, remove_if_there};
use crate::folder::{free_bytes, make_private, sync_folder};
use crate::kept::Kept;
use crate::location::Location;

/// Holds `<tenant>.<job>.<document>.<number>`; nothing in it has a dot.
const STAGED: &str = ".staged";

/// An [`Originals`] of files.
pub struct FileOriginals(Arc<TenantFiles>);

impl FileOriginals {
    /// Opens `<data>/originals`, making it if need be. Blocks on the disk. Only one process may have it open: another's
    /// unfinished files are removed.
    pub(crate) fn open(data: &Path, kept: Arc<Kept>) -> Result<Self, StorageError> {
        let files = TenantFiles::open("document", data.join("originals"), kept)?;
        make_private(&files.root().join(STAGED))?;
        Ok(Self(Arc::new(files)))
    }
}

#[async_trait]
impl Originals for FileOriginals {
    fn unfinished(&self) -> PathBuf {
        self.0.unfinished()
    }

    async fn stage(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<PathBuf, StorageError> {
        let name = format!("{tenant}.{job}.{document}.{}", self.0.number());
        let unfinished = unfinished.to_owned();
        self.0
            .blocking(move |files| stage(files, &unfinished, &name))
            .await
    }

    async fn stage_kept(
        &self,
        tenant: &TenantId,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<Option<PathBuf>, StorageError> {
        let name = format!("{tenant}.{job}.{document}.{}", self.0.number());
        let kept = self.0.path(tenant, &document.to_string());
        self.0
            .blocking(move |files| stage_kept(files, &kept, &name))
            .await
    }

    async fn staged(&self) -> Result<Vec<Staged>, StorageError> {
        self.0.blocking(staged).await
    }

    async fn commit(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        let (tenant, unfinished, name) = (tenant.clone(), unfinished.to_owned(), document.to_string());
        self.0
            .blocking(move |files| files.commit(&tenant, &unfinished, &name))
            .await
    }

    fn free_bytes(&self) -> Option<u64> {
        free_bytes(self.0.root())
    }

    fn path(&self, tenant: &TenantId, document: &DocumentId) -> PathBuf {
        self.0.path(tenant, &document.to_string())
    }

    async fn remove(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        let (tenant, name) = (tenant.clone(), document.to_string());
        self.0.blocking(move |files| files.remove(&tenant, &name)).await
    }

    async fn list(&self, tenant: &TenantId) -> Result<Vec<DocumentId>, StorageError> {
        let tenant = tenant.clone();
        let names = self.0.blocking(move |files| files.list(&tenant)).await?;
        let mut documents: Vec<DocumentId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        documents.sort_unstable();
        Ok(documents)
    }

    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let tenant = tenant.clone();
        self.0
            .blocking(move |files| {
                for staged in staged(files)?.into_iter().filter(|s| s.tenant == tenant) {
                    remove_if_there(&staged.path).map_err(|e| files.located(&staged.path).io(&e))?;
                }
                files.clear(&tenant)
            })
            .await
    }
}

fn stage(files: &TenantFiles, unfinished: &Path, name: &str) -> Result<PathBuf, StorageError> {
    let folder = files.root().join(STAGED);
    let staged = folder.join(name);
    File::open(unfinished)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(unfinished, &staged))
        .and_then(|()| sync_folder(&folder))
        .map_err(|e| Location::below(&folder, "upload", &staged).io(&e))?;
    Ok(staged)
}

/// Links the kept file to a second name, or copies it where the file system has no hard links.
fn stage_kept(files: &TenantFiles, kept: &Path, name: &str) -> Result<Option<PathBuf>, StorageError> {
    let folder = files.root().join(STAGED);
    let staged = folder.join(name);
    let linked = fs::hard_link(kept, &staged).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Err(error),
        _ => fs::copy(kept, &staged)
            .and_then(|_| File::open(&staged)?.sync_all())
            .inspect_err(|_| drop(fs::remove_file(&staged))),
    });
    match linked.and_then(|()| sync_folder(&folder)) {
        Ok(()) => Ok(Some(staged)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Location::below(&folder, "upload", &staged).io(&error)),
    }
}

fn staged(files: &TenantFiles) -> Result<Vec<Staged>, StorageError> {
    let folder = files.root().join(STAGED);
    let io = |e: std::io::Error| files.located(&folder).io(&e);
    let mut all = Vec::new();
    for entry in fs::read_dir(&folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        all.extend(name.to_str().and_then(|name| staged_as(name, entry.path())));
    }
    Ok(all)
}

/// What the name of a staged file says.
fn staged_as(name: &str, path: PathBuf) -> Option<Staged> {
    let mut parts = name.split('.');
    Some(Staged {
        tenant: parts.next()?.parse().ok()?,
        job: parts.next()?.parse().ok()?,
        document: parts.next()?.parse().ok()?,
        path,
    })
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
    fn free_space_is_that_of_the_disk() {
        let (_dir, _kept, originals) = open();
        assert!(originals.free_bytes().is_some_and(|bytes| bytes > 0));
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
