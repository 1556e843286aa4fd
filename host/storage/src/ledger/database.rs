//! The SQLite file: how it is opened, and what its errors mean.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use weir_core::StorageError;

use crate::folder::free_bytes;

/// The schema, step by step; a file says in `user_version` how many it has taken.
const STEPS: [&str; 1] = [include_str!("schema.sql")];
/// How long a call waits for another process, such as a backup.
const BUSY: Duration = Duration::from_secs(10);

/// An open file.
pub(super) struct Database {
    connection: Connection,
    what: String,
}

impl Database {
    /// Opens the file for writing, making it and bringing it up to this version's schema.
    pub(super) fn create(file: &Path) -> Result<Self, StorageError> {
        let database = Self::open(
            file,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        )?;
        database.with(|c| {
            c.pragma_update(None, "journal_mode", "wal")?;
            // In this mode a commit returns after its fsync.
            c.pragma_update(None, "synchronous", "full")?;
            c.pragma_update(None, "journal_size_limit", 64 << 20)
        })?;
        database.migrate()?;
        Ok(database)
    }

    /// Opens the file for reading, beside whoever writes to it.
    pub(super) fn read_only(file: &Path) -> Result<Self, StorageError> {
        if !file.exists() {
            return Err(StorageError::Missing {
                what: file.display().to_string(),
            });
        }
        // Readers of a write-ahead log keep their place in a file beside it, so they open for writing and are then held to
        // reading.
        let database = Self::open(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        database.with(|c| c.pragma_update(None, "query_only", true))?;
        let steps = database.steps()?;
        if steps != STEPS.len() {
            return Err(database.foreign(steps));
        }
        Ok(database)
    }

    fn open(file: &Path, flags: OpenFlags) -> Result<Self, StorageError> {
        let what = file.display().to_string();
        let connection = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .and_then(|c| c.busy_timeout(BUSY).map(|()| c))
            .map_err(|e| explained(&what, &e))?;
        Ok(Self { connection, what })
    }

    fn steps(&self) -> Result<usize, StorageError> {
        self.with(|c| c.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0)))
            .map(|steps| usize::try_from(steps).unwrap_or(usize::MAX))
    }

    fn migrate(&self) -> Result<(), StorageError> {
        let taken = self.steps()?;
        if taken > STEPS.len() {
            return Err(self.foreign(taken));
        }
        for (number, step) in (1_u32..).zip(STEPS).skip(taken) {
            self.with(|c| {
                let transaction = c.unchecked_transaction()?;
                transaction.execute_batch(step)?;
                transaction.pragma_update(None, "user_version", number)?;
                transaction.commit()
            })?;
        }
        Ok(())
    }

    /// Asks SQLite.
    pub(super) fn with<R>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<R>,
    ) -> Result<R, StorageError> {
        work(&self.connection).map_err(|e| explained(&self.what, &e))
    }

    fn foreign(&self, steps: usize) -> StorageError {
        StorageError::Failed {
            what: self.what.clone(),
            reason: format!(
                "its schema is version {steps}, this weir's {}: use the version of weir that made it",
                STEPS.len()
            ),
        }
    }
}

fn explained(what: &str, error: &rusqlite::Error) -> StorageError {
    let (what_, reason) = (what.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StorageError::Full { what: what_ },
        // The side files of the log report a full disk as a failed write.
        Some(ErrorCode::SystemIoFailure)
            if free_bytes(Path::new(what)).is_some_and(|free| free < 1 << 20) =>
        {
            StorageError::Full { what: what_ }
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StorageError::Damaged { what: what_, reason }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StorageError::InUse { what: what_ },
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            StorageError::Denied { what: what_, reason }
        }
        _ => match error {
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => {
                StorageError::Damaged { what: what_, reason }
            }
            _ => StorageError::Failed { what: what_, reason },
        },
    }
}
