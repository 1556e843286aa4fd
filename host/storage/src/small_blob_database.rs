//! Small blobs in SQLite, `<data>/blobs.db`.
//!
//! A file system needs a block and an inode for each file and for each of its folders, and each file is opened, synced and measured on its
//! own. The lines of a page are smaller than that, and the lines of all pages of a document are read together. So small blobs share one
//! file, and a group of them is made durable with one sync.
//!
//! A write survives a killed process, and [`SmallBlobWriter::flush`] makes it survive a power failure.

use std::path::Path;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OptionalExtension as _, params};
use weir_core::{StorageError, TenantId};

use crate::path_with_public_name::PathWithPublicName;
use crate::sqlite_file::{IdleReaders, SqliteFile};

/// Maximum size of a blob in the database, in bytes. Larger blobs are files. The lines of a sample page have 1 to 8 kB, its image 35 to 430 kB.
pub(crate) const MAX_SMALL_BLOB_BYTES: usize = 32 << 10;
const FILE_NAME: &str = "blobs.db";
/// The name of the database in errors.
const DATABASE_NAME: &str = "the database of small blobs";
/// The `user_version` of a file that this version writes.
const SCHEMA_VERSION: u32 = 1;
const SCHEMA: &str = "
    CREATE TABLE blobs (number INTEGER PRIMARY KEY, tenant TEXT NOT NULL, key TEXT NOT NULL, bytes BLOB NOT NULL);
    CREATE UNIQUE INDEX blobs_by_key ON blobs (tenant, key);
    PRAGMA user_version = 1;";
/// The condition of the keys that start with the second parameter. Each character of a key precedes DEL.
const KEY_HAS_PREFIX: &str = "tenant = ?1 AND key >= ?2 AND key < ?2 || char(127)";
/// Bytes of changed blobs after which a change syncs the file.
const MAX_UNSYNCED_BYTES: i64 = 64 << 20;

/// The database, for the process that holds the data folder.
pub(crate) struct SmallBlobDatabase {
    location: PathWithPublicName,
    writer: Mutex<SmallBlobWriter>,
    idle_readers: IdleReaders<SqliteFile>,
}

/// The connection that writes.
pub(crate) struct SmallBlobWriter {
    file: SqliteFile,
    /// Rows were removed since the log was truncated.
    has_removed_rows: bool,
    /// Bytes of blobs that were written or removed since the last sync.
    unsynced_bytes: i64,
}

impl SmallBlobDatabase {
    /// Returns whether a data folder has the database.
    pub(crate) fn exists_in(data: &Path) -> bool {
        data.join(FILE_NAME).exists()
    }

    /// Opens the database of a data folder and creates it if it does not exist. Blocks on the disk.
    pub(crate) fn open_or_create(data: &Path) -> Result<Self, StorageError> {
        let location = location_in(data);
        let mut file = SqliteFile::open_or_create(location.clone())?;
        match file.run(|c| c.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0)))? {
            0 => file.run_transaction(|c| c.execute_batch(SCHEMA))?,
            SCHEMA_VERSION => {}
            _ => {
                let reason = "it was made by a newer version of weir: use that version";
                return Err(location.failed_error(reason));
            }
        }
        Ok(Self {
            writer: Mutex::new(SmallBlobWriter {
                file,
                has_removed_rows: false,
                unsynced_bytes: 0,
            }),
            location,
            idle_readers: IdleReaders::default(),
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
        let open = || SqliteFile::open_for_reading(self.location.clone());
        self.idle_readers.run(open, |reader| reader.run(work))
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
        let replaced = self.file.run_transaction(|c| {
            let replaced = find_blob_size(c, tenant, key)?;
            c.prepare_cached(
                "INSERT INTO blobs (tenant, key, bytes) VALUES (?1, ?2, ?3)
                 ON CONFLICT (tenant, key) DO UPDATE SET bytes = ?3",
            )?
            .execute(params![tenant.as_str(), key, bytes])?;
            Ok(replaced)
        })?;
        let written = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        self.count_unsynced_bytes(written)?;
        Ok(written - replaced.unwrap_or(0))
    }

    /// Removes blobs. Returns how many bytes they had. If it fails, all of them are left.
    pub(crate) fn remove_blobs(&mut self, tenant: &TenantId, keys: &[String]) -> Result<i64, StorageError> {
        let removed = self.file.run_transaction(|c| {
            let mut removed = 0;
            for key in keys {
                removed += find_blob_size(c, tenant, key)?.unwrap_or(0);
                c.prepare_cached("DELETE FROM blobs WHERE tenant = ?1 AND key = ?2")?
                    .execute([tenant.as_str(), key])?;
            }
            Ok(removed)
        })?;
        self.has_removed_rows = true;
        self.count_unsynced_bytes(removed)?;
        Ok(removed)
    }

    /// Makes all changes durable and removes deleted rows from the disk. Returns whether deleted rows are left, because a reader needs
    /// them.
    pub(crate) fn flush(&mut self) -> Result<bool, StorageError> {
        self.sync()?;
        if self.has_removed_rows {
            self.has_removed_rows = !self.file.truncate_log()?;
        }
        Ok(self.has_removed_rows)
    }

    /// Makes all changes durable. After a failure, every change fails until the file is opened again.
    pub(crate) fn sync(&mut self) -> Result<(), StorageError> {
        self.unsynced_bytes = 0;
        self.file.sync()
    }

    /// Syncs after many changes, so that the log does not become much larger than this.
    fn count_unsynced_bytes(&mut self, changed: i64) -> Result<(), StorageError> {
        self.unsynced_bytes = self.unsynced_bytes.saturating_add(changed);
        match self.unsynced_bytes > MAX_UNSYNCED_BYTES {
            true => self.sync(),
            false => Ok(()),
        }
    }

    /// Gives some unused pages back to the file system. Returns whether there are more.
    pub(crate) fn shrink(&mut self) -> Result<bool, StorageError> {
        let has_unused_pages = self.file.has_unused_pages()?;
        self.has_removed_rows |= has_unused_pages;
        Ok(has_unused_pages && self.file.shrink()?)
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

fn find_blob_size(c: &Connection, tenant: &TenantId, key: &str) -> rusqlite::Result<Option<i64>> {
    c.prepare_cached("SELECT length(bytes) FROM blobs WHERE tenant = ?1 AND key = ?2")?
        .query_row([tenant.as_str(), key], |row| row.get(0))
        .optional()
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
    fn file_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(SmallBlobDatabase::open_or_create(dir.path()).unwrap());
        let c = Connection::open(dir.path().join(FILE_NAME)).unwrap();
        c.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
        let refused = SmallBlobDatabase::open_or_create(dir.path()).err().unwrap();
        assert!(refused.to_string().contains("newer version"), "{refused}");
    }
}
