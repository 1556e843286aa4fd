//! Counts the bytes of objects as their tenants' stored bytes.
//!
//! The ledger has a row for each upload, for each component, and for the blobs of each document. A change is counted after the server has
//! made it, and saved with the next transaction of the ledger. If the process is killed in between, or if two writers replace one blob at
//! once, the count is wrong by that object, and the removal of the document corrects it: no count falls below 0, and a row is removed with
//! its last byte.

use weir_core::{StorageError, TenantId};

use super::bucket::{ListedObject, MAX_KEYS_PER_DELETION, S3Bucket};
use crate::storage_usage::StorageUsageTracker;

/// The rows have names of their own, so that the measurement of files after a crash does not concern them.
const ROW_PREFIX: &str = "s3";

/// Counts changes of objects.
#[derive(Clone)]
pub(super) struct StoredBytes(StorageUsageTracker);

impl StoredBytes {
    pub(super) fn new(storage_usage: StorageUsageTracker) -> Self {
        Self(storage_usage)
    }

    /// Counts that the objects of a row changed from `old` to `new` bytes.
    pub(super) fn count_change(&self, tenant: &TenantId, row: &str, old: u64, new: u64) {
        let difference = i128::from(new) - i128::from(old);
        if let Ok(difference @ (i64::MIN..=-1 | 1..)) = i64::try_from(difference) {
            self.0
                .add_bytes_without_mark(tenant, &format!("{ROW_PREFIX}/{row}"), difference);
        }
    }

    /// Deletes listed objects of a tenant and counts them, each in the row that `row` gives for its key, if any. The caller saves the
    /// count.
    pub(super) async fn delete_and_count(
        &self,
        bucket: &S3Bucket,
        tenant: &TenantId,
        objects: &[ListedObject],
        what: &str,
        row: impl Fn(&str) -> Option<String> + Send,
    ) -> Result<(), StorageError> {
        for objects in objects.chunks(MAX_KEYS_PER_DELETION) {
            let keys = objects.iter().map(|object| object.key.clone()).collect();
            bucket.delete_objects(keys, what).await?;
            for object in objects {
                if let Some(row) = row(&object.key) {
                    self.count_change(tenant, &row, object.bytes, 0);
                }
            }
        }
        Ok(())
    }

    /// Saves removals now, so that the tenant can use the space.
    pub(super) async fn save(&self) -> Result<(), StorageError> {
        self.0.save_changed_sizes().await
    }
}
