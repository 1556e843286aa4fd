//! Small blobs in SQLite, `<data>/blobs.db`.
//!
//! A file system needs a block and an inode for each file and for each of its folders, and each file is opened, synced and measured on its
//! own. The lines of a page are smaller than that, and the lines of all pages of a document are read together. So small blobs share one
//! file, and a group of them is made durable with one sync.
//!
//! A commit survives a killed process, and [`SmallBlobWriter::flush`] makes it survive a power failure. Removed rows are overwritten, in
//! the file and in its log.

use std::path::Path;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use weir_core::{StorageError, TenantId};

use crate::ledger::sqlite::database::{create_or_make_file_private, to_storage_error, truncate_wal};
use crate::path_with_public_name::PathWithPublicName;

/// Maximum size of a blob in the database, in bytes. Larger blobs are files. The lines of a sample page have 1 to 8 kB, its image 35 to 430 kB.
pub(crate) const MAX_SMALL_BLOB_BYTES: usize = 32 << 10;
const FILE_NAME: &str = "blobs.db";
/// The name of the database in errors.
const DATABASE_NAME: &str = "the database of small blobs";
/// The `user_version` of a file that this version writes.
const SCHEMA_VERSION: u32 = 1;
/// The number of flushes is a row that a flush can change.
const SCHEMA: &str = "
    BEGIN;
    CREATE TABLE blobs (number INTEGER PRIMARY KEY, tenant TEXT NOT NULL, key TEXT NOT NULL, bytes BLOB NOT NULL);
    CREATE UNIQUE INDEX blobs_by_key ON blobs (tenant, key);
    CREATE TABLE flushes (count INTEGER NOT NULL);
    INSERT INTO flushes VALUES (0);
    PRAGMA user_version = 1;
    COMMIT;";
/// The condition of the keys that start with the second parameter. Each character of a key precedes DEL.
const KEY_HAS_PREFIX: &str = "tenant = ?1 AND key >= ?2 AND key < ?2 || char(127)";
/// Pages of the log from which a flush writes them to the file.
const CHECKPOINT_PAGES: u32 = 4000;
/// Pages that one flush gives back to the file system.
const SHRINK_PAGES: u32 = 2000;
/// Connections for reading that are kept open.
const MAX_IDLE_READERS: usize = 4;

/// The database, for the process that holds the data folder.
pub(crate) struct SmallBlobDatabase {
    location: PathWithPublicName,
    writer: Mutex<SmallBlobWriter>,
    idle_readers: Mutex<Vec<Connection>>,
}

/// The connection that writes.
pub(crate) struct SmallBlobWriter {
    connection: Connection,
    location: PathWithPublicName,
    has_unsynced_commits: bool,
    /// Rows were removed since the log was truncated, or the file has unused pages.
    has_removed_rows: bool,
    /// Syncing failed. The kernel treats the lost pages as written, so a later sync would succeed although data is lost.
    has_sync_failed: bool,
}

impl SmallBlobDatabase {
    /// Returns whether a data folder has the database.
    pub(crate) fn exists_in(data: &Path) -> bool {
        data.join(FILE_NAME).exists()
    }

    /// Opens the database of a data folder and creates it if it does not exist. Blocks on the disk.
    pub(crate) fn open_or_create(data: &Path) -> Result<Self, StorageError> {
        let location = location_in(data);
        create_or_make_file_private(location.path()).map_err(|e| location.io_error(&e))?;
        let connection = connect(&location)?;
        let version = run(&location, &connection, |c| {
            // Only effective before the file has tables.
            c.pragma_update(None, "auto_vacuum", "incremental")?;
            c.pragma_update(None, "journal_mode", "wal")?;
            c.pragma_update(None, "synchronous", "normal")?;
            c.pragma_update(None, "journal_size_limit", 64 << 20)?;
            // Writing the log to the file waits for the disk, so only flushes do it.
            c.pragma_update(None, "wal_autocheckpoint", 0)?;
            // Overwrite removed rows.
            c.pragma_update(None, "secure_delete", true)?;
            let version: u32 = c.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if version == 0 {
                c.execute_batch(SCHEMA)?;
            }
            Ok(version)
        })?;
        if version > SCHEMA_VERSION {
            return Err(location.failed_error("it was made by a newer version of weir: use that version"));
        }
        let has_removed_rows = run(&location, &connection, |c| {
            // The log may still have rows that the last process removed.
            let truncated = truncate_wal(c)?;
            Ok(!truncated || count_unused_pages(c)? > 0)
        })?;
        Ok(Self {
            writer: Mutex::new(SmallBlobWriter {
                connection,
                location: location.clone(),
                has_unsynced_commits: false,
                has_removed_rows,
                has_sync_failed: false,
            }),
            location,
            idle_readers: Mutex::default(),
        })
    }

