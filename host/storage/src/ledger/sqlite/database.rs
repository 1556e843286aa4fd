//! The SQLite file of the ledger: opening, schema upgrades, transactions and errors.
//!
//! Several processes may have the file open: the holder of the data folder, readers, and commands that change tenants while a
//! server runs. So a transaction takes the write lock before it reads anything. If it took the lock after another process has
//! written, SQLite would refuse the lock and the transaction would fail.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use weir_core::StorageError;

use super::schema_renames;

use crate::data_folder::available_file_system_bytes;
use crate::ledger::ledger_name::LEDGER_NAME;
use crate::ledger::sql_connection::{SqlConnection, SqlError, SqlResult};
use crate::ledger::storage_usage::{insert_stored_paths_as_changing, list_stored_paths_on_disk};
use crate::path_with_public_name::PathWithPublicName;

/// The steps of the schema. The schema version of a file (`user_version`) is the number of steps that it has taken.
const SCHEMA_STEPS: [&str; 17] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
    include_str!("schema/5.sql"),
    include_str!("schema/6.sql"),
    include_str!("schema/7.sql"),
    include_str!("schema/8.sql"),
    include_str!("schema/9.sql"),
    include_str!("schema/10.sql"),
    include_str!("schema/11.sql"),
    include_str!("schema/12.sql"),
    include_str!("schema/13.sql"),
    include_str!("schema/14.sql"),
    include_str!("schema/15.sql"),
    include_str!("schema/16.sql"),
    include_str!("schema/17.sql"),
];
/// Since this step SQLite overwrites removed rows.
const SECURE_DELETE_STEP: usize = 11;
/// Since this step the ledger has a row for each stored file.
const STORED_PATHS_STEP: usize = 13;
/// Time that a call waits for another process, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that truncating the write-ahead log waits for readers. Other writes wait meanwhile.
const WAL_BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// Compiled statements that a connection caches: more than the crate has.
const STATEMENT_CACHE_SIZE: usize = 100;

/// An open connection to the ledger's file.
pub(super) struct Database {
    connection: Connection,
    location: PathWithPublicName,
}

impl Database {
    /// Opens the file for writing, creates it if it does not exist, and upgrades its schema. The caller must hold the data folder.
    pub(super) fn open_or_create_with_upgrade(file: &Path) -> Result<Self, StorageError> {
        create_or_make_file_private(file).map_err(|e| ledger_path_with_error_name(file).io_error(&e))?;
        let database = Self::open_writable(file)?;
        database.upgrade_schema()?;
        Ok(database)
    }

    /// Opens the file for writing while another process may hold the data folder. Returns [`StorageError::NotFound`] if there is no
    /// file, and `None` if its schema has to be upgraded first.
    pub(super) fn open_shared_for_writing(file: &Path) -> Result<Option<Self>, StorageError> {
        if !file.exists() {
            return Err(ledger_path_with_error_name(file).not_found_error());
        }
        let database = Self::open_writable(file)?;
        match database.schema_version()? {
            steps if steps == SCHEMA_STEPS.len() => Ok(Some(database)),
            steps if steps > SCHEMA_STEPS.len() => Err(database.unknown_version_error(steps)),
            _ => Ok(None),
        }
    }

    fn open_writable(file: &Path) -> Result<Self, StorageError> {
        let database = Self::connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        database.with_connection(|c| {
            c.pragma_update(None, "journal_mode", "wal")?;
            // A commit returns after its fsync.
            c.pragma_update(None, "synchronous", "full")?;
            c.pragma_update(None, "journal_size_limit", 64 << 20)?;
            // Overwrite removed rows.
            c.pragma_update(None, "secure_delete", true)
        })?;
        Ok(database)
    }

    /// Opens the file for reading. Other processes may write to it.
    pub(super) fn open_read_only(file: &Path) -> Result<Self, StorageError> {
        if !file.exists() {
            return Err(ledger_path_with_error_name(file).not_found_error());
        }
        // Readers of a write-ahead log write their position into a file beside it. So they open for writing, and `query_only`
        // refuses changes.
        let database = Self::connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        database.with_connection(|c| c.pragma_update(None, "query_only", true))?;
        // The tables that other processes read exist since the first steps. `schema_renames.rs` knows their names in each version.
        match database.schema_version()? {
            steps if (1..=SCHEMA_STEPS.len()).contains(&steps) => Ok(database),
            steps => Err(database.unknown_version_error(steps)),
        }
    }

    fn connect(file: &Path, flags: OpenFlags) -> Result<Self, StorageError> {
        let location = ledger_path_with_error_name(file);
        let connection = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .and_then(|c| {
                c.set_prepared_statement_cache_capacity(STATEMENT_CACHE_SIZE);
                c.busy_timeout(BUSY_TIMEOUT).map(|()| c)
            })
            .map_err(|e| to_storage_error(&location, &e))?;
        Ok(Self { connection, location })
    }

