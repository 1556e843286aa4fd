//! The ledger's database in SQLite: `<data>/ledger.db`.
//!
//! One thread writes over one connection, with one transaction for each group of entries. The file has a write-ahead log, and a
//! commit returns after an fsync, as the port requires. This is why the engine commits in groups. Readers have connections of their
//! own, which do not wait for the writer. Another process can read too, and can change tenants and API keys: SQLite lets several
//! processes write, and the next lookup sees the change.

pub(crate) mod database;
pub(super) mod read_connections;
mod schema_renames;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use weir_core::StorageError;

use self::database::{Database, ledger_path, truncate_wal};
use self::read_connections::ReadConnections;
pub(super) use self::schema_renames::{column_name_in_version, table_name_in_version};
pub(crate) use self::writer::LedgerWriter;
use super::ledger_name::LEDGER_NAME;
use super::sql_connection::{SqlConnection, SqlResult};
use crate::changed_paths::ChangedPaths;
use crate::data_folder::{FolderLock, create_private_folder, rename_entries_of_earlier_versions};
use crate::unfinished_migration::check_no_unfinished_migration;
use crate::worker_thread::WorkerThread;

/// Time until the write-ahead log is truncated, and between two attempts.
const WAL_TRUNCATE_DELAY: Duration = Duration::from_secs(1);

/// The connections to the file.
pub(crate) struct SqliteDatabase {
    /// `None` if the file was opened for reading only.
    writer: Option<Arc<WorkerThread<LedgerWriter>>>,
    readers: ReadConnections,
    tenant_readers: ReadConnections,
    /// A task that truncates the write-ahead log is waiting.
    is_truncation_scheduled: Arc<AtomicBool>,
}

