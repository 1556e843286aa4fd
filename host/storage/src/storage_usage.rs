//! Changes of the files that count as a tenant's stored bytes: uploads, components and blobs.
//!
//! The ledger has the bytes, by path and by tenant. See [`ChangedPaths`] for the order of writes.

use std::io;
use std::sync::Arc;

use weir_core::{StorageError, TenantId};

use crate::changed_paths::ChangedPaths;
use crate::ledger::LedgerDatabase;

/// Maximum number of paths that one transaction marks. Callers with more paths divide them.
pub(crate) const MAX_MARKED_PATHS: usize = 1000;

/// Records every change of stored files in the ledger.
#[derive(Clone)]
pub(crate) struct StorageUsageTracker {
    changed_paths: Arc<ChangedPaths>,
    database: Arc<LedgerDatabase>,
}

impl StorageUsageTracker {
    pub(crate) const fn new(changed_paths: Arc<ChangedPaths>, database: Arc<LedgerDatabase>) -> Self {
        Self {
            changed_paths,
            database,
        }
    }

    /// Marks several paths as changing, with one transaction. Optional: a change marks its own path if it is not marked yet.
    /// Blocks on the disk.
    pub(crate) fn mark_paths_before_changes(
        &self,
        tenant: &TenantId,
        paths: impl IntoIterator<Item = String>,
    ) -> Result<(), StorageError> {
        if self.changed_paths.add_changing_paths(tenant, paths) {
            // Callers that wait at the same time share a transaction.
            self.database.mark_changing_paths()?;
        }
        Ok(())
    }

    /// Runs `change`, which changes files at `path` of the data folder and returns by how many bytes they grew. If it fails it must leave
    /// the files as they were. All changes exclude each other, so `change` must be as short as a rename. The outer error is one of the
    /// ledger. Blocks on the disk.
    pub(crate) fn change_files_and_count_bytes(
        &self,
        tenant: &TenantId,
        path: &str,
        mut change: impl FnOnce() -> io::Result<i64>,
    ) -> Result<io::Result<()>, StorageError> {
        loop {
            match self.changed_paths.run_change_if_marked(tenant, path, change) {
                Ok(changed) => return Ok(changed),
                Err(unused) => change = unused,
            }
            self.mark_paths_before_changes(tenant, [path.to_owned()])?;
        }
    }

    /// Adds to the counted bytes of a path that has no file on this machine. The next transaction of the ledger saves them. They are lost
    /// if the process is killed before.
    pub(crate) fn add_bytes_without_mark(&self, tenant: &TenantId, path: &str, bytes: i64) {
        self.changed_paths.add_bytes_without_mark(tenant, path, bytes);
    }

    /// Like [`StorageUsageTracker::save_changed_file_sizes`], without blocking the caller.
    pub(crate) async fn save_changed_sizes(&self) -> Result<(), StorageError> {
        self.database.save_changed_file_sizes_async().await
    }

    /// Saves the sizes of changed files now and not with the next transaction. Removals end with it, so that a tenant can use the space.
    /// Blocks on the disk.
    pub(crate) fn save_changed_file_sizes(&self) -> Result<(), StorageError> {
        self.database.save_changed_file_sizes()
    }

    /// Runs `work`, which changes no sizes, while no file changes.
    pub(crate) fn run_while_no_file_changes<R>(&self, work: impl FnOnce() -> R) -> R {
        self.changed_paths.run_while_no_file_changes(work)
    }

    /// Returns the bytes that a tenant stores.
    #[cfg(test)]
    pub(crate) async fn count_stored_bytes(&self, tenant: &TenantId) -> u64 {
        self.database.save_and_count_stored_bytes(tenant).await
    }
}

#[cfg(test)]
mod tests;
