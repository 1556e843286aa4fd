//! Blobs in the database, and their replacement by files and of files.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use weir_core::{StorageError, TenantId};

use super::{BlobFolder, blob_path_with_error_name, is_not_found, list_keys_in_folder, storage_usage_path};
use crate::small_blob_database::SmallBlobWriter;
use crate::storage_usage::MAX_MARKED_PATHS;

/// Small blobs that one transaction deletes. Other changes of stored files wait meanwhile.
const MAX_DELETED_ROWS: usize = 100;

impl BlobFolder {
    pub(super) fn get_blob(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        match self.find_blob(tenant, key)? {
            // While it was looked for, it may have been replaced by a blob of the other kind.
            None => self
                .storage_usage
                .run_while_no_file_changes(|| self.find_blob(tenant, key)),
            found => Ok(found),
        }
    }

    fn find_blob(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        for path in self.file_paths(tenant, key) {
            match fs::read(&path) {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(e) if is_not_found(&e) => {}
                Err(e) => return Err(blob_path_with_error_name(&self.root, &path).io_error(&e)),
            }
        }
        self.small_blobs.find_blob(tenant, key)
    }

    pub(super) fn list_keys(&self, tenant: &TenantId, prefix: &str) -> Result<Vec<String>, StorageError> {
        let list_rows = || self.small_blobs.list_keys(tenant, prefix);
        let mut keys: BTreeSet<String> = list_rows()?.into_iter().collect();
        keys.extend(list_keys_in_folder(
            &self.root,
            &self.tenant_folder(tenant),
            prefix,
        )?);
        // Again, because a small blob may have replaced a file before its folder was listed.
        keys.extend(list_rows()?);
        Ok(keys.into_iter().collect())
    }

    pub(super) fn put_small_blob(
        &self,
        tenant: &TenantId,
        key: &str,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        let counted_path = storage_usage_path(tenant, key);
        // Before the writer is locked, because the ledger may have to sync.
        self.storage_usage
            .mark_paths_before_changes(tenant, [counted_path.clone()])?;
        // Until the file is removed, so that no other put finds a file that does not count.
        let mut writer = self.small_blobs.lock_writer();
        let put = self
            .storage_usage
            .change_files_and_count_bytes(tenant, &counted_path, || {
                writer.put_blob(tenant, key, bytes).map_err(io::Error::other)
            });
        put?.map_err(into_storage_error)?;
        if self.has_file(tenant, key)? {
            writer.sync()?;
            self.delete_files(tenant, key)?;
        }
        Ok(())
    }

    /// Removes the small blob that a file has replaced.
    pub(super) fn remove_replaced_small_blob(
        &self,
        tenant: &TenantId,
        key: &str,
    ) -> Result<(), StorageError> {
        if self.small_blobs.find_size(tenant, key)?.is_none() {
            return Ok(());
        }
        // The file must be durable before the row is removed.
        self.flush_unsynced_blobs()?;
        let mut writer = self.small_blobs.lock_writer();
        // A small blob may have replaced the file meanwhile.
        match self.has_file(tenant, key)? {
            true => self.delete_rows(&mut writer, tenant, &[key.to_owned()]),
            false => Ok(()),
        }
    }

    /// Deletes the tenant's small blobs whose keys start with `prefix`.
    pub(super) fn delete_small_blobs_with_prefix(
        &self,
        tenant: &TenantId,
        prefix: &str,
    ) -> Result<(), StorageError> {
        let keys = self.small_blobs.list_keys(tenant, prefix)?;
        for keys in keys.chunks(MAX_MARKED_PATHS) {
            let paths = keys.iter().map(|key| storage_usage_path(tenant, key));
            self.storage_usage.mark_paths_before_changes(tenant, paths)?;
            let same_path =
                keys.chunk_by(|a, b| storage_usage_path(tenant, a) == storage_usage_path(tenant, b));
            for keys in same_path.flat_map(|keys| keys.chunks(MAX_DELETED_ROWS)) {
                self.delete_rows(&mut self.small_blobs.lock_writer(), tenant, keys)?;
            }
            self.storage_usage.save_changed_file_sizes()?;
        }
        Ok(())
    }

    /// Deletes small blobs whose bytes are counted under one path.
    fn delete_rows(
        &self,
        writer: &mut SmallBlobWriter,
        tenant: &TenantId,
        keys: &[String],
    ) -> Result<(), StorageError> {
        let Some(first) = keys.first() else {
            return Ok(());
        };
        let deleted = self.storage_usage.change_files_and_count_bytes(
            tenant,
            &storage_usage_path(tenant, first),
            || {
                let removed = writer.remove_blobs(tenant, keys).map_err(io::Error::other)?;
                Ok(-removed)
            },
        );
        deleted?.map_err(into_storage_error)
    }

    fn has_file(&self, tenant: &TenantId, key: &str) -> Result<bool, StorageError> {
        let [path, nested] = self.file_paths(tenant, key);
        Ok(self.is_file(&path)? || (nested != path && self.is_file(&nested)?))
    }
}

/// Returns the error of the database that an I/O error wraps.
fn into_storage_error(error: io::Error) -> StorageError {
    error
        .downcast::<StorageError>()
        .unwrap_or_else(|error| StorageError::from_io_error("a small blob", &error))
}
