//! The writing connection of the ledger, which one thread owns.

use std::sync::Arc;

use weir_core::StorageError;

use super::database::Database;
use crate::changed_paths::ChangedPaths;
use crate::data_folder::FolderLock;
use crate::ledger::sql_connection::{SqlConnection, SqlResult};
use crate::ledger::storage_usage;

/// The writing connection of the ledger.
pub(crate) struct LedgerWriter {
    pub(super) database: Database,
    /// Stored files that changed. Empty if another process may hold the data folder.
    pub(super) changed_paths: Arc<ChangedPaths>,
    /// `None` if another process may hold the data folder.
    pub(super) _lock: Option<Arc<FolderLock>>,
}

impl LedgerWriter {
    /// Runs `work` in a transaction that also saves the sizes of changed files. The changes are durable when the call returns.
    pub(super) fn run_transaction_saving_file_sizes<R>(
        &mut self,
        work: impl FnOnce(&SqlConnection<'_>) -> SqlResult<R>,
    ) -> Result<R, StorageError> {
        let updates = self.changed_paths.take_pending_updates();
        let result = self.database.run_transaction(|t| {
            storage_usage::write_path_updates(t, &updates)?;
            work(t)
        })?;
        self.changed_paths.mark_updates_saved(&updates);
        Ok(result)
    }

    /// Marks the paths that are about to change, if an earlier transaction has not done it.
    pub(crate) fn mark_changing_paths(&mut self) -> Result<(), StorageError> {
        match self.changed_paths.has_unmarked_path() {
            true => self.save_changed_file_sizes(),
            false => Ok(()),
        }
    }

    /// Refuses later changes of files and saves the last sizes.
    pub(super) fn refuse_changes_and_save_sizes(&mut self) -> Result<(), StorageError> {
        self.changed_paths.refuse_later_changes();
        self.save_changed_file_sizes()
    }

    /// Saves the sizes of changed files.
    pub(crate) fn save_changed_file_sizes(&mut self) -> Result<(), StorageError> {
        self.run_transaction_saving_file_sizes(|_| Ok(()))
    }
}
