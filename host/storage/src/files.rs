//! Files that tenants gave: `<root>/<tenant>/<name>`.
//!
//! A file is received in a folder that the next opener empties, synced, renamed into its tenant's folder, and that folder
//! synced: unlike what is made from it, a file that was acknowledged must not be lost.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weir_core::{StorageError, TenantId};

use crate::folder::{make_private, sync_folder};
use crate::kept::{Kept, size};
use crate::location::Location;

/// Holds what is being received. No tenant can have a name with a dot.
const UNFINISHED: &str = ".unfinished";

/// A folder of them.
pub(crate) struct TenantFiles {
    /// What errors call one of them.
    kind: &'static str,
    root: PathBuf,
    kept: Arc<Kept>,
    next: AtomicU64,
}

impl TenantFiles {
    /// Opens the folder, making it if need be. Blocks on the disk. Only one process may have it open: another's unfinished
    /// files are removed.
    pub(crate) fn open(kind: &'static str, root: PathBuf, kept: Arc<Kept>) -> Result<Self, StorageError> {
        let unfinished = root.join(UNFINISHED);
        match fs::remove_dir_all(&unfinished) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(Location::below(&root, kind, &unfinished).io(&e));
            }
            _ => {}
        }
        make_private(&unfinished)?;
        Ok(Self {
            kind,
            root,
            kept,
            next: AtomicU64::new(0),
        })
    }

    /// Does `work` where it may wait for the disk.
    pub(crate) async fn blocking<R: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<R, StorageError> + Send + 'static,
    ) -> Result<R, StorageError> {
        let files = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&files)).await {
            Ok(result) => result,
            Err(e) => Err(StorageError::Failed {
                what: format!("the folder of each {}", self.kind),
                reason: e.to_string(),
            }),
        }
    }

    /// Something in the folder, for errors.
    pub(crate) fn located(&self, path: &Path) -> Location {
        Location::below(&self.root, self.kind, path)
    }

    /// The folder of all of them.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A number that no other call has given.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Where a file may be received.
    pub(crate) fn unfinished(&self) -> PathBuf {
        self.root.join(UNFINISHED).join(self.number().to_string())
    }

    fn folder(&self, tenant: &TenantId) -> PathBuf {
        self.root.join(tenant.as_str())
    }

    /// Where a file is, or would be.
    pub(crate) fn path(&self, tenant: &TenantId, name: &str) -> PathBuf {
        self.folder(tenant).join(name)
    }

    /// Keeps what was received; durable when it returns.
    pub(crate) fn commit(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        name: &str,
    ) -> Result<(), StorageError> {
        let (folder, path) = (self.folder(tenant), self.path(tenant, name));
        let io = |e: io::Error| self.located(&path).io(&e);
        File::open(unfinished)
            .and_then(|file| file.sync_all())
            .map_err(io)?;
        let new_folder = !folder.exists();
        make_private(&folder)?;
        let committed = self.kept.change(tenant, &path, || {
            let grown = size(unfinished)? - size(&path)?;
            fs::rename(unfinished, &path)?;
            // Renaming one link of a file over another of the same file leaves both.
            remove_if_there(unfinished)?;
            Ok(grown)
        });
        committed.map_err(io)?;
        sync_folder(&folder).map_err(io)?;
        if new_folder {
            sync_folder(&self.root).map_err(io)?;
        }
        Ok(())
    }

    /// Removes a file; whether it was there.
    pub(crate) fn remove(&self, tenant: &TenantId, name: &str) -> Result<bool, StorageError> {
        let path = self.path(tenant, name);
        let mut was_kept = true;
        let removed = self.kept.change(tenant, &path, || {
            let bytes = size(&path)?;
            match fs::remove_file(&path) {
                Err(e) if e.kind() == ErrorKind::NotFound => was_kept = false,
                removed => removed?,
            }
            Ok(-bytes)
        });
        removed.map_err(|e| self.located(&path).io(&e))?;
        Ok(was_kept)
    }

    /// Names of a tenant's files, in order.
    pub(crate) fn list(&self, tenant: &TenantId) -> Result<Vec<String>, StorageError> {
        let folder = self.folder(tenant);
        let io = |e: io::Error| self.located(&folder).io(&e);
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry.map_err(io)?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes all of a tenant's files.
    pub(crate) fn clear(&self, tenant: &TenantId) -> Result<(), StorageError> {
        for name in self.list(tenant)? {
            self.remove(tenant, &name)?;
        }
        // One that has come meanwhile stays, and the folder with it.
        let _ = fs::remove_dir(self.folder(tenant));
        Ok(())
    }
}

/// Removes a file; one that is not there is no error.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
