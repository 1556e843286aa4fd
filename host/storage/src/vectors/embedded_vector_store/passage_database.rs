//! The passages in SQLite, `passages.db`: the only durable copy. The indexes of words and of codes are derived from it.
//!
//! Passages have numbers in the order in which they were written, and a number is never used again. A replaced passage gets a new
//! number. So a derived index follows with the passages above the last number that it has, and with the numbers in `removals`.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, ffi, params};
use uuid::Uuid;
use weir_core::StorageError;

use crate::ledger::sqlite::database::{create_or_make_file_private, to_storage_error, truncate_wal};
use crate::path_with_public_name::PathWithPublicName;

const FILE_NAME: &str = "passages.db";
/// The version of the tables, of the payload and of the word splitting. An index of another version cannot be opened.
pub(super) const FORMAT_VERSION: u32 = 3;
/// Bytes of a page of the file: a page has at least four rows with vectors of up to 1,000 dimensions.
const PAGE_BYTES: u32 = 8192;
/// KiB of the page cache of the connection that writes.
const WRITER_CACHE_KIB: i32 = 32 << 10;
/// Pages of the log that are written to the file at once.
const CHECKPOINT_PAGES: u32 = 4000;
/// Pages that one call of [`PassageDatabase::shrink_file`] gives back.
const SHRINK_PAGES: u32 = 2000;

const SCHEMA: &str = "
    CREATE TABLE format (
        version INTEGER NOT NULL, id BLOB NOT NULL, model TEXT NOT NULL, dimensions INTEGER NOT NULL,
        last_coded_number INTEGER NOT NULL, syncs INTEGER NOT NULL
    );
    CREATE TABLE tenants (
        number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, passages INTEGER NOT NULL
    );
    CREATE TABLE passages (
        number INTEGER PRIMARY KEY AUTOINCREMENT, tenant INTEGER NOT NULL, document BLOB NOT NULL, page INTEGER NOT NULL,
        passage INTEGER NOT NULL, id BLOB NOT NULL, payload TEXT NOT NULL
    );
    CREATE UNIQUE INDEX passages_by_place ON passages (tenant, document, page, passage, id);
    CREATE TABLE vectors (
        tenant INTEGER NOT NULL, number INTEGER NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (tenant, number)
    ) WITHOUT ROWID;
    CREATE TABLE removals (number INTEGER PRIMARY KEY, tenant INTEGER NOT NULL);";

const IS_EMPTY: &str = "SELECT count(*) = 0 FROM sqlite_schema";

/// A tenant's number in the index.
pub(super) type TenantNumber = i64;
/// A passage's number in the index.
pub(super) type PassageNumber = i64;

/// The first row of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format {
    version: u32,
    /// A random id of the file, which the derived indexes name.
    pub(super) id: Uuid,
    pub(super) model: String,
    pub(super) dimensions: usize,
}

/// A connection to the file.
pub(super) struct PassageDatabase {
    connection: Connection,
    pub(super) location: PathWithPublicName,
    /// Syncing failed. The kernel treats the lost pages as written, so a later sync would succeed although data is lost.
    has_sync_failed: bool,
}

impl PassageDatabase {
    /// Returns whether a folder has the file.
    pub(super) fn exists_in(folder: &Path) -> bool {
        folder.join(FILE_NAME).exists()
    }

    /// Returns whether a folder has the log of the file, which a process that closes the file removes.
    pub(super) fn has_log(folder: &Path) -> bool {
        folder.join(format!("{FILE_NAME}-wal")).exists()
    }

    /// Opens the file of an index for writing, or creates it for vectors of length `dimensions` by the embedding model `model`.
    pub(super) fn open_or_create(
        folder: &Path,
        model: &str,
        dimensions: usize,
    ) -> Result<Self, StorageError> {
        let file = folder.join(FILE_NAME);
        let location = file_with_error_name(&file);
        create_or_make_file_private(&file).map_err(|e| location.io_error(&e))?;
        let mut database = Self::connect(&file)?;
        database.run(|c| {
            // Only effective before the file has tables.
            c.pragma_update(None, "page_size", PAGE_BYTES)?;
            c.pragma_update(None, "auto_vacuum", "incremental")?;
            c.pragma_update(None, "journal_mode", "wal")?;
            // A commit survives a killed process; `sync` makes it survive a power failure.
            c.pragma_update(None, "synchronous", "normal")?;
            c.pragma_update(None, "journal_size_limit", 64 << 20)?;
            c.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
            c.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
            // Overwrite removed rows.
            c.pragma_update(None, "secure_delete", true)
        })?;
        let dimensions = i64::try_from(dimensions).unwrap_or(i64::MAX);
        database.run_transaction(|c| {
            if c.query_row(IS_EMPTY, [], |row| row.get(0))? {
                c.execute_batch(SCHEMA)?;
                c.execute(
                    "INSERT INTO format VALUES (?1, ?2, ?3, ?4, 0, 0)",
                    params![FORMAT_VERSION, Uuid::new_v4().as_bytes(), model, dimensions],
                )?;
            }
            Ok(())
        })?;
        Ok(database)
    }

    /// Opens an existing file for reading.
    pub(super) fn open_for_reading(folder: &Path) -> Result<Self, StorageError> {
        let database = Self::connect(&folder.join(FILE_NAME))?;
        database.run(|c| c.pragma_update(None, "query_only", true))?;
        Ok(database)
    }

