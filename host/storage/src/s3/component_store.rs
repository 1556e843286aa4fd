//! Components as objects: `<prefix>/components/<tenant>/<digest>.wasm`.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use weir_core::component::{ComponentDigest, ComponentStore};
use weir_core::local_file::LocalFile;
use weir_core::{StorageError, TenantId};

use super::bucket::WriteOnceOutcome;
use super::cached_objects::CachedObjects;
use super::component_key::{COMPONENTS, component_key, component_name};
use super::local_cache::CachedObject;
use crate::component_store::component_file_name;

/// Implements [`ComponentStore`] with objects.
pub(crate) struct S3ComponentStore {
    objects: CachedObjects,
}

impl S3ComponentStore {
    pub(super) const fn new(objects: CachedObjects) -> Self {
        Self { objects }
    }
}

#[async_trait]
impl ComponentStore for S3ComponentStore {
    fn new_temporary_path(&self) -> PathBuf {
        self.objects.cache.new_temporary_path()
    }

    async fn commit_component(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        digest: &ComponentDigest,
    ) -> Result<(), StorageError> {
        let (key, what) = (component_key(tenant, digest), component_name(digest));
        let (bytes, outcome) = self
            .objects
            .bucket
            .put_file(&key, &what, unfinished, true)
            .await?;
        if outcome == WriteOnceOutcome::Created {
            self.objects.stored_bytes.count_change(tenant, &key, 0, bytes);
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
        self.objects.cache.open(&self.objects.bucket, object).await
    }

    async fn remove_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<bool, StorageError> {
        self.objects
            .remove(tenant, component_key(tenant, digest), &component_name(digest))
            .await
    }

    async fn remove_all_components_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let prefix = format!("{COMPONENTS}/{tenant}/");
        self.objects
            .remove_all(tenant, &prefix, "the components of a tenant", true)
            .await
    }
}
