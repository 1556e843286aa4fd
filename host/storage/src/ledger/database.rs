//! The SQLite file: how it is opened, and what its errors mean.
//!
//! Several processes may have it open: the holder of the folder, readers, and commands that change tenants beside a server.
//! So a change takes the right to write before it reads anything. Taken later, after another process has written, it could
//! not be had any more and the change would fail.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use weir_core::StorageError;

use crate::folder::free_bytes;
use crate::ledger::LEDGER;
use crate::location::Location;

/// The schema, step by step; a file says in `user_version` how many it has taken.
const STEPS: [&str; 11] = [
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
];
/// The step since which removed rows are overwritten.
const OVERWRITING: usize = 11;
/// How long a call waits for another process, such as a backup.
const BUSY: Duration = Duration::from_secs(10);
/// How long emptying the log waits for readers: the writer waits meanwhile.
const LOG_BUSY: Duration = Duration::from_millis(250);
/// Statements a connection keeps compiled: more than there are.
const STATEMENTS: usize = 100;

/// An open file.
pub(super) struct Database {
    connection: Connection,
    location: Location,
}

impl Database {
    /// Opens the file for writing, making it and bringing it up to this version's schema. Only for who holds the folder.
    pub(super) fn create(file: &Path) -> Result<Self, StorageError> {
        make_private(file).map_err(|e| located(file).io(&e))?;
        let database = Self::writing(file)?;
        database.migrate()?;
        Ok(database)
    }

    /// Opens the file for writing beside whoever holds the folder; [`StorageError::Missing`] if there is none, and `None` if
    /// it has to be brought up to this version's schema first.
    pub(super) fn beside(file: &Path) -> Result<Option<Self>, StorageError> {
        if !file.exists() {
            return Err(located(file).missing());
        }
        let database = Self::writing(file)?;
        match database.steps()? {
            steps if steps == STEPS.len() => Ok(Some(database)),
            steps if steps > STEPS.len() => Err(database.foreign(steps)),
            _ => Ok(None),
        }
    }

    fn writing(file: &Path) -> Result<Self, StorageError> {
        let database = Self::open(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        database.with(|c| {
            c.pragma_update(None, "journal_mode", "wal")?;
            // In this mode a commit returns after its fsync.
            c.pragma_update(None, "synchronous", "full")?;
            c.pragma_update(None, "journal_size_limit", 64 << 20)?;
            // What is removed is overwritten.
            c.pragma_update(None, "secure_delete", true)
        })?;
        Ok(database)
    }

    /// Opens the file for reading, beside whoever writes to it.
    pub(super) fn read_only(file: &Path) -> Result<Self, StorageError> {
        if !file.exists() {
            return Err(located(file).missing());
        }
        // Readers of a write-ahead log keep their place in a file beside it, so they open for writing and are then held to
        // reading.
        let database = Self::open(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        database.with(|c| c.pragma_update(None, "query_only", true))?;
        // Documents and pages, which other processes read, have been as they are since the first step.
        match database.steps()? {
            steps if (1..=STEPS.len()).contains(&steps) => Ok(database),
            steps => Err(database.foreign(steps)),
        }
    }

    fn open(file: &Path, flags: OpenFlags) -> Result<Self, StorageError> {
        let location = located(file);
        let connection = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .and_then(|c| {
                c.set_prepared_statement_cache_capacity(STATEMENTS);
                c.busy_timeout(BUSY).map(|()| c)
            })
            .map_err(|e| explained(&location, &e))?;
        Ok(Self { connection, location })
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
            self.change(|transaction| {
                transaction.execute_batch(step)?;
                transaction.pragma_update(None, "user_version", number)
            })?;
        }
        if (1..OVERWRITING).contains(&taken) {
            // Earlier versions left what was removed in unused pages.
            self.with(|c| c.execute_batch("VACUUM"))?;
        }
        // What the last process removed may still be in the log.
        self.with(truncate_log)?;
        Ok(())
    }

    /// Does all of `work` or, if it fails, nothing of it; durable when it returns.
    pub(super) fn change<R>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<R>,
    ) -> Result<R, StorageError> {
        self.with(|c| {
            let transaction = Transaction::new_unchecked(c, TransactionBehavior::Immediate)?;
            let answer = work(&transaction)?;
            transaction.commit()?;
            Ok(answer)
        })
    }

    /// Asks SQLite.
    pub(super) fn with<R>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<R>,
    ) -> Result<R, StorageError> {
        work(&self.connection).map_err(|e| explained(&self.location, &e))
    }

    fn foreign(&self, steps: usize) -> StorageError {
        self.location.failed(format_args!(
            "its schema is version {steps}, this weir's {}: use the version of weir that made it",
            STEPS.len()
        ))
    }
}

fn located(file: &Path) -> Location {
    Location::new(LEDGER, file)
}

/// Makes the file its owner's alone; it holds digests of keys and passwords of documents. SQLite gives the files beside it the
/// same mode.
pub(crate) fn make_private(file: &Path) -> std::io::Result<()> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
    {
        // Not opened: closing it would take away the locks that SQLite holds on it for other connections of this process.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            let mode = fs::metadata(file)?.permissions().mode();
            if mode & 0o077 == 0 {
                return Ok(());
            }
            fs::set_permissions(file, PermissionsExt::from_mode(mode & 0o7700))
        }
        made => made.map(drop),
    }
}

/// Writes the log into the file and cuts it to nothing; whether that was possible, since a reader may need it still.
pub(crate) fn truncate_log(c: &Connection) -> rusqlite::Result<bool> {
    c.busy_timeout(LOG_BUSY)?;
    let busy = c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
    c.busy_timeout(BUSY)?;
    match busy {
        Ok(busy) => Ok(!busy),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(crate) fn explained(location: &Location, error: &rusqlite::Error) -> StorageError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => location.full(),
        // The side files of the log report a full disk as a failed write.
        Some(ErrorCode::SystemIoFailure)
            if free_bytes(location.path()).is_some_and(|free| free < 1 << 20) =>
        {
            location.full()
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => location.damaged(error),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => location.in_use(),
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => location.denied(error),
        _ => match error {
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => {
                location.damaged(error)
            }
            _ => location.failed(error),
        },
    }
}

#[cfg(test)]
mod tests;
