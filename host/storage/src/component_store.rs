//! Tenants' components as files: `<data>/components/<tenant>/<digest>.wasm`.
//!
//! Each tenant has a folder, although equal files have equal names: one tenant may remove a component that another needs, and stored
//! bytes are counted by tenant. Compiled code is found by digest and shared between tenants.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use weir_core::component::{ComponentDigest, ComponentStore};
use weir_core::local_file::LocalFile;
use weir_core::{StorageError, TenantId};

use crate::storage_usage::StorageUsageTracker;
use crate::tenant_files::TenantFiles;

/// Implements [`ComponentStore`] with files.
pub struct FileComponentStore(Arc<TenantFiles>);

impl FileComponentStore {
    /// Opens `<data>/components` and creates it if it does not exist. Blocks on the disk. Only one process may have it open.
    pub(crate) fn open_and_remove_unfinished_files(
        data: &Path,
        storage_usage: StorageUsageTracker,
    ) -> Result<Self, StorageError> {
        let files =
            TenantFiles::open_and_remove_unfinished_files("component", data, "components", storage_usage)?;
        Ok(Self(Arc::new(files)))
    }
}

/// Returns the file name of a component: its digest without the colon, which some file systems do not allow.
pub(crate) fn component_file_name(digest: &ComponentDigest) -> String {
    let text = digest.to_string();
    format!("{}.wasm", text.strip_prefix("sha256:").unwrap_or(&text))
}

#[async_trait]
impl ComponentStore for FileComponentStore {
    fn new_temporary_path(&self) -> PathBuf {
        self.0.new_unfinished_path()
    }

    async fn commit_component(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        digest: &ComponentDigest,
    ) -> Result<(), StorageError> {
        let (tenant, unfinished, name) = (tenant.clone(), unfinished.to_owned(), component_file_name(digest));
        self.0
            .run_blocking(move |files| files.commit_file(&tenant, &unfinished, &name))
            .await
    }

    async fn open_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<Option<LocalFile>, StorageError> {
        let (tenant, name) = (tenant.clone(), component_file_name(digest));
        self.0
            .run_blocking(move |files| files.open_file(&tenant, &name))
            .await
    }

    async fn remove_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<bool, StorageError> {
        let (tenant, name) = (tenant.clone(), component_file_name(digest));
        self.0
            .run_blocking(move |files| files.remove_file(&tenant, &name))
            .await
    }

    async fn remove_all_components_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let tenant = tenant.clone();
        self.0
            .run_blocking(move |files| files.remove_all_files_of_tenant(&tenant))
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ledger::SqlLedger;

    fn open_components() -> (tempfile::TempDir, StorageUsageTracker, FileComponentStore) {
        let folder = tempfile::tempdir().unwrap();
        let usage = SqlLedger::open_for_test(folder.path()).storage_usage();
        let components =
            FileComponentStore::open_and_remove_unfinished_files(folder.path(), usage.clone()).unwrap();
        (folder, usage, components)
    }

    #[tokio::test]
    async fn file_component_store_passes_the_conformance_suite() {
        let (_folder, _usage, components) = open_components();
        weir_conformance::check_component_store(&components).await;
    }

    #[tokio::test]
    async fn bytes_of_components_are_counted_by_tenant() {
        let (_folder, usage, components) = open_components();
        let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let digest = ComponentDigest::from_content(b"component");
        for tenant in [&a, &b] {
            let unfinished = components.new_temporary_path();
            fs::write(&unfinished, "component").unwrap();
            components
                .commit_component(tenant, &unfinished, &digest)
                .await
                .unwrap();
        }
        assert_eq!(
            (
                usage.count_stored_bytes(&a).await,
                usage.count_stored_bytes(&b).await
            ),
            (9, 9)
        );
        assert!(components.remove_component(&a, &digest).await.unwrap());
        assert!(!components.remove_component(&a, &digest).await.unwrap());
        components.remove_all_components_of_tenant(&b).await.unwrap();
        assert_eq!(
            (
                usage.count_stored_bytes(&a).await,
                usage.count_stored_bytes(&b).await
            ),
            (0, 0)
        );
    }
}
