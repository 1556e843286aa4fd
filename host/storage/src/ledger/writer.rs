//! The writing connection of the ledger, which one thread owns.

use std::sync::Arc;

use super::database::Database;
use crate::data_folder::FolderLock;

pub(super) struct LedgerWriter {
    pub(super) database: Database,
    /// `None` if another process may hold the data folder.
    pub(super) _lock: Option<Arc<FolderLock>>,
}
