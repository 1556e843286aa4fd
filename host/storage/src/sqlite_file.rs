//! A SQLite file with one writer, for data that is flushed in groups.
//!
//! A commit survives a killed process, and [`SqliteFile::sync`] makes all commits so far survive a power failure. Removed rows are
//! overwritten, in the file and in its log. The log is written to the file by a sync, never by a commit, because that waits for the disk.

use std::path::Path;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, ffi};
use weir_core::StorageError;

use crate::ledger::sqlite::database::{create_or_make_file_private, to_storage_error, truncate_wal};
use crate::path_with_public_name::PathWithPublicName;

/// Bytes of a page of the file: a page has at least four rows with vectors of up to 1,000 dimensions.
const PAGE_BYTES: u32 = 8192;
/// KiB of the page cache of the connection that writes, at most.
const WRITER_CACHE_KIB: i32 = 32 << 10;
/// Pages of the log from which a sync writes them to the file.
const CHECKPOINT_PAGES: u32 = 4000;
/// Bytes to which the log is shortened when it is empty.
const MAX_EMPTY_LOG_BYTES: u32 = 64 << 20;
/// Pages that one call of [`SqliteFile::shrink`] gives back.
const SHRINK_PAGES: u32 = 2000;
/// Compiled statements that a connection caches.
const STATEMENT_CACHE_SIZE: usize = 32;

/// Connections for reading that are kept open while they are not used.
const MAX_IDLE_READERS: usize = 4;

/// Connections for reading, of the type `T`, that no call uses at the moment.
pub(crate) struct IdleReaders<T>(Mutex<Vec<T>>);

impl<T> Default for IdleReaders<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> IdleReaders<T> {
    /// Runs `work` with an idle connection, or with one that `open` opens.
    pub(crate) fn run<R>(
        &self,
        open: impl FnOnce() -> Result<T, StorageError>,
        work: impl FnOnce(&T) -> Result<R, StorageError>,
    ) -> Result<R, StorageError> {
        let idle = self.0.lock().pop();
        let reader = match idle {
            Some(reader) => reader,
            None => open()?,
        };
        let result = work(&reader);
        let mut idle = self.0.lock();
        if idle.len() < MAX_IDLE_READERS {
            idle.push(reader);
        }
        result
    }

    /// Closes the idle connections.
    pub(crate) fn close(&self) {
        self.0.lock().clear();
    }
}

/// A connection to the file.
pub(crate) struct SqliteFile {
    connection: Connection,
    location: PathWithPublicName,
    has_unsynced_commits: bool,
    /// Syncing failed. The kernel treats the lost pages as written, so a later sync would succeed although data is lost.
    has_sync_failed: bool,
}

impl SqliteFile {
    /// Opens the file for writing and creates it if it does not exist. Everything that an earlier process has committed is durable then.
    pub(crate) fn open_or_create(location: PathWithPublicName) -> Result<Self, StorageError> {
        create_or_make_file_private(location.path()).map_err(|e| location.io_error(&e))?;
        let mut file = Self::connect(location)?;
        file.run(|c| {
            // Only effective before the file has tables.
            c.pragma_update(None, "page_size", PAGE_BYTES)?;
            c.pragma_update(None, "auto_vacuum", "incremental")?;
            c.pragma_update(None, "journal_mode", "wal")?;
            c.pragma_update(None, "synchronous", "normal")?;
            c.pragma_update(None, "journal_size_limit", MAX_EMPTY_LOG_BYTES)?;
            c.pragma_update(None, "wal_autocheckpoint", 0)?;
            c.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
            c.pragma_update(None, "secure_delete", true)
        })?;
        file.run_transaction(|c| {
            // A sync is a commit, which has to change something.
            c.execute_batch("CREATE TABLE IF NOT EXISTS syncs (count INTEGER NOT NULL)")?;
            c.execute(
                "INSERT INTO syncs SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM syncs)",
                [],
            )
        })?;
        file.truncate_log()?;
        Ok(file)
    }

    /// Opens an existing file for reading.
    pub(crate) fn open_for_reading(location: PathWithPublicName) -> Result<Self, StorageError> {
        let file = Self::connect(location)?;
        file.run(|c| c.pragma_update(None, "query_only", true))?;
        Ok(file)
    }

