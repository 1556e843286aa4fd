//! Objects that are opened through the cache and counted as stored bytes, each in a row of its own: uploads and components.

use std::sync::Arc;

use weir_core::{StorageError, TenantId};

use super::bucket::S3Bucket;
use super::local_cache::LocalCache;
use super::stored_bytes::StoredBytes;

/// The bucket with the cache of its objects and the count of their bytes.
#[derive(Clone)]
pub(super) struct CachedObjects {
    pub(super) bucket: Arc<S3Bucket>,
    pub(super) cache: Arc<LocalCache>,
    pub(super) stored_bytes: StoredBytes,
}

impl CachedObjects {
    /// Removes an object. Returns whether it existed.
    pub(super) async fn remove(
        &self,
        tenant: &TenantId,
        key: String,
        what: &str,
    ) -> Result<bool, StorageError> {
        let stored = self.bucket.object_size(&key, what).await?;
        self.cache.remove(&key);
        let Some(bytes) = stored else { return Ok(false) };
        self.bucket.delete_objects(vec![key.clone()], what).await?;
        self.stored_bytes.count_change(tenant, &key, bytes, 0);
        self.stored_bytes.save().await?;
        Ok(true)
    }

    /// Removes all objects of a tenant whose keys start with `prefix`.
    pub(super) async fn remove_all(
        &self,
        tenant: &TenantId,
        prefix: &str,
        what: &str,
        is_counted: bool,
    ) -> Result<(), StorageError> {
        let objects = self.bucket.list_objects(prefix, what).await?;
        let row = |key: &str| is_counted.then(|| key.to_owned());
        self.stored_bytes
            .delete_and_count(&self.bucket, tenant, &objects, what, row)
            .await?;
        self.cache.remove_prefix(prefix);
        self.stored_bytes.save().await
    }
}