impl SqliteDatabase {
    /// Opens the file of a data folder whose lock this process holds, and creates it if it does not exist. `prepare` runs first, in a
    /// transaction. Blocks on the disk.
    pub(super) fn open_or_create(
        data: &Path,
        lock: Arc<FolderLock>,
        changed_paths: Arc<ChangedPaths>,
        prepare: impl FnOnce(&SqlConnection<'_>) -> SqlResult<()>,
    ) -> Result<Self, StorageError> {
        let database = Database::open_or_create_with_upgrade(&ledger_path(data))?;
        database.run_transaction(prepare)?;
        let writer = LedgerWriter {
            database,
            changed_paths,
            _lock: Some(lock),
        };
        Self::from_writer(data, "weir-ledger", writer)
    }

    /// Opens the file of a data folder that another process may hold. Returns [`StorageError::NotFound`] if there is none. Blocks on the
    /// disk.
    pub(super) fn open_shared(data: &Path) -> Result<Self, StorageError> {
        check_no_unfinished_migration(data)?;
        Self::from_shared_database(data, open_shared_database(data)?)
    }

    /// Like [`SqliteDatabase::open_shared`], but creates the folder and the file if they do not exist.
    pub(super) fn open_or_create_shared(data: &Path) -> Result<Self, StorageError> {
        create_private_folder(data)?;
        check_no_unfinished_migration(data)?;
        match open_shared_database(data) {
            Err(StorageError::NotFound { .. }) => {
                Self::from_shared_database(data, open_upgraded_under_folder_lock(data)?)
            }
            opened => Self::from_shared_database(data, opened?),
        }
    }

    /// Returns whether a data folder has the file.
    pub(super) fn exists_in(data: &Path) -> bool {
        ledger_path(data).exists()
    }

    /// Opens the file for reading. Returns [`StorageError::NotFound`] if there is none.
    pub(super) fn open_read_only(data: &Path) -> Result<Self, StorageError> {
        Ok(Self {
            writer: None,
            readers: ReadConnections::open(data)?,
            tenant_readers: ReadConnections::for_file(ledger_path(data)),
            is_truncation_scheduled: Arc::default(),
        })
    }

    fn from_shared_database(data: &Path, database: Database) -> Result<Self, StorageError> {
        let writer = LedgerWriter {
            database,
            changed_paths: Arc::default(),
            _lock: None,
        };
        Self::from_writer(data, "weir-tenants", writer)
    }

    fn from_writer(data: &Path, thread: &str, writer: LedgerWriter) -> Result<Self, StorageError> {
        Ok(Self {
            writer: Some(Arc::new(WorkerThread::start(thread, LEDGER_NAME.into(), writer)?)),
            readers: ReadConnections::for_file(ledger_path(data)),
            tenant_readers: ReadConnections::for_file(ledger_path(data)),
            is_truncation_scheduled: Arc::default(),
        })
    }

    fn writer(&self) -> Result<&Arc<WorkerThread<LedgerWriter>>, StorageError> {
        self.writer.as_ref().ok_or_else(|| StorageError::Failed {
            what: LEDGER_NAME.into(),
            reason: "it was opened for reading only".into(),
        })
    }

    pub(super) async fn run_query<R: Send + 'static>(
        &self,
        work: impl FnOnce(&SqlConnection<'_>) -> SqlResult<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        self.readers.run_query(work).await
    }

    pub(super) async fn run_tenant_query<R: Send + 'static>(
        &self,
        work: impl FnOnce(&SqlConnection<'_>) -> SqlResult<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        self.tenant_readers.run_query(work).await
    }

    /// Runs `work` in a transaction. The changes are durable when the call returns.
    pub(super) async fn run_write_transaction<R: Send + 'static>(
        &self,
        work: impl FnOnce(&SqlConnection<'_>) -> SqlResult<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        self.writer()?
            .run(move |writer| writer.run_transaction_saving_file_sizes(work))
            .await
    }

    /// Runs `work` with the writer. Blocks the calling thread, which must not run async code.
    pub(super) fn run_with_writer(
        &self,
        work: impl FnOnce(&mut LedgerWriter) -> Result<(), StorageError> + Send + 'static,
    ) -> Result<(), StorageError> {
        self.writer()?.run_and_block_caller(work)
    }

    /// Truncates the write-ahead log so that removed rows leave the disk. If a reader still needs the log, schedules further attempts.
    pub(super) async fn truncate_wal_or_schedule(&self) -> Result<(), StorageError> {
        if !self.writer()?.run(truncate_wal_of_writer).await? {
            self.schedule_wal_truncation();
        }
        Ok(())
    }

    /// Truncates the write-ahead log within seconds, in the background. Further calls until then have no effect.
    pub(super) fn schedule_wal_truncation(&self) {
        let Some(writer) = &self.writer else { return };
        if self.is_truncation_scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let (writer, is_scheduled) = (Arc::downgrade(writer), Arc::clone(&self.is_truncation_scheduled));
        tokio::spawn(async move {
            loop {
                sleep(WAL_TRUNCATE_DELAY).await;
                // First, because rows that are removed from here on need another truncation.
                is_scheduled.store(false, Ordering::Release);
                let Some(writer) = writer.upgrade() else { return };
                match writer.run(truncate_wal_of_writer).await {
                    Ok(false) if !is_scheduled.swap(true, Ordering::AcqRel) => {}
                    // After an error too: if the ledger is closed, the next opener truncates the log.
                    _ => return,
                }
            }
        });
    }

    /// Returns when all earlier commits are done and the file is closed.
    pub(super) async fn close(&self) {
        if let Some(writer) = &self.writer {
            if let Err(error) = writer.run(LedgerWriter::refuse_changes_and_save_sizes).await {
                tracing::warn!(%error, "the sizes of the last changed files could not be saved and are measured at the next start");
            }
            writer.close().await;
        }
        self.readers.close_idle_connections();
        self.tenant_readers.close_idle_connections();
    }
}

fn truncate_wal_of_writer(writer: &mut LedgerWriter) -> Result<bool, StorageError> {
    writer.database.with_connection(truncate_wal)
}

/// Opens the ledger of a folder that another process may hold, and upgrades an earlier schema first.
fn open_shared_database(data: &Path) -> Result<Database, StorageError> {
    match Database::open_shared_for_writing(&ledger_path(data))? {
        Some(database) => Ok(database),
        None => open_upgraded_under_folder_lock(data),
    }
}

/// Opens the ledger while holding the folder for a moment, and upgrades its schema. If another process holds the folder, that process
/// may have upgraded the schema meanwhile.
fn open_upgraded_under_folder_lock(data: &Path) -> Result<Database, StorageError> {
    match FolderLock::acquire_with_timeout(data) {
        Ok(_lock) => {
            // The upgrade lists the stored files.
            rename_entries_of_earlier_versions(data)?;
            Database::open_or_create_with_upgrade(&ledger_path(data))
        }
        Err(in_use) => Database::open_shared_for_writing(&ledger_path(data))?.ok_or(in_use),
    }
}
