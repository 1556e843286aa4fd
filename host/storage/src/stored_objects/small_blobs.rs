//! The small blobs of a data folder as objects `blobs/<tenant>/<key>`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use weir_core::{StorageError, TenantId};

use crate::path_with_public_name::PathWithPublicName;
use crate::small_blob_database::{MAX_SMALL_BLOB_BYTES, SmallBlobDatabase};

/// Blobs of one query.
const BATCH_BLOBS: u32 = 1000;

/// The database, which is opened at the first use and created at the first write.
#[derive(Clone)]
pub(super) struct MigratedSmallBlobs {
    data: PathBuf,
    database: Arc<Mutex<Option<Arc<SmallBlobDatabase>>>>,
}

impl MigratedSmallBlobs {
    pub(super) fn in_folder(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            database: Arc::default(),
        }
    }

    /// Lists the next blobs of all tenants after a tenant and key, with their sizes in bytes; none at the end.
    pub(super) fn list_after(
        &self,
        (tenant, key): &(String, String),
    ) -> Result<Vec<(String, String, u64)>, StorageError> {
        match self.open_existing()? {
            Some(database) => database.list_blobs_after((tenant, key), BATCH_BLOBS),
            None => Ok(Vec::new()),
        }
    }

    /// Returns the size of an object in bytes; `None` if it is no small blob.
    pub(super) fn find_size(&self, object: &str) -> Result<Option<u64>, StorageError> {
        match (self.open_existing()?, parse_blob(object)) {
            (Some(database), Some((tenant, key))) => database.find_size(&tenant, key),
            _ => Ok(None),
        }
    }

    /// Returns the content of an object; `None` if it is no small blob.
    pub(super) fn find_bytes(&self, object: &str) -> Result<Option<Vec<u8>>, StorageError> {
        match (self.open_existing()?, parse_blob(object)) {
            (Some(database), Some((tenant, key))) => database.find_blob(&tenant, key),
            _ => Ok(None),
        }
    }

    /// Puts the content of a file. Returns `false`, without a change, if the object is no blob or too large.
    pub(super) fn put_file_if_small(&self, object: &str, file: &Path) -> Result<bool, StorageError> {
        let Some((tenant, key)) = parse_blob(object) else {
            return Ok(false);
        };
        let io = |error| PathWithPublicName::new(object, file).io_error(&error);
        if fs::metadata(file).map_err(io)?.len() > MAX_SMALL_BLOB_BYTES as u64 {
            return Ok(false);
        }
        let bytes = fs::read(file).map_err(io)?;
        let database = self.open_or_create()?;
        database.lock_writer().put_blob(&tenant, key, &bytes)?;
        Ok(true)
    }

    /// Makes all puts durable.
    pub(super) fn flush(&self) -> Result<(), StorageError> {
        match &*self.database.lock() {
            Some(database) => database.lock_writer().flush().map(drop),
            None => Ok(()),
        }
    }

    fn open_existing(&self) -> Result<Option<Arc<SmallBlobDatabase>>, StorageError> {
        let is_open = self.database.lock().is_some();
        match is_open || SmallBlobDatabase::exists_in(&self.data) {
            true => self.open_or_create().map(Some),
            false => Ok(None),
        }
    }

    fn open_or_create(&self) -> Result<Arc<SmallBlobDatabase>, StorageError> {
        let mut database = self.database.lock();
        match &*database {
            Some(database) => Ok(Arc::clone(database)),
            None => {
                let opened = Arc::new(SmallBlobDatabase::open_or_create(&self.data)?);
                Ok(Arc::clone(database.insert(opened)))
            }
        }
    }
}

/// Returns the tenant and the key of the blob; `None` if the object is no blob.
fn parse_blob(object: &str) -> Option<(TenantId, &str)> {
    let (tenant, key) = object.strip_prefix("blobs/")?.split_once('/')?;
    Some((tenant.parse().ok()?, key))
}