    /// Waits until no other call writes.
    pub(crate) fn lock_writer(&self) -> MutexGuard<'_, SmallBlobWriter> {
        self.writer.lock()
    }

    /// Returns a blob; `None` if it is not in the database.
    pub(crate) fn find_blob(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        self.read(|c| {
            c.prepare_cached("SELECT bytes FROM blobs WHERE tenant = ?1 AND key = ?2")?
                .query_row([tenant.as_str(), key], |row| row.get(0))
                .optional()
        })
    }

    /// Returns the size of a blob in bytes; `None` if it is not in the database.
    pub(crate) fn find_size(&self, tenant: &TenantId, key: &str) -> Result<Option<u64>, StorageError> {
        self.read(|c| find_blob_size(c, tenant, key))
            .map(|size| size.and_then(|size| u64::try_from(size).ok()))
    }

    /// Lists the tenant's keys that start with `prefix`, sorted.
    pub(crate) fn list_keys(&self, tenant: &TenantId, prefix: &str) -> Result<Vec<String>, StorageError> {
        self.read(|c| {
            let select = format!("SELECT key FROM blobs WHERE {KEY_HAS_PREFIX} ORDER BY key");
            let mut select = c.prepare_cached(&select)?;
            let keys = select.query_map([tenant.as_str(), prefix], |row| row.get(0))?;
            keys.collect()
        })
    }

    /// Lists at most `limit` blobs of all tenants after a tenant and key, with their sizes in bytes, sorted.
    pub(crate) fn list_blobs_after(
        &self,
        (tenant, key): (&str, &str),
        limit: u32,
    ) -> Result<Vec<(String, String, u64)>, StorageError> {
        self.read(|c| {
            let select = "SELECT tenant, key, length(bytes) FROM blobs WHERE (tenant, key) > (?1, ?2) ORDER BY tenant, key LIMIT ?3";
            let mut select = c.prepare_cached(select)?;
            let blobs = select.query_map(params![tenant, key, limit], |row| {
                let bytes = row.get::<_, i64>(2)?;
                Ok((row.get(0)?, row.get(1)?, u64::try_from(bytes).unwrap_or_default()))
            })?;
            blobs.collect()
        })
    }

    fn read<R>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<R>) -> Result<R, StorageError> {
        let idle = self.idle_readers.lock().pop();
        let reader = match idle {
            Some(reader) => reader,
            None => {
                let reader = connect(&self.location)?;
                run(&self.location, &reader, |c| {
                    c.pragma_update(None, "query_only", true)
                })?;
                reader
            }
        };
        let result = run(&self.location, &reader, work)?;
        let mut idle_readers = self.idle_readers.lock();
        if idle_readers.len() < MAX_IDLE_READERS {
            idle_readers.push(reader);
        }
        Ok(result)
    }
}

impl SmallBlobWriter {
    /// Writes or replaces a blob. Returns by how many bytes the stored blobs grew.
    pub(crate) fn put_blob(
        &mut self,
        tenant: &TenantId,
        key: &str,
        bytes: &[u8],
    ) -> Result<i64, StorageError> {
        self.check_no_failed_sync()?;
        let replaced = self.run(|c| {
            let replaced = find_blob_size(c, tenant, key)?;
            c.prepare_cached(
                "INSERT INTO blobs (tenant, key, bytes) VALUES (?1, ?2, ?3)
                 ON CONFLICT (tenant, key) DO UPDATE SET bytes = ?3",
            )?
            .execute(params![tenant.as_str(), key, bytes])?;
            Ok(replaced)
        })?;
        self.has_unsynced_commits = true;
        Ok(i64::try_from(bytes.len()).unwrap_or(i64::MAX) - replaced.unwrap_or(0))
    }

