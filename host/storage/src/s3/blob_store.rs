//! Blobs as objects: `<prefix>/blobs/<tenant>/<key>`.
//!
//! A put first assumes that the key is new, which is one request. Only if it exists, its size is read before it is replaced, for the
//! count of stored bytes.

use std::sync::Arc;

use async_trait::async_trait;
use weir_core::blob_key::{check_blob_key, check_blob_key_prefix};
use weir_core::ports::BlobStore;
use weir_core::{StorageError, TenantId};

use super::bucket::{S3Bucket, WriteOnceOutcome};
use super::stored_bytes::StoredBytes;

/// Implements [`BlobStore`] with objects.
pub(crate) struct S3BlobStore {
    bucket: Arc<S3Bucket>,
    stored_bytes: StoredBytes,
}

impl S3BlobStore {
    pub(super) fn new(bucket: Arc<S3Bucket>, stored_bytes: StoredBytes) -> Self {
        Self { bucket, stored_bytes }
    }
}

#[async_trait]
impl BlobStore for S3BlobStore {
    async fn put_blob(&self, tenant: &TenantId, key: &str, bytes: &[u8]) -> Result<(), StorageError> {
        check_blob_key(key)?;
        let (object, what) = (object_key(tenant, key), format!("blob {key}"));
        let mut old_bytes = 0;
        if self.bucket.put_bytes_once(&object, &what, bytes).await? == WriteOnceOutcome::Exists {
            old_bytes = self.bucket.object_size(&object, &what).await?.unwrap_or(0);
            self.bucket.put_bytes(&object, &what, bytes).await?;
        }
        self.stored_bytes
            .count_change(tenant, &usage_row(tenant, key), old_bytes, bytes.len() as u64);
        Ok(())
    }

    async fn get_blob(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        check_blob_key(key)?;
        self.bucket
            .get_bytes(&object_key(tenant, key), &format!("blob {key}"))
            .await
    }

    async fn list_blob_keys(&self, tenant: &TenantId, prefix: &str) -> Result<Vec<String>, StorageError> {
        check_blob_key_prefix(prefix)?;
        let skipped = object_key(tenant, "").len();
        let objects = self
            .bucket
            .list_objects(&object_key(tenant, prefix), "the blobs of a document")
            .await?;
        let keys = objects.iter().filter_map(|object| object.key.get(skipped..));
        Ok(keys.map(str::to_owned).collect())
    }

    async fn delete_blobs_with_prefix(&self, tenant: &TenantId, prefix: &str) -> Result<(), StorageError> {
        check_blob_key_prefix(prefix)?;
        let (skipped, what) = (object_key(tenant, "").len(), "the blobs of a document");
        let objects = self
            .bucket
            .list_objects(&object_key(tenant, prefix), what)
            .await?;
        let row = |key: &str| Some(usage_row(tenant, key.get(skipped..).unwrap_or_default()));
        self.stored_bytes
            .delete_and_count(&self.bucket, tenant, &objects, what, row)
            .await?;
        match objects.is_empty() {
            true => Ok(()),
            false => self.stored_bytes.save().await,
        }
    }

    async fn flush_blobs(&self) -> Result<(), StorageError> {
        // A blob is durable when its put has returned.
        Ok(())
    }
}

fn object_key(tenant: &TenantId, key: &str) -> String {
    format!("blobs/{tenant}/{key}")
}

/// Returns the row that counts the bytes of a blob: that of the key's first segment, which is a document.
fn usage_row(tenant: &TenantId, key: &str) -> String {
    let first = key.split_once('/').map_or(key, |(first, _)| first);
    object_key(tenant, first)
}
