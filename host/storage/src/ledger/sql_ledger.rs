//! The ledger. Each port is implemented beside its rows.

use std::path::Path;
use std::sync::Arc;

use weir_core::store_status::StoreStatus;
use weir_core::{StorageError, TenantId};

use super::claim_rows::release_all_claims;
use super::ledger_database::LedgerDatabase;
use super::ledger_name::LEDGER_NAME;
use super::postgres::{PostgresConnectionSettings, PostgresDatabase};
use super::sqlite::SqliteDatabase;
use super::storage_usage::measure_changing_paths;
use crate::changed_paths::ChangedPaths;
use crate::data_folder::{FolderLock, size_on_disk};
use crate::small_blob_database::SmallBlobMeter;
use crate::storage_usage::StorageUsageTracker;
use crate::unfinished_migration::unfinished_migration_error;

/// Implements [`Ledger`](weir_core::ports::Ledger), [`ComponentStateStore`](weir_core::ports::ComponentStateStore),
/// [`TenantStore`](weir_core::tenancy::TenantStore), [`JobRequestStore`](weir_core::job_request::JobRequestStore), [`PipelineStore`](weir_core::revision::PipelineStore),
/// [`ShadowStore`](weir_core::shadow::ShadowStore), [`UsageStore`](weir_core::usage::UsageStore) and
/// [`DocumentRemovalStore`](weir_core::document_removal::DocumentRemovalStore) with a SQLite file or a PostgreSQL server.
pub struct SqlLedger {
    pub(super) database: Arc<LedgerDatabase>,
    pub(super) changed_paths: Arc<ChangedPaths>,
}

impl SqlLedger {
    /// Opens `<data>/ledger.db` and creates it if it does not exist. Measures the stored files that changed when the last process ended.
    /// Blocks on the disk.
    pub(crate) fn open_or_create(data: &Path, lock: Arc<FolderLock>) -> Result<Self, StorageError> {
        let changed_paths = Arc::<ChangedPaths>::default();
        let database = SqliteDatabase::open_or_create(data, lock, Arc::clone(&changed_paths), |t| {
            release_all_claims(t)?;
            let mut small_blobs = SmallBlobMeter::default();
            measure_changing_paths(t, |tenant, path| {
                measure_stored_path(data, &mut small_blobs, tenant, path)
            })
        })?;
        Ok(Self {
            database: Arc::new(LedgerDatabase::in_sqlite(database)),
            changed_paths,
        })
    }

    /// Opens `<data>/ledger.db`, which another process may hold, to look up and change tenants and API keys. Upgrades an earlier schema
    /// first. Returns [`StorageError::NotFound`] if there is none.
    pub async fn open_shared(data: &Path) -> Result<Self, StorageError> {
        Self::open_on_blocking_thread(data, SqliteDatabase::open_shared).await
    }

    /// Like [`SqlLedger::open_shared`], but creates the folder and the ledger if they do not exist.
    pub async fn open_or_create_shared(data: &Path) -> Result<Self, StorageError> {
        Self::open_on_blocking_thread(data, SqliteDatabase::open_or_create_shared).await
    }

    /// Opens `<data>/ledger.db` for reading. Other processes may write to it, and no process has to hold the folder. Changes fail. Returns
    /// [`StorageError::NotFound`] if there is none.
    pub fn open_read_only(data: &Path) -> Result<Self, StorageError> {
        SqliteDatabase::open_read_only(data).map(Self::from_sqlite_without_lock)
    }

    /// Connects to a PostgreSQL server and creates or upgrades its tables. Returns [`StorageError::Unavailable`] if it does not respond, and
    /// [`StorageError::Failed`] if it is the unfinished target of a migration.
    pub async fn connect_postgres(settings: &PostgresConnectionSettings) -> Result<Self, StorageError> {
        let ledger = Self::connect_postgres_for_migration(settings).await?;
        match ledger.find_unfinished_migration().await? {
            Some(_) => Err(unfinished_migration_error(LEDGER_NAME)),
            None => Ok(ledger),
        }
    }

    /// Like [`SqlLedger::connect_postgres`], also if it is the unfinished target of a migration.
    pub(crate) async fn connect_postgres_for_migration(
        settings: &PostgresConnectionSettings,
    ) -> Result<Self, StorageError> {
        let changed_paths = Arc::<ChangedPaths>::default();
        let database = PostgresDatabase::connect_and_upgrade(settings, Arc::clone(&changed_paths)).await?;
        Ok(Self {
            database: Arc::new(LedgerDatabase::in_postgres(database)),
            changed_paths,
        })
    }

    /// Opens `<data>/ledger.db` as the target of a migration, and creates it if it does not exist. Its rows stay as they are. Blocks on
    /// the disk.
    pub(crate) fn open_or_create_for_migration(
        data: &Path,
        lock: Arc<FolderLock>,
    ) -> Result<Self, StorageError> {
        let database = SqliteDatabase::open_or_create(data, lock, Arc::default(), |_| Ok(()))?;
        Ok(Self::from_sqlite_without_lock(database))
    }

    /// Returns whether a data folder has a ledger.
    pub(crate) fn exists_in(data: &Path) -> bool {
        SqliteDatabase::exists_in(data)
    }

    async fn open_on_blocking_thread(
        data: &Path,
        open: fn(&Path) -> Result<SqliteDatabase, StorageError>,
    ) -> Result<Self, StorageError> {
        let folder = data.to_owned();
        let opened = tokio::task::spawn_blocking(move || open(&folder)).await;
        let database = opened.map_err(|e| StorageError::Failed {
            what: "opening the ledger".into(),
            reason: e.to_string(),
        })??;
        Ok(Self::from_sqlite_without_lock(database))
    }

    fn from_sqlite_without_lock(database: SqliteDatabase) -> Self {
        Self {
            database: Arc::new(LedgerDatabase::in_sqlite(database)),
            changed_paths: Arc::default(),
        }
    }

    /// Opens the ledger and the lock of a data folder.
    #[cfg(test)]
    pub(crate) fn open_for_test(data: &Path) -> Self {
        Self::open_or_create(data, Arc::new(FolderLock::acquire_with_timeout(data).unwrap())).unwrap()
    }

    /// Returns whether the latest call has succeeded.
    pub(crate) fn status(&self) -> Arc<StoreStatus> {
        self.database.status()
    }

    /// Returns the handle through which stored files are changed.
    pub(crate) fn storage_usage(&self) -> StorageUsageTracker {
        StorageUsageTracker::new(Arc::clone(&self.changed_paths), Arc::clone(&self.database))
    }

    /// Returns when all earlier commits are done and the ledger is closed. Every later commit fails, and so does every later change of a
    /// tenant's stored files.
    pub async fn close(&self) {
        self.database.close().await;
    }
}

/// Returns the bytes of a path of the data folder that belongs to a tenant: those of its files and, if it is a document's folder of blobs,
/// those of its small blobs.
fn measure_stored_path(
    data: &Path,
    small_blobs: &mut SmallBlobMeter,
    tenant: &TenantId,
    path: &str,
) -> Result<i64, StorageError> {
    let in_files = size_on_disk(&data.join(path)).map_err(|e| StorageError::from_io_error(path, &e))?;
    let in_database = match path.strip_prefix(&format!("blobs/{tenant}/")) {
        Some(first_segment) => small_blobs.count_bytes(data, tenant, first_segment)?,
        None => 0,
    };
    Ok(in_files + in_database)
}