    /// Removes blobs. Returns how many bytes they had. If it fails, all of them are left.
    pub(crate) fn remove_blobs(&mut self, tenant: &TenantId, keys: &[String]) -> Result<i64, StorageError> {
        self.check_no_failed_sync()?;
        let removed = self.run(|c| {
            let transaction = c.unchecked_transaction()?;
            let mut removed = 0;
            for key in keys {
                removed += find_blob_size(&transaction, tenant, key)?.unwrap_or(0);
                transaction
                    .prepare_cached("DELETE FROM blobs WHERE tenant = ?1 AND key = ?2")?
                    .execute([tenant.as_str(), key])?;
            }
            transaction.commit()?;
            Ok(removed)
        })?;
        self.has_unsynced_commits = true;
        self.has_removed_rows = true;
        Ok(removed)
    }

    /// Makes all commits durable and removes deleted rows from the disk. Returns whether deleted rows are left, because a reader needs
    /// them or because much of the file is unused: another flush goes on.
    pub(crate) fn flush(&mut self) -> Result<bool, StorageError> {
        self.sync()?;
        if self.has_removed_rows {
            let (is_truncated, unused) = self.run(|c| {
                let mut shrink = c.prepare(&format!("PRAGMA incremental_vacuum({SHRINK_PAGES})"))?;
                let mut pages = shrink.query([])?;
                // Each row is a page that was given back.
                while pages.next()?.is_some() {}
                Ok((truncate_wal(c)?, count_unused_pages(c)?))
            })?;
            self.has_removed_rows = !is_truncated || unused > 0;
        }
        Ok(self.has_removed_rows)
    }

    /// Makes all commits durable. After a failure, every change fails until the file is opened again.
    pub(crate) fn sync(&mut self) -> Result<(), StorageError> {
        self.sync_with(|c| {
            // With `full`, a commit syncs the whole log.
            c.pragma_update(None, "synchronous", "full")?;
            c.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
            let written = c.execute("UPDATE flushes SET count = count + 1", []);
            c.pragma_update(None, "wal_autocheckpoint", 0)?;
            c.pragma_update(None, "synchronous", "normal")?;
            written.map(drop)
        })
    }

    fn sync_with(
        &mut self,
        sync: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), StorageError> {
        self.check_no_failed_sync()?;
        if !self.has_unsynced_commits {
            return Ok(());
        }
        let synced = self.run(sync);
        // Without space, nothing of this sync was written, and earlier commits are as they were.
        self.has_sync_failed =
            matches!(&synced, Err(error) if !matches!(error, StorageError::NoSpace { .. }));
        self.has_unsynced_commits = synced.is_err();
        synced
    }

    fn check_no_failed_sync(&self) -> Result<(), StorageError> {
        match self.has_sync_failed {
            true => Err(self.location.failed_error(
                "it could not be written to the disk: restart weir, which then repeats the lost changes",
            )),
            false => Ok(()),
        }
    }

    fn run<R>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<R>) -> Result<R, StorageError> {
        run(&self.location, &self.connection, work)
    }
}

/// Measures the small blobs of data folders that no process has open.
#[derive(Default)]
pub(crate) struct SmallBlobMeter(Option<SmallBlobDatabase>);

impl SmallBlobMeter {
    /// Returns the bytes of the blobs whose key is `first_segment` or begins with it and a slash.
    pub(crate) fn count_bytes(
        &mut self,
        data: &Path,
        tenant: &TenantId,
        first_segment: &str,
    ) -> Result<i64, StorageError> {
        if self.0.is_none() {
            if !SmallBlobDatabase::exists_in(data) {
                return Ok(0);
            }
            self.0 = Some(SmallBlobDatabase::open_or_create(data)?);
        }
        let Some(database) = &self.0 else { return Ok(0) };
        database.read(|c| {
            let sum = format!("SELECT coalesce(sum(length(bytes)), 0) FROM blobs WHERE {KEY_HAS_PREFIX}");
            let below = c
                .prepare_cached(&sum)?
                .query_row(params![tenant.as_str(), format!("{first_segment}/")], |row| {
                    row.get::<_, i64>(0)
                })?;
            Ok(below + find_blob_size(c, tenant, first_segment)?.unwrap_or(0))
        })
    }
}

fn location_in(data: &Path) -> PathWithPublicName {
    PathWithPublicName::new(DATABASE_NAME, data.join(FILE_NAME))
}

fn connect(location: &PathWithPublicName) -> Result<Connection, StorageError> {
    // Readers of a write-ahead log write their position into a file beside it.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(location.path(), flags).map_err(|e| to_storage_error(location, &e))
}

