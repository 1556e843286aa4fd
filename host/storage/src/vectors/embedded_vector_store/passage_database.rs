//! The passages in SQLite, `passages.db`: the only durable copy. The indexes of words and of codes are derived from it.
//!
//! Passages have numbers in the order in which they were written, and a number is never used again. A replaced passage gets a new
//! number. So a derived index is brought up to date by the passages above the last number that it has, and by the numbers in `removals`.

use std::path::Path;

use rusqlite::{OptionalExtension as _, params};
use uuid::Uuid;
use weir_core::StorageError;

use super::index_errors::INDEX_NAME;
use crate::path_with_public_name::PathWithPublicName;
use crate::sqlite_file::SqliteFile;

const FILE_NAME: &str = "passages.db";
/// The version of the tables, of the payload and of the word splitting. An index of another version cannot be opened.
pub(super) const FORMAT_VERSION: u32 = 3;
const SCHEMA: &str = "
    CREATE TABLE format (
        version INTEGER NOT NULL, id BLOB NOT NULL, model TEXT NOT NULL, dimensions INTEGER NOT NULL,
        last_coded_number INTEGER NOT NULL
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

const HAS_NO_TABLES: &str = "SELECT count(*) = 0 FROM sqlite_schema WHERE name = 'format'";

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
    pub(super) file: SqliteFile,
}

impl PassageDatabase {
    /// Returns whether a folder has the file.
    pub(super) fn exists_in(folder: &Path) -> bool {
        folder.join(FILE_NAME).exists()
    }

    /// Returns whether an earlier process did not close the file.
    pub(super) fn has_log(folder: &Path) -> bool {
        SqliteFile::has_log(&folder.join(FILE_NAME))
    }

    /// Opens the file of an index for writing, or creates it for vectors of length `dimensions` by the embedding model `model`.
    pub(super) fn open_or_create(
        folder: &Path,
        model: &str,
        dimensions: usize,
    ) -> Result<Self, StorageError> {
        let mut file = SqliteFile::open_or_create(location_in(folder))?;
        let dimensions = i64::try_from(dimensions).unwrap_or(i64::MAX);
        if file.run(|c| c.query_row(HAS_NO_TABLES, [], |row| row.get(0)))? {
            file.run_transaction(|c| {
                c.execute_batch(SCHEMA)?;
                c.execute(
                    "INSERT INTO format VALUES (?1, ?2, ?3, ?4, 0)",
                    params![FORMAT_VERSION, Uuid::new_v4().as_bytes(), model, dimensions],
                )
            })?;
        }
        Ok(Self { file })
    }

    /// Opens an existing file for reading.
    pub(super) fn open_for_reading(folder: &Path) -> Result<Self, StorageError> {
        let file = SqliteFile::open_for_reading(location_in(folder))?;
        Ok(Self { file })
    }

    /// Returns the format; `None` if the process that created the file was killed before it has created the tables.
    pub(super) fn find_format(&self) -> Result<Option<Format>, StorageError> {
        self.file.run(|c| {
            if c.query_row(HAS_NO_TABLES, [], |row| row.get(0))? {
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
            .ok_or_else(|| self.file.location().damaged_error("it has no format"))?;
        if found.version != FORMAT_VERSION {
            return Err(self.file.location().failed_error(
                "it was made by another version of weir: use that version, or another folder with --data",
            ));
        }
        if found.model != model || found.dimensions != dimensions {
            return Err(self.file.location().failed_error(format_args!(
                "its vectors are of model {} ({} dimensions) and cannot be compared with those of {model} ({dimensions}): set that \
                 model again, or ingest the documents into another folder with --data",
                found.model, found.dimensions
            )));
        }
        Ok(found)
    }

    /// Returns the highest number of a passage so far.
    pub(super) fn last_number(&self) -> Result<PassageNumber, StorageError> {
        self.file.run(|c| {
            let select = "SELECT seq FROM sqlite_sequence WHERE name = 'passages'";
            let number = c.query_row(select, [], |row| row.get(0)).optional()?;
            Ok(number.unwrap_or_default())
        })
    }

    /// Returns the last passage of which the index of codes is known to be on the disk.
    pub(super) fn last_coded_number(&self) -> Result<PassageNumber, StorageError> {
        self.file
            .run(|c| c.query_row("SELECT last_coded_number FROM format", [], |row| row.get(0)))
    }
}

fn location_in(folder: &Path) -> PathWithPublicName {
    PathWithPublicName::new(INDEX_NAME, folder.join(FILE_NAME))
}
