//! The ledger's database, in SQLite or PostgreSQL.

use std::sync::Arc;

use weir_core::StorageError;
use weir_core::store_status::StoreStatus;

use super::locked_tenants::LockedTenants;
use super::postgres::PostgresDatabase;
use super::sql_connection::{SqlConnection, SqlResult};
use super::sqlite::{LedgerWriter, SqliteDatabase};
use crate::store_metrics::StoreMetrics;

/// The database. Its functions run `work` on a thread that may block.
pub(crate) struct LedgerDatabase {
    database: SqlDatabase,
    metrics: StoreMetrics,
}

enum SqlDatabase {
    Sqlite(SqliteDatabase),
    Postgres(PostgresDatabase),
}

impl LedgerDatabase {
    pub(super) fn in_sqlite(database: SqliteDatabase) -> Self {
        Self::new(SqlDatabase::Sqlite(database))
    }

    pub(super) fn in_postgres(database: PostgresDatabase) -> Self {
        Self::new(SqlDatabase::Postgres(database))
    }

    fn new(database: SqlDatabase) -> Self {
        Self {
            database,
            metrics: StoreMetrics::new("ledger"),
        }
    }

    /// Returns whether the latest call has succeeded.
    pub(super) fn status(&self) -> Arc<StoreStatus> {
        self.metrics.status()
    }

    /// Runs `work`, which only reads. It sees all changes that were committed before.
    pub(super) async fn run_query<R: Send + 'static>(
        &self,
        work: impl FnOnce(&SqlConnection<'_>) -> SqlResult<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        let call = async {
            match &self.database {
                SqlDatabase::Sqlite(database) => database.run_query(work).await,
                SqlDatabase::Postgres(database) => database.run_query(work).await,
            }
        };
        self.metrics.measure(call).await
    }

    /// Like [`LedgerDatabase::run_query`], for the lookups of tenants and keys that come with every request. They do not wait for the
    /// reading of long lists.
    pub(super) async fn run_tenant_query<R: Send + 'static>(
        &self,
        work: impl FnOnce(&SqlConnection<'_>) -> SqlResult<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        let call = async {
            match &self.database {
                SqlDatabase::Sqlite(database) => database.run_tenant_query(work).await,
                SqlDatabase::Postgres(database) => database.run_query(work).await,
            }
        };
        self.metrics.measure(call).await
    }

    /// Runs `work` in a transaction, which is rolled back if it fails. No other transaction changes rows of `tenants` meanwhile. The
    /// changes are durable when the call returns.
    pub(super) async fn run_write_transaction<R: Send + 'static>(
        &self,
        tenants: LockedTenants,
        work: impl FnOnce(&SqlConnection<'_>) -> SqlResult<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        let call = async {
            match &self.database {
                SqlDatabase::Sqlite(database) => database.run_write_transaction(work).await,
                SqlDatabase::Postgres(database) => database.run_write_transaction(tenants, work).await,
            }
        };
        self.metrics.measure(call).await
    }

    /// Marks the paths that are about to change, if an earlier transaction has not done it. Blocks the calling thread, which must not run
    /// async code.
    pub(crate) fn mark_changing_paths(&self) -> Result<(), StorageError> {
        match &self.database {
            SqlDatabase::Sqlite(database) => database.run_with_writer(LedgerWriter::mark_changing_paths),
            SqlDatabase::Postgres(database) => database.mark_changing_paths(),
        }
    }

    /// Saves the sizes of changed files. Blocks the calling thread, which must not run async code.
    pub(crate) fn save_changed_file_sizes(&self) -> Result<(), StorageError> {
        match &self.database {
            SqlDatabase::Sqlite(database) => database.run_with_writer(LedgerWriter::save_changed_file_sizes),
            SqlDatabase::Postgres(database) => database.save_changed_file_sizes(),
        }
    }

    /// Like [`LedgerDatabase::save_changed_file_sizes`], for async code.
    pub(crate) async fn save_changed_file_sizes_async(&self) -> Result<(), StorageError> {
        match &self.database {
            SqlDatabase::Sqlite(database) => database.run_write_transaction(|_| Ok(())).await,
            SqlDatabase::Postgres(database) => database.save_changed_file_sizes_async().await,
        }
    }

    /// Makes removed rows leave the disk. PostgreSQL's autovacuum does this by itself.
    pub(super) async fn overwrite_removed_rows(&self) -> Result<(), StorageError> {
        match &self.database {
            SqlDatabase::Sqlite(database) => database.truncate_wal_or_schedule().await,
            SqlDatabase::Postgres(_) => Ok(()),
        }
    }

    /// Like [`LedgerDatabase::overwrite_removed_rows`], but within seconds and in the background.
    pub(super) fn schedule_overwriting_of_removed_rows(&self) {
        if let SqlDatabase::Sqlite(database) = &self.database {
            database.schedule_wal_truncation();
        }
    }

    /// Returns when all earlier commits are done and the database is closed. Later calls fail.
    pub(super) async fn close(&self) {
        match &self.database {
            SqlDatabase::Sqlite(database) => database.close().await,
            SqlDatabase::Postgres(database) => database.close().await,
        }
    }

    /// Returns the bytes that a tenant stores, after a transaction that saves the sizes of changed files.
    #[cfg(test)]
    pub(crate) async fn save_and_count_stored_bytes(&self, tenant: &weir_core::TenantId) -> u64 {
        let tenant = tenant.clone();
        self.run_write_transaction(LockedTenants::none(), move |t| {
            super::storage_usage::find_stored_byte_count(t, &tenant)
        })
        .await
        .unwrap()
    }
}
