//! Tenants' components as files: `<data>/components/<tenant>/<digest>.wasm`.
//!
//! A folder for each tenant although equal bytes have equal names: what one tenant removes another may need, and what each
//! keeps is counted. What is compiled from them is shared, since it is found by digest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use weir_core::component::{ComponentDigest, ComponentStore};
use weir_core::{StorageError, TenantId};

use crate::files::TenantFiles;
use crate::kept::Kept;

/// A [`ComponentStore`] of files.
pub struct FileComponents(Arc<TenantFiles>);

impl FileComponents {
    /// Opens `<data>/components`, making it if need be. Blocks on the disk. Only one process may have it open.
    pub(crate) fn open(data: &Path, kept: Arc<Kept>) -> Result<Self, StorageError> {
        let files = TenantFiles::open("component", data.join("components"), kept)?;
        Ok(Self(Arc::new(files)))
    }
}

/// Without the colon, which some file systems do not take.
fn name(digest: &ComponentDigest) -> String {
    let text = digest.to_string();
    format!("{}.wasm", text.strip_prefix("sha256:").unwrap_or(&text))
}

#[async_trait]
impl ComponentStore for FileComponents {
    fn unfinished(&self) -> PathBuf {
        self.0.unfinished()
    }

    async fn commit(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        digest: &ComponentDigest,
    ) -> Result<(), StorageError> {
        let (tenant, unfinished, name) = (tenant.clone(), unfinished.to_owned(), name(digest));
        self.0
            .blocking(move |files| files.commit(&tenant, &unfinished, &name))
            .await
    }

    fn path(&self, tenant: &TenantId, digest: &ComponentDigest) -> PathBuf {
        self.0.path(tenant, &name(digest))
    }

    async fn remove(&self, tenant: &TenantId, digest: &ComponentDigest) -> Result<bool, StorageError> {
        let (tenant, name) = (tenant.clone(), name(digest));
        self.0.blocking(move |files| files.remove(&tenant, &name)).await
    }

    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let tenant = tenant.clone();
        self.0.blocking(move |files| files.clear(&tenant)).await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_component_is_kept_under_its_digest_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Arc::new(Kept::new([]));
        let components = FileComponents::open(folder.path(), Arc::clone(&kept)).unwrap();
        let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let digest = ComponentDigest::of(b"component");
        for tenant in [&a, &b] {
            let unfinished = components.unfinished();
            fs::write(&unfinished, "component").unwrap();
            components.commit(tenant, &unfinished, &digest).await.unwrap();
            assert!(!unfinished.exists());
        }
        assert_eq!(fs::read(components.path(&a, &digest)).unwrap(), b"component");
        assert_eq!((kept.bytes(&a), kept.bytes(&b)), (9, 9));
        assert!(components.remove(&a, &digest).await.unwrap());
        assert!(!components.remove(&a, &digest).await.unwrap());
        assert!(!components.path(&a, &digest).exists());
        assert!(components.path(&b, &digest).exists());
        components.clear(&b).await.unwrap();
        assert_eq!((kept.bytes(&a), kept.bytes(&b)), (0, 0));
    }
}