    fn connect(location: PathWithPublicName) -> Result<Self, StorageError> {
        // Readers of a write-ahead log write their position into a file beside it.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(location.path(), flags)
            .map_err(|e| to_storage_error(&location, &e))?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_SIZE);
        Ok(Self {
            connection,
            location,
            has_unsynced_commits: false,
            has_sync_failed: false,
        })
    }

    /// Returns whether a file has a log, which a process that closes the file removes.
    pub(crate) fn has_log(file: &Path) -> bool {
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        Path::new(&log).exists()
    }

    pub(crate) const fn location(&self) -> &PathWithPublicName {
        &self.location
    }

    /// Runs `work`, which only reads.
    pub(crate) fn run<R>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<R>,
    ) -> Result<R, StorageError> {
        work(&self.connection).map_err(|e| to_storage_error(&self.location, &e))
    }

    /// Runs `work` in a transaction, which is rolled back if it fails.
    pub(crate) fn run_transaction<R>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<R>,
    ) -> Result<R, StorageError> {
        self.check_no_failed_sync()?;
        let transaction = self.connection.transaction();
        let run = || {
            let transaction = transaction?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        let result = run().map_err(|e| to_storage_error(&self.location, &e))?;
        self.has_unsynced_commits = true;
        Ok(result)
    }

    /// Makes all commits durable. After a failure, every change fails until the file is opened again.
    pub(crate) fn sync(&mut self) -> Result<(), StorageError> {
        if self.has_unsynced_commits {
            self.run_sync(|c| {
                // With `full`, a commit syncs the whole log.
                c.pragma_update(None, "synchronous", "full")?;
                c.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
                let written = c.execute("UPDATE syncs SET count = count + 1", []);
                c.pragma_update(None, "wal_autocheckpoint", 0)?;
                c.pragma_update(None, "synchronous", "normal")?;
                written.map(drop)
            })?;
            self.has_unsynced_commits = false;
        }
        self.check_no_failed_sync()
    }

    /// Returns how often the file was synced. An earlier copy of the file has a lower number.
    pub(crate) fn count_syncs(&self) -> Result<i64, StorageError> {
        self.run(|c| c.query_row("SELECT count FROM syncs", [], |row| row.get(0)))
    }

    /// Runs `sync`, which syncs files.
    fn run_sync<R>(
        &mut self,
        sync: impl FnOnce(&Connection) -> rusqlite::Result<R>,
    ) -> Result<R, StorageError> {
        self.check_no_failed_sync()?;
        let synced = sync(&self.connection);
        if let Err(rusqlite::Error::SqliteFailure(error, _)) = &synced {
            // Other errors, such as that of a full disk, leave earlier commits as they were.
            self.has_sync_failed = matches!(
                error.extended_code,
                ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC
            );
        }
        synced.map_err(|e| to_storage_error(&self.location, &e))
    }

    fn check_no_failed_sync(&self) -> Result<(), StorageError> {
        match self.has_sync_failed {
            true => Err(self.location.failed_error(
                "it could not be written to the disk: restart weir, which then repeats the lost changes",
            )),
            false => Ok(()),
        }
    }

    /// Returns whether the file has pages that hold nothing.
    pub(crate) fn has_unused_pages(&self) -> Result<bool, StorageError> {
        self.run(|c| c.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0)))
            .map(|unused| unused > 0)
    }

    /// Gives unused pages at the end of the file back to the file system. Returns whether there may be more.
    pub(crate) fn shrink(&mut self) -> Result<bool, StorageError> {
        self.run_sync(|c| {
            let mut shrink = c.prepare(&format!("PRAGMA incremental_vacuum({SHRINK_PAGES})"))?;
            // Each step gives one page back.
            let mut pages = shrink.query([])?;
            while pages.next()?.is_some() {}
            Ok(())
        })?;
        self.has_unsynced_commits = true;
        self.has_unused_pages()
    }

    /// Writes the log into the file and truncates it, so that removed rows leave the disk. Returns `false` if a reader needs the log.
    pub(crate) fn truncate_log(&mut self) -> Result<bool, StorageError> {
        let is_truncated = self.run_sync(truncate_wal)?;
        self.has_unsynced_commits &= !is_truncated;
        Ok(is_truncated)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    impl SqliteFile {
        /// Lets a sync fail with an error of SQLite.
        pub(crate) fn fail_sync(&mut self, extended_code: i32) -> StorageError {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(extended_code), None);
            self.run_sync(|_| Err::<(), _>(error)).unwrap_err()
        }
    }

    fn open(dir: &tempfile::TempDir) -> SqliteFile {
        let location = PathWithPublicName::new("the file", dir.path().join("file.db"));
        SqliteFile::open_or_create(location).unwrap()
    }

    fn write(file: &mut SqliteFile) -> Result<(), StorageError> {
        file.run_transaction(|c| c.execute_batch("CREATE TABLE IF NOT EXISTS rows (bytes BLOB)"))
    }

    #[test]
    fn changes_fail_after_a_failed_sync_until_the_file_is_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = open(&dir);
        write(&mut file).unwrap();
        // A full disk loses nothing.
        let full = file.fail_sync(ffi::SQLITE_FULL);
        assert!(matches!(full, StorageError::NoSpace { .. }), "{full}");
        write(&mut file).unwrap();
        file.fail_sync(ffi::SQLITE_IOERR_FSYNC);
        for refused in [
            file.sync(),
            write(&mut file),
            file.shrink().map(drop),
            file.truncate_log().map(drop),
        ] {
            assert!(refused.unwrap_err().to_string().contains("restart weir"));
        }
        drop(file);
        let mut file = open(&dir);
        write(&mut file).unwrap();
        file.sync().unwrap();
    }

    #[test]
    fn syncs_are_counted_if_something_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = open(&dir);
        let before = file.count_syncs().unwrap();
        file.sync().unwrap();
        assert_eq!(file.count_syncs().unwrap(), before);
        write(&mut file).unwrap();
        file.sync().unwrap();
        assert_eq!(file.count_syncs().unwrap(), before + 1);
        drop(file);
        assert_eq!(open(&dir).count_syncs().unwrap(), before + 1);
    }

    #[test]
    fn one_call_gives_many_unused_pages_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = open(&dir);
        file.run_transaction(|c| {
            c.execute_batch(
                "CREATE TABLE filler (bytes BLOB); INSERT INTO filler VALUES (randomblob(1000000))",
            )?;
            c.execute_batch("DROP TABLE filler")
        })
        .unwrap();
        assert!(file.has_unused_pages().unwrap());
        assert!(!file.shrink().unwrap());
        assert!(file.truncate_log().unwrap());
        assert!(dir.path().join("file.db").metadata().unwrap().len() < 100_000);
    }
}