    fn connect(file: &Path) -> Result<Self, StorageError> {
        let location = file_with_error_name(file);
        // Readers of a write-ahead log write their position into a file beside it.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(file, flags).map_err(|e| to_storage_error(&location, &e))?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(Self {
            connection,
            location,
            has_sync_failed: false,
        })
    }

    pub(super) fn run<R>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<R>,
    ) -> Result<R, StorageError> {
        work(&self.connection).map_err(|e| to_storage_error(&self.location, &e))
    }

    pub(super) fn run_transaction<R>(
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
        run().map_err(|e| to_storage_error(&self.location, &e))
    }

    /// Returns the format; `None` if the process that created the file was killed before it has created the tables.
    pub(super) fn find_format(&self) -> Result<Option<Format>, StorageError> {
        self.run(|c| {
            if c.query_row(IS_EMPTY, [], |row| row.get(0))? {
                return Ok(None);
            }
            let select = "SELECT version, id, model, dimensions FROM format";
            let row = c.query_row(select, [], |row| {
                Ok(Format {
                    version: row.get(0)?,
                    id: Uuid::from_bytes(row.get(1)?),
                    model: row.get(2)?,
                    dimensions: usize::try_from(row.get::<_, i64>(3)?).unwrap_or_default(),
                })
            });
            row.optional()
        })
    }

    /// Returns an error if the file has another version or its vectors are of another model.
    pub(super) fn check_format(&self, model: &str, dimensions: usize) -> Result<Format, StorageError> {
        let found = self
            .find_format()?
            .ok_or_else(|| self.location.damaged_error("it has no format"))?;
        if found.version != FORMAT_VERSION {
            return Err(self.location.failed_error(
                "it was made by another version of weir: use that version, or another folder with --data",
            ));
        }
        if found.model != model || found.dimensions != dimensions {
            return Err(self.location.failed_error(format_args!(
                "its vectors are of model {} ({} dimensions) and cannot be compared with those of {model} ({dimensions}): set that \
                 model again, or ingest the documents into another folder with --data",
                found.model, found.dimensions
            )));
        }
        Ok(found)
    }

    /// Returns the highest number of a passage so far.
    pub(super) fn last_number(&self) -> Result<PassageNumber, StorageError> {
        self.run(|c| {
            let select = "SELECT seq FROM sqlite_sequence WHERE name = 'passages'";
            let number = c.query_row(select, [], |row| row.get(0)).optional()?;
            Ok(number.unwrap_or_default())
        })
    }

    /// Returns the last passage of which the index of codes is known to be on the disk.
    pub(super) fn last_coded_number(&self) -> Result<PassageNumber, StorageError> {
        self.run(|c| c.query_row("SELECT last_coded_number FROM format", [], |row| row.get(0)))
    }

    /// Returns how often the file was synced. An earlier copy of the file has a lower number.
    pub(super) fn count_syncs(&self) -> Result<i64, StorageError> {
        self.run(|c| c.query_row("SELECT syncs FROM format", [], |row| row.get(0)))
    }

    /// Makes all commits durable. After a failure, every change fails until the file is opened again.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        self.sync_with(|c| {
            // With `full`, a commit syncs the whole log.
            c.pragma_update(None, "synchronous", "full")?;
            let written = c.execute("UPDATE format SET syncs = syncs + 1", []);
            c.pragma_update(None, "synchronous", "normal")?;
            written.map(drop)
        })
    }

    /// Runs `sync`, which syncs files.
    fn sync_with<R>(
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
    pub(super) fn has_unused_pages(&self) -> Result<bool, StorageError> {
        self.run(|c| c.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0)))
            .map(|unused| unused > 0)
    }

    /// Gives unused pages at the end of the file back to the file system. Returns whether there may be more.
    pub(super) fn shrink_file(&mut self) -> Result<bool, StorageError> {
        self.sync_with(|c| {
            let mut shrink = c.prepare(&format!("PRAGMA incremental_vacuum({SHRINK_PAGES})"))?;
            // Each step frees one page.
            let mut rows = shrink.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        })?;
        self.has_unused_pages()
    }

    /// Writes the log into the file and truncates it, so that removed rows leave the disk. Returns `false` if a reader needs the log.
    pub(super) fn truncate_log(&mut self) -> Result<bool, StorageError> {
        self.sync_with(truncate_wal)
    }
}

fn file_with_error_name(file: &Path) -> PathWithPublicName {
    PathWithPublicName::new(super::INDEX_NAME, file)
}

#[cfg(test)]
mod tests {
    use weir_core::TenantId;

    use super::*;

    #[test]
    fn changes_fail_after_a_failed_sync_until_the_file_is_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let open = || PassageDatabase::open_or_create(dir.path(), "model", 8).unwrap();
        let mut database = open();
        let tenant = database
            .insert_or_find_tenant(&TenantId::default_tenant())
            .unwrap();
        database.sync().unwrap();
        let failure = ffi::Error::new(ffi::SQLITE_IOERR_FSYNC);
        let failed = database.sync_with(|_| Err::<(), _>(rusqlite::Error::SqliteFailure(failure, None)));
        assert!(matches!(failed, Err(StorageError::Failed { .. })), "{failed:?}");
        for refused in [
            database.sync(),
            database.upsert_passages(tenant, &[]).map(drop),
            database.set_indexed_up_to(1),
        ] {
            assert!(refused.unwrap_err().to_string().contains("restart weir"));
        }
        drop(database);
        let mut database = open();
        database.upsert_passages(tenant, &[]).unwrap();
        database.sync().unwrap();
    }

    #[test]
    fn one_call_gives_many_unused_pages_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = PassageDatabase::open_or_create(dir.path(), "model", 8).unwrap();
        database
            .run_transaction(|c| {
                c.execute_batch(
                    "CREATE TABLE filler (bytes BLOB); INSERT INTO filler VALUES (randomblob(1000000))",
                )?;
                c.execute_batch("DROP TABLE filler")
            })
            .unwrap();
        assert!(database.has_unused_pages().unwrap());
        assert!(!database.shrink_file().unwrap());
    }
}