    fn schema_version(&self) -> Result<usize, StorageError> {
        self.with_connection(|c| c.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0)))
            .map(|steps| usize::try_from(steps).unwrap_or(usize::MAX))
    }

    fn upgrade_schema(&self) -> Result<(), StorageError> {
        let applied_steps = self.schema_version()?;
        if applied_steps > SCHEMA_STEPS.len() {
            return Err(self.unknown_version_error(applied_steps));
        }
        if applied_steps < SCHEMA_STEPS.len() {
            let stored_paths = match self.location.path().parent() {
                Some(data) if applied_steps < STORED_PATHS_STEP => list_stored_paths_on_disk(data)?,
                _ => Vec::new(),
            };
            self.run_sqlite_transaction(|t| {
                apply_schema_steps(t, applied_steps)?;
                insert_stored_paths_as_changing(&SqlConnection::Sqlite(t), &stored_paths)
            })?;
        }
        if (1..SECURE_DELETE_STEP).contains(&applied_steps) {
            // Earlier versions left removed rows in unused pages of the file.
            self.with_connection(|c| c.execute_batch("VACUUM"))?;
        }
        // The log may still have rows that the last process removed.
        self.with_connection(truncate_wal)?;
        Ok(())
    }

    /// Runs `work` in a transaction, which is rolled back if it fails. The changes are durable when the call returns.
    pub(super) fn run_transaction<R>(
        &self,
        work: impl FnOnce(&SqlConnection<'_>) -> SqlResult<R>,
    ) -> Result<R, StorageError> {
        self.run_sqlite_transaction(|t| work(&SqlConnection::Sqlite(t)))
    }

    fn run_sqlite_transaction<R>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> SqlResult<R>,
    ) -> Result<R, StorageError> {
        let run = || -> SqlResult<R> {
            let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|e| sql_to_storage_error(&self.location, &e))
    }

    /// Runs `work`, which only reads.
    pub(super) fn run_query<R>(
        &self,
        work: impl FnOnce(&SqlConnection<'_>) -> SqlResult<R>,
    ) -> Result<R, StorageError> {
        work(&SqlConnection::Sqlite(&self.connection)).map_err(|e| sql_to_storage_error(&self.location, &e))
    }

    /// Runs `work` with the connection and converts its errors.
    pub(super) fn with_connection<R>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<R>,
    ) -> Result<R, StorageError> {
        work(&self.connection).map_err(|e| to_storage_error(&self.location, &e))
    }

    fn unknown_version_error(&self, steps: usize) -> StorageError {
        self.location.failed_error(format_args!(
            "its schema is version {steps}, but this weir knows versions up to {}: use the version of weir that wrote it",
            SCHEMA_STEPS.len()
        ))
    }
}

/// Upgrades a file that has taken `applied_steps` steps.
fn apply_schema_steps(transaction: &Transaction<'_>, applied_steps: usize) -> rusqlite::Result<()> {
    // First, because the remaining steps use the new names.
    schema_renames::apply_schema_renames(transaction)?;
    for (number, step) in (1_u32..).zip(SCHEMA_STEPS).skip(applied_steps) {
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", number)?;
    }
    Ok(())
}

/// Returns the path of the ledger in a data folder.
pub(super) fn ledger_path(data: &Path) -> PathBuf {
    data.join("ledger.db")
}

fn ledger_path_with_error_name(file: &Path) -> PathWithPublicName {
    PathWithPublicName::new(LEDGER_NAME, file)
}

/// Creates the file if it does not exist and lets only its owner read it, because it has digests of API keys and passwords of
/// documents. SQLite gives the files beside it the same mode.
pub(crate) fn create_or_make_file_private(file: &Path) -> std::io::Result<()> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
    {
        // Do not open it: closing it would release the locks that SQLite holds on it for other connections of this process.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            let mode = fs::metadata(file)?.permissions().mode();
            if mode & 0o077 == 0 {
                return Ok(());
            }
            fs::set_permissions(file, PermissionsExt::from_mode(mode & 0o7700))
        }
        created => created.map(drop),
    }
}

/// Writes the write-ahead log into the file and truncates it. Returns `false` if a reader still needs the log.
pub(crate) fn truncate_wal(c: &Connection) -> rusqlite::Result<bool> {
    c.busy_timeout(WAL_BUSY_TIMEOUT)?;
    let busy = c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
    c.busy_timeout(BUSY_TIMEOUT)?;
    match busy {
        Ok(busy) => Ok(!busy),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(false),
        Err(error) => Err(error),
    }
}

fn sql_to_storage_error(location: &PathWithPublicName, error: &SqlError) -> StorageError {
    match error {
        SqlError::Sqlite(error) => to_storage_error(location, error),
        SqlError::InvalidColumn { .. } => location.damaged_error(error),
        SqlError::ClaimLost(job) => StorageError::ClaimLost { job: *job },
        SqlError::Postgres(_) | SqlError::NoResponse(_) | SqlError::Json(_) | SqlError::NoRow => {
            location.failed_error(error)
        }
    }
}

/// Converts an error of SQLite.
pub(crate) fn to_storage_error(location: &PathWithPublicName, error: &rusqlite::Error) -> StorageError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => location.no_space_error(),
        // The files of the log report a full disk as a failed write.
        Some(ErrorCode::SystemIoFailure)
            if available_file_system_bytes(location.path()).is_some_and(|free| free < 1 << 20) =>
        {
            location.no_space_error()
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => location.damaged_error(error),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => location.in_use_error(),
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => location.permission_denied_error(error),
        _ => match error {
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => {
                location.damaged_error(error)
            }
            _ => location.failed_error(error),
        },
    }
}

#[cfg(test)]
mod tests;
