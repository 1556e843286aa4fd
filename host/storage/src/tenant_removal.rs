//! Removes a tenant with all its data while no host is running.
//!
//! The cached responses and recordings are removed first, then the API keys, and the remaining rows of the ledger last. If the
//! removal is interrupted, the tenant is still listed, and a second removal removes the rest.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use weir_core::component::ComponentStore as _;
use weir_core::ports::{BlobStore, VectorStore as _};
use weir_core::recording::RecordingStore as _;
use weir_core::tenancy::TenantStore;
use weir_core::uploads::UploadStore;
use weir_core::{StorageError, TenantId};

use crate::ExternalStores;
use crate::file_stores::FileStores;
use crate::path_with_public_name::PathWithPublicName;
use crate::response_cache;
use crate::vectors::EmbeddedVectorStore;

/// Folders of tenants' files that no store opens here, each with its name in errors. An S3 server may have been in use earlier, or may be
/// in use only since the files were written.
const FOLDERS_WITHOUT_A_STORE: [(&str, &str); 3] = [
    ("the recordings", "recordings"),
    ("the cached uploads", "cache/uploads"),
    ("the cached components", "cache/components"),
];

fn remove_folder(name: &str, folder: &Path) -> Result<(), StorageError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(PathWithPublicName::new(name, folder).io_error(&e)),
        _ => Ok(()),
    }
}

/// Removes a tenant with all its data from a data folder. Returns whether the tenant existed. Fails with [`StorageError::InUse`]
/// if another process has locked the folder, because jobs that run there would write new data of the tenant. Data of the
/// tenant in the data folder is removed even if `external` has such data too.
pub async fn remove_tenant_with_all_data(
    data: &Path,
    tenant: &TenantId,
    external: ExternalStores,
) -> Result<bool, StorageError> {
    let (folder, removed_tenant) = (data.to_owned(), tenant.clone());
    let open_index_and_remove_files = move |lock| {
        let vectors = EmbeddedVectorStore::open_existing(&folder, lock)?;
        response_cache::remove_tenant_from_closed_cache(&folder, &removed_tenant)?;
        for (name, parent) in FOLDERS_WITHOUT_A_STORE {
            remove_folder(name, &folder.join(parent).join(removed_tenant.as_str()))?;
        }
        Ok(vectors)
    };
    let (stores, vectors) = FileStores::lock_folder_and_open(
        data,
        external.ledger,
        external.bucket,
        open_index_and_remove_files,
    )
    .await?;
    let FileStores {
        folder_lock: _folder_lock,
        uploads,
        components,
        blobs,
        s3,
        ledger,
    } = stores;
    let removed = async {
        ledger.suspend_tenant_and_remove_keys(tenant).await?;
        if let Some(vectors) = &external.vectors {
            vectors.remove_tenant_points(tenant).await?;
            vectors.flush_points().await?;
        }
        if let Some(vectors) = &vectors {
            vectors.remove_tenant_points(tenant).await?;
            vectors.flush_points().await?;
            vectors.compact().await?;
        }
        if let Some(s3) = &s3 {
            s3.blobs.delete_blobs_with_prefix(tenant, "").await?;
            s3.uploads.remove_all_uploads_of_tenant(tenant).await?;
            s3.components.remove_all_components_of_tenant(tenant).await?;
            s3.recordings.remove_all_recordings_of_tenant(tenant).await?;
        }
        blobs.delete_blobs_with_prefix(tenant, "").await?;
        blobs.flush_blobs().await?;
        uploads.remove_all_uploads_of_tenant(tenant).await?;
        components.remove_all_components_of_tenant(tenant).await?;
        ledger.remove_tenant(tenant).await
    };
    let removed = removed.await;
    let closed = match &vectors {
        Some(vectors) => vectors.close().await,
        None => Ok(()),
    };
    ledger.close().await;
    closed.and(removed)
}
