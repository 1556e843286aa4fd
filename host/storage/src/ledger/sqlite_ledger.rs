//! The ledger of the process that holds the data folder. Each port is implemented beside its rows.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Transaction;
use weir_core::StorageError;

use super::database::{Database, LEDGER_NAME, ledger_path};
use super::reader::LedgerReader;
use super::storage_usage::{list_changing_paths, write_measured_byte_count};
use super::tenant_admin::TenantAdmin;
use super::writer::LedgerWriter;
use crate::changed_paths::ChangedPaths;
use crate::data_folder::{FolderLock, size_on_disk};
use crate::storage_usage::StorageUsageTracker;
use crate::worker_thread::WorkerThread;

/// Implements [`Ledger`](weir_core::ports::Ledger), [`ComponentStateStore`](weir_core::ports::ComponentStateStore),
/// [`TenantStore`](weir_core::tenancy::TenantStore), [`JobRequestStore`](weir_core::job_request::JobRequestStore), [`PipelineStore`](weir_core::revision::PipelineStore),
/// [`ShadowStore`](weir_core::shadow::ShadowStore), [`UsageStore`](weir_core::usage::UsageStore) and
/// [`DocumentRemovalStore`](weir_core::document_removal::DocumentRemovalStore) with a SQLite file.
pub struct SqliteLedger {
    pub(super) writer: Arc<WorkerThread<LedgerWriter>>,
    pub(super) reader: LedgerReader,
    pub(super) tenant_admin: TenantAdmin,
    pub(super) changed_paths: Arc<ChangedPaths>,
}

impl SqliteLedger {
    /// Opens `<data>/ledger.db` and creates it if it does not exist. Measures the stored files that changed when the last process ended.
    /// Blocks on the disk.
    pub(crate) fn open_or_create(data: &Path, lock: Arc<FolderLock>) -> Result<Self, StorageError> {
        let file = ledger_path(data);
        let database = Database::open_or_create_with_upgrade(&file)?;
        measure_changing_paths(&database, data)?;
        let changed_paths = Arc::<ChangedPaths>::default();
        let writer = LedgerWriter {
            database,
            changed_paths: Arc::clone(&changed_paths),
            _lock: Some(lock),
        };
        let writer = Arc::new(WorkerThread::start("weir-ledger", LEDGER_NAME.into(), writer)?);
        Ok(Self {
            tenant_admin: TenantAdmin::from_writer(Arc::clone(&writer), LedgerReader::for_file(file.clone())),
            writer,
            reader: LedgerReader::for_file(file),
            changed_paths,
        })
    }

    /// Opens the ledger and the lock of a data folder.
    #[cfg(test)]
    pub(crate) fn open_for_test(data: &Path) -> Self {
        Self::open_or_create(data, Arc::new(FolderLock::acquire_with_timeout(data).unwrap())).unwrap()
    }

    /// Returns the handle through which stored files are changed.
    pub(crate) fn storage_usage(&self) -> StorageUsageTracker {
        StorageUsageTracker::new(Arc::clone(&self.changed_paths), Arc::clone(&self.writer))
    }

    /// Returns when all earlier commits are done and the file is closed. Every later commit fails, and so does every later change of a
    /// tenant's stored files.
    pub async fn close(&self) {
        if let Err(error) = self.writer.run(LedgerWriter::refuse_changes_and_save_sizes).await {
            tracing::warn!(%error, "the sizes of the last changed files could not be saved and are measured at the next start");
        }
        self.writer.close().await;
        self.reader.close_idle_connections();
        self.tenant_admin.close_idle_connections();
    }

    pub(super) async fn run_write_transaction<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        self.writer
            .run(move |writer| writer.run_transaction_saving_file_sizes(work))
            .await
    }
}

/// Measures the paths that the last process was changing when it ended without closing the ledger.
fn measure_changing_paths(database: &Database, data: &Path) -> Result<(), StorageError> {
    let mut measured = database.with_connection(list_changing_paths)?;
    if measured.is_empty() {
        return Ok(());
    }
    let mut sizes = Vec::new();
    measured.retain(|(tenant, path)| match size_on_disk(&data.join(path)) {
        Ok(bytes) => {
            sizes.push(bytes);
            true
        }
        Err(error) => {
            tracing::warn!(%tenant, path, %error, "stored files could not be measured: their last known size applies until the next start");
            false
        }
    });
    database.run_transaction(|t| {
        let mut measured = measured.iter().zip(sizes);
        measured.try_for_each(|((tenant, path), bytes)| write_measured_byte_count(t, tenant, path, bytes))
    })
}