fn run<R>(
    location: &PathWithPublicName,
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<R>,
) -> Result<R, StorageError> {
    work(connection).map_err(|e| to_storage_error(location, &e))
}

fn find_blob_size(c: &Connection, tenant: &TenantId, key: &str) -> rusqlite::Result<Option<i64>> {
    c.prepare_cached("SELECT length(bytes) FROM blobs WHERE tenant = ?1 AND key = ?2")?
        .query_row([tenant.as_str(), key], |row| row.get(0))
        .optional()
}

fn count_unused_pages(c: &Connection) -> rusqlite::Result<i64> {
    c.pragma_query_value(None, "freelist_count", |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_survive_a_drop_and_are_measured_by_first_segment() {
        let dir = tempfile::tempdir().unwrap();
        let (t, other) = (TenantId::default_tenant(), "other".parse().unwrap());
        let mut meter = SmallBlobMeter::default();
        assert_eq!(meter.count_bytes(dir.path(), &t, "d").unwrap(), 0);
        assert!(
            !SmallBlobDatabase::exists_in(dir.path()),
            "measuring creates nothing"
        );
        let database = SmallBlobDatabase::open_or_create(dir.path()).unwrap();
        for (tenant, key, bytes) in [
            (&t, "d", 1),
            (&t, "d/1/ocr.json", 10),
            (&t, "d/2/ocr.json", 100),
            (&t, "d-2/1", 1000),
            (&t, "d.txt", 1000),
            (&other, "d/1", 1000),
        ] {
            assert_eq!(
                database
                    .lock_writer()
                    .put_blob(tenant, key, &vec![1; bytes])
                    .unwrap(),
                bytes as i64
            );
        }
        assert_eq!(
            database
                .lock_writer()
                .put_blob(&t, "d/1/ocr.json", b"ten")
                .unwrap(),
            -7
        );
        drop(database);
        assert_eq!(meter.count_bytes(dir.path(), &t, "d").unwrap(), 104);
        drop(meter);
        let database = SmallBlobDatabase::open_or_create(dir.path()).unwrap();
        assert_eq!(database.find_blob(&t, "d/1/ocr.json").unwrap().unwrap(), b"ten");
        let listed = database.list_blobs_after(("", ""), 100).unwrap();
        assert_eq!(listed.len(), 6);
        assert_eq!(
            database
                .list_blobs_after((&listed[3].0, &listed[3].1), 1)
                .unwrap(),
            listed[4..5]
        );
    }

    #[test]
    fn changes_fail_after_a_failed_sync_until_the_next_open() {
        let dir = tempfile::tempdir().unwrap();
        let t = TenantId::default_tenant();
        let database = SmallBlobDatabase::open_or_create(dir.path()).unwrap();
        let mut writer = database.lock_writer();
        writer.put_blob(&t, "d/1", b"one").unwrap();
        let no_space = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        let failed = writer.sync_with(|_| Err(rusqlite::Error::SqliteFailure(no_space, None)));
        assert!(matches!(failed, Err(StorageError::NoSpace { .. })));
        writer.put_blob(&t, "d/2", b"two").unwrap();
        let lost = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
        writer
            .sync_with(|_| Err(rusqlite::Error::SqliteFailure(lost, None)))
            .unwrap_err();
        for failed in [
            writer.flush().map(drop),
            writer.put_blob(&t, "d/3", b"three").map(drop),
            writer.remove_blobs(&t, &["d/1".to_owned()]).map(drop),
        ] {
            assert!(failed.unwrap_err().to_string().contains("restart weir"));
        }
        drop(writer);
        drop(database);
        let database = SmallBlobDatabase::open_or_create(dir.path()).unwrap();
        database.lock_writer().put_blob(&t, "d/3", b"three").unwrap();
        assert!(!database.lock_writer().flush().unwrap());
        assert_eq!(database.list_keys(&t, "").unwrap(), ["d/1", "d/2", "d/3"]);
    }

    #[test]
    fn file_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(SmallBlobDatabase::open_or_create(dir.path()).unwrap());
        let c = Connection::open(dir.path().join(FILE_NAME)).unwrap();
        c.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
        let refused = SmallBlobDatabase::open_or_create(dir.path()).err().unwrap();
        assert!(refused.to_string().contains("newer version"), "{refused}");
    }
}
