//! Lookups and changes of tenants and API keys, also while a server holds the data folder.
//!
//! SQLite lets several processes write. So the commands that change tenants write to the file, and the server's next lookup sees the
//! change. Every request looks up its tenant, so lookups have connections of their own and do not wait for the reading of a long list.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Transaction;
use tokio::time::sleep;
use weir_core::tenancy::{ApiKeyRecord, Tenant, TenantStore, TenantUpdate};
use weir_core::{StorageError, TenantId};

use super::database::{Database, LEDGER_NAME, ledger_path, truncate_wal};
use super::reader::LedgerReader;
use super::tenants;
use super::writer::LedgerWriter;
use crate::data_folder::{FolderLock, create_private_folder, rename_entries_of_earlier_versions};
use crate::worker_thread::WorkerThread;

/// Rows of a table that one transaction removes. Other writers run between two transactions.
const ROWS_PER_TRANSACTION: usize = 2_000;
/// Time until the write-ahead log is truncated, and between two attempts.
const WAL_TRUNCATE_DELAY: Duration = Duration::from_secs(1);

/// Implements [`TenantStore`] with the ledger of a data folder, which another process may hold.
pub struct TenantAdmin {
    writer: Arc<WorkerThread<LedgerWriter>>,
    reader: LedgerReader,
    /// A task that truncates the write-ahead log is waiting.
    is_truncation_scheduled: Arc<AtomicBool>,
}

fn truncate_wal_of_writer(writer: &mut LedgerWriter) -> Result<bool, StorageError> {
    writer.database.with_connection(truncate_wal)
}

impl TenantAdmin {
    /// Opens the ledger of a data folder. Returns [`StorageError::NotFound`] if there is none.
    pub async fn open_existing(data: &Path) -> Result<Self, StorageError> {
        run_blocking(data, |data| {
            Self::from_database(data, open_shared_database(data)?)
        })
        .await
    }

    /// Opens the ledger of a data folder. Creates the folder and the ledger if they do not exist.
    pub async fn open_or_create(data: &Path) -> Result<Self, StorageError> {
        run_blocking(data, |data| {
            create_private_folder(data)?;
            match open_shared_database(data) {
                Err(StorageError::NotFound { .. }) => {
                    Self::from_database(data, open_upgraded_under_folder_lock(data)?)
                }
                opened => Self::from_database(data, opened?),
            }
        })
        .await
    }

    fn from_database(data: &Path, database: Database) -> Result<Self, StorageError> {
        let file = ledger_path(data);
        let writer = LedgerWriter {
            database,
            changed_paths: Arc::default(),
            _lock: None,
        };
        let writer = WorkerThread::start("weir-tenants", LEDGER_NAME.into(), writer)?;
        Ok(Self::from_writer(Arc::new(writer), LedgerReader::for_file(file)))
    }

    pub(super) fn from_writer(writer: Arc<WorkerThread<LedgerWriter>>, reader: LedgerReader) -> Self {
        Self {
            writer,
            reader,
            is_truncation_scheduled: Arc::default(),
        }
    }

    pub(super) fn close_idle_connections(&self) {
        self.reader.close_idle_connections();
    }

    /// Truncates the write-ahead log so that removed rows leave the disk. If a reader still needs the log, schedules further attempts.
    pub(super) async fn truncate_wal_or_schedule(&self) -> Result<(), StorageError> {
        if !self.writer.run(truncate_wal_of_writer).await? {
            self.schedule_wal_truncation();
        }
        Ok(())
    }

    /// Truncates the write-ahead log within seconds, in the background. Further calls until then have no effect.
    pub(super) fn schedule_wal_truncation(&self) {
        if self.is_truncation_scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let (writer, is_scheduled) = (
            Arc::downgrade(&self.writer),
            Arc::clone(&self.is_truncation_scheduled),
        );
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

    async fn run_write_transaction<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        self.writer
            .run(move |writer| writer.run_transaction_saving_file_sizes(work))
            .await
    }
}

async fn run_blocking<R: Send + 'static>(
    data: &Path,
    work: impl FnOnce(&Path) -> Result<R, StorageError> + Send + 'static,
) -> Result<R, StorageError> {
    let folder = data.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&folder)).await;
    done.map_err(|e| StorageError::Failed {
        what: "opening the ledger".into(),
        reason: e.to_string(),
    })?
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

#[async_trait]
impl TenantStore for TenantAdmin {
    async fn create_tenant(&self, tenant: &Tenant) -> Result<bool, StorageError> {
        let tenant = tenant.clone();
        self.run_write_transaction(move |t| tenants::create_tenant(t, &tenant))
            .await
    }

    async fn update_tenant(
        &self,
        id: &TenantId,
        change: &TenantUpdate,
    ) -> Result<Option<Tenant>, StorageError> {
        let (id, change) = (id.clone(), change.clone());
        self.run_write_transaction(move |t| tenants::update_tenant(t, &id, &change))
            .await
    }

    async fn find_tenant(&self, id: &TenantId) -> Result<Option<Tenant>, StorageError> {
        let id = id.clone();
        self.reader
            .run_on_read_connection(move |c| tenants::find_tenant(c, &id))
            .await
    }

    async fn list_tenants(&self) -> Result<Vec<Tenant>, StorageError> {
        self.reader.run_on_read_connection(tenants::list_tenants).await
    }

    async fn suspend_tenant_and_remove_keys(&self, id: &TenantId) -> Result<bool, StorageError> {
        let tenant = id.clone();
        self.run_write_transaction(move |t| tenants::suspend_tenant_and_delete_keys(t, &tenant))
            .await
    }

    async fn remove_tenant(&self, id: &TenantId) -> Result<bool, StorageError> {
        self.suspend_tenant_and_remove_keys(id).await?;
        loop {
            let tenant = id.clone();
            let more = self.run_write_transaction(move |t| {
                tenants::delete_tenant_row_batch(t, &tenant, ROWS_PER_TRANSACTION)
            });
            if !more.await? {
                break;
            }
        }
        let tenant = id.clone();
        let known = self
            .run_write_transaction(move |t| tenants::delete_remaining_tenant_rows(t, &tenant))
            .await?;
        self.truncate_wal_or_schedule().await?;
        Ok(known)
    }

    async fn put_api_key(&self, key: &ApiKeyRecord) -> Result<(), StorageError> {
        let key = key.clone();
        self.run_write_transaction(move |t| tenants::write_api_key(t, &key))
            .await?
    }

    async fn revoke_api_key(&self, id: &str, now_millis: u64) -> Result<bool, StorageError> {
        let id = id.to_owned();
        self.run_write_transaction(move |t| tenants::revoke_api_key(t, &id, now_millis))
            .await
    }

    async fn replace_api_key(
        &self,
        old: &str,
        fresh: &ApiKeyRecord,
        now_millis: u64,
    ) -> Result<bool, StorageError> {
        let (old, fresh) = (old.to_owned(), fresh.clone());
        self.run_write_transaction(move |t| tenants::replace_api_key(t, &old, &fresh, now_millis))
            .await?
    }

    async fn find_api_key_by_id(&self, id: &str) -> Result<Option<ApiKeyRecord>, StorageError> {
        let id = id.to_owned();
        self.reader
            .run_on_read_connection(move |c| tenants::find_api_key(c, &id))
            .await
    }

    async fn list_api_keys(&self, tenant: &TenantId) -> Result<Vec<ApiKeyRecord>, StorageError> {
        let tenant = tenant.clone();
        self.reader
            .run_on_read_connection(move |c| tenants::list_api_keys(c, &tenant))
            .await
    }
}
