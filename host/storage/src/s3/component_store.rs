//! Components as objects: `<prefix>/components/<tenant>/<digest>.wasm`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use weir_core::component::{ComponentDigest, ComponentStore};
use weir_core::local_file::LocalFile;
use weir_core::{StorageError, TenantId};

use super::bucket::{MAX_KEYS_PER_DELETION, S3Bucket, WriteOnceOutcome};
use super::component_key::{COMPONENTS, component_key, component_name};
use super::local_cache::{CachedObject, LocalCache};
use super::stored_bytes::StoredBytes;
use crate::component_store::component_file_name;

/// Implements [`ComponentStore`] with objects.
pub(crate) struct S3ComponentStore {
    bucket: Arc<S3Bucket>,
    cache: Arc<LocalCache>,
    stored_bytes: StoredBytes,
}

impl S3ComponentStore {
    pub(super) fn new(bucket: Arc<S3Bucket>, cache: Arc<LocalCache>, stored_bytes: StoredBytes) -> Self {
        Self {
            bucket,
            cache,
            stored_bytes,
        }
    }
}

#[async_trait]
impl ComponentStore for S3ComponentStore {
    fn new_temporary_path(&self) -> PathBuf {
        self.cache.new_temporary_path()
    }

    async fn commit_component(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        digest: &ComponentDigest,
    ) -> Result<(), StorageError> {
        let (key, what) = (component_key(tenant, digest), component_name(digest));
        let (bytes, outcome) = self.bucket.put_file(&key, &what, unfinished, true).await?;
        if outcome == WriteOnceOutcome::Created {
            self.stored_bytes.count_change(tenant, &key, 0, bytes);
        }
        tokio::fs::remove_file(unfinished)
            .await
            .map_err(|error| StorageError::from_io_error(what, &error))
    }

    async fn open_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<Option<LocalFile>, StorageError> {
        let object = CachedObject {
            kind: COMPONENTS,
            tenant,
            name: &component_file_name(digest),
            digest: digest.0,
            what: &component_name(digest),
        };
        self.cache.open(&self.bucket, object).await
    }

    async fn remove_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<bool, StorageError> {
        let (key, what) = (component_key(tenant, digest), component_name(digest));
        let stored = self.bucket.object_size(&key, &what).await?;
        self.cache.remove(&key);
        let Some(bytes) = stored else { return Ok(false) };
        self.bucket.delete_objects(vec![key.clone()], &what).await?;
        self.stored_bytes.count_change(tenant, &key, bytes, 0);
        self.stored_bytes.save().await?;
        Ok(true)
    }

    async fn remove_all_components_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let (prefix, what) = (format!("{COMPONENTS}/{tenant}/"), "the components of a tenant");
        let objects = self.bucket.list_objects(&prefix, what).await?;
        for objects in objects.chunks(MAX_KEYS_PER_DELETION) {
            let keys = objects.iter().map(|object| object.key.clone()).collect();
            self.bucket.delete_objects(keys, what).await?;
            for object in objects {
                self.stored_bytes
                    .count_change(tenant, &object.key, object.bytes, 0);
            }
        }
        self.cache.remove_prefix(&prefix);
        self.stored_bytes.save().await
    }
}
