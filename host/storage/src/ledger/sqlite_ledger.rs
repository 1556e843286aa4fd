//! The ledger of the process that holds the data folder. Each port is implemented beside its rows.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Transaction;
use weir_core::{StorageError, TenantId};

use super::database::{Database, LEDGER_NAME, ledger_path};
use super::reader::LedgerReader;
use super::storage_usage::{load_storage_usage, write_storage_usage};
use super::tenant_admin::TenantAdmin;
use super::writer::LedgerWriter;
use crate::data_folder::FolderLock;
use crate::storage_usage::StorageUsage;
use crate::worker_thread::WorkerThread;

/// Implements [`Ledger`](weir_core::ports::Ledger), [`ComponentStateStore`](weir_core::ports::ComponentStateStore), [`TenantStore`](weir_core::tenancy::TenantStore),
/// [`JobRequestStore`](weir_core::job_request::JobRequestStore), [`PipelineStore`](weir_core::revision::PipelineStore),
/// [`ShadowStore`](weir_core::shadow::ShadowStore), [`UsageStore`](weir_core::usage::UsageStore) and
/// [`DocumentRemovalStore`](weir_core::document_removal::DocumentRemovalStore) with a SQLite file.
pub struct SqliteLedger {
    pub(super) writer: Arc<WorkerThread<LedgerWriter>>,
    pub(super) reader: LedgerReader,
    pub(super) tenant_admin: TenantAdmin,
    pub(super) storage_usage: Arc<StorageUsage>,
}

impl SqliteLedger {
    /// Opens `<data>/ledger.db` and creates it if it does not exist. Also returns the tenants whose storage usage is exact. Blocks on
    /// the disk.
    pub(crate) fn open(data: &Path, lock: Arc<FolderLock>) -> Result<(Self, Vec<TenantId>), StorageError> {
        let file = ledger_path(data);
        let database = Database::open_or_create(&file)?;
        let kept = database.run_transaction(load_storage_usage)?;
        let exact = kept.iter().filter(|(.., exact)| *exact);
        let exact = exact.map(|(tenant, ..)| tenant.clone()).collect();
        let kept = kept.into_iter().map(|(tenant, bytes, _)| (tenant, bytes));
        let writer = LedgerWriter {
            database,
            _lock: Some(lock),
        };
        let writer = Arc::new(WorkerThread::start("weir-ledger", LEDGER_NAME.into(), writer)?);
        let ledger = Self {
            tenant_admin: TenantAdmin::with_writer(Arc::clone(&writer), LedgerReader::for_file(file.clone())),
            writer,
            reader: LedgerReader::for_file(file),
            storage_usage: Arc::new(StorageUsage::from_saved(kept)),
        };
        Ok((ledger, exact))
    }

    /// The bytes that tenants store. The ledger saves them with its commits.
    pub(crate) const fn storage_usage(&self) -> &Arc<StorageUsage> {
        &self.storage_usage
    }

    /// Returns when all earlier commits are done and the file is closed. Every later commit fails, and so does every later change of a
    /// tenant's stored files.
    pub async fn close(&self) {
        let kept = Arc::clone(&self.storage_usage);
        let last = self.write_transaction(move |t| {
            let mut last = kept.close().into_iter();
            last.try_for_each(|(tenant, bytes, exact)| write_storage_usage(t, &tenant, bytes, exact))
        });
        if let Err(error) = last.await {
            tracing::warn!(%error, "storage usage could not be saved and is counted again at the next start");
        }
        self.writer.close().await;
        self.reader.close_idle_connections();
        self.tenant_admin.close_idle_connections();
    }

    pub(super) async fn write_transaction<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        self.writer
            .run(move |writer| writer.database.run_transaction(work))
            .await
    }

    /// Runs `work` in a transaction that also saves the changed storage usage.
    pub(super) async fn write_with_storage_usage<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        let kept = Arc::clone(&self.storage_usage);
        let change = move |writer: &mut LedgerWriter| {
            let unwritten = kept.take_unsaved();
            let written = writer.database.run_transaction(|t| {
                for (tenant, bytes) in &unwritten {
                    write_storage_usage(t, tenant, *bytes, false)?;
                }
                work(t)
            });
            if written.is_err() {
                kept.mark_unsaved(&unwritten);
            }
            written
        };
        self.writer.run(change).await
    }
}
