//! Uploads as objects: `<prefix>/uploads/<tenant>/<document>`, and `<prefix>/staged/<tenant>/<job>/<document>` until their job is accepted.
//!
//! A file is received on this machine, because its hash names it and is known at its end. Staging sends it to the server. The commit copies
//! the staged object on the server and then deletes it, so a commit that is interrupted is repeated at the next start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use weir_core::local_file::LocalFile;
use weir_core::uploads::{StagedUpload, UploadStore};
use weir_core::{DocumentId, StorageError, TenantId};

use super::bucket::S3Bucket;
use super::cached_objects::CachedObjects;
use super::local_cache::CachedObject;

/// The first part of the keys of stored uploads, and their folder in the cache.
const UPLOADS: &str = "uploads";
/// The first part of the keys of staged uploads.
const STAGED: &str = "staged";

/// Implements [`UploadStore`] with objects.
pub(crate) struct S3UploadStore {
    objects: CachedObjects,
}

impl S3UploadStore {
    pub(super) const fn new(objects: CachedObjects) -> Self {
        Self { objects }
    }
}

#[async_trait]
impl UploadStore for S3UploadStore {
    fn new_temporary_path(&self) -> PathBuf {
        self.objects.cache.new_temporary_path()
    }

    async fn stage_received_file(&self, received: &Path, staged: &StagedUpload) -> Result<(), StorageError> {
        let what = document_name(&staged.document);
        self.objects
            .bucket
            .put_file(&staged_key(staged), &what, received, false)
            .await?;
        tokio::fs::remove_file(received)
            .await
            .map_err(|error| StorageError::from_io_error(what, &error))
    }

    async fn stage_stored_upload(&self, staged: &StagedUpload) -> Result<Option<u64>, StorageError> {
        let StagedUpload { tenant, document, .. } = staged;
        let (stored, what) = (upload_key(tenant, document), document_name(document));
        let Some(bytes) = self.objects.bucket.object_size(&stored, &what).await? else {
            return Ok(None);
        };
        let is_copied = self
            .objects
            .bucket
            .copy_object(&stored, &staged_key(staged), &what, bytes)
            .await?;
        Ok(is_copied.then_some(bytes))
    }

    async fn list_staged_uploads(&self) -> Result<Vec<StagedUpload>, StorageError> {
        let objects = self
            .objects
            .bucket
            .list_objects(&format!("{STAGED}/"), "the staged uploads")
            .await?;
        Ok(objects
            .iter()
            .filter_map(|object| parse_staged_key(&object.key))
            .collect())
    }

    async fn commit_staged_upload(&self, staged: &StagedUpload) -> Result<(), StorageError> {
        let StagedUpload { tenant, document, .. } = staged;
        let (from, to) = (staged_key(staged), upload_key(tenant, document));
        let what = document_name(document);
        let stored_bytes = self.objects.bucket.object_size(&to, &what).await?;
        let Some(staged_bytes) = self.objects.bucket.object_size(&from, &what).await? else {
            return match stored_bytes {
                Some(_) => Ok(()),
                None => Err(StorageError::NotFound { what }),
            };
        };
        // Equal names mean equal bytes.
        if stored_bytes.is_none() {
            let copied = self.objects.bucket.copy_object(&from, &to, &what, staged_bytes);
            if !copied.await? {
                return Err(StorageError::NotFound { what });
            }
            self.objects
                .stored_bytes
                .count_change(tenant, &to, 0, staged_bytes);
        }
        self.objects.bucket.delete_objects(vec![from], &what).await
    }

    async fn remove_staged_upload(&self, staged: &StagedUpload) -> Result<bool, StorageError> {
        remove_staged_upload(&self.objects.bucket, staged).await
    }

    fn discard_staged_upload(&self, staged: &StagedUpload) {
        let (bucket, staged) = (Arc::clone(&self.objects.bucket), staged.clone());
        // Without a runtime the process is ending.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // An error is logged where it is created.
            runtime.spawn(async move { remove_staged_upload(&bucket, &staged).await });
        }
    }

    fn available_disk_bytes(&self) -> Option<u64> {
        self.objects.cache.available_disk_bytes()
    }

    async fn open_upload(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<LocalFile>, StorageError> {
        let object = CachedObject {
            kind: UPLOADS,
            tenant,
            name: &document.to_string(),
            digest: *document.as_bytes(),
            what: &document_name(document),
        };
        self.objects.cache.open(&self.objects.bucket, object).await
    }

    async fn remove_upload(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        self.objects
            .remove(tenant, upload_key(tenant, document), &document_name(document))
            .await
    }

    async fn list_uploads(&self, tenant: &TenantId) -> Result<Vec<DocumentId>, StorageError> {
        let prefix = format!("{UPLOADS}/{tenant}/");
        let objects = self.objects.bucket.list_objects(&prefix, "the uploads").await?;
        let names = objects
            .iter()
            .filter_map(|object| object.key.strip_prefix(&prefix));
        let mut documents: Vec<DocumentId> = names.filter_map(|name| name.parse().ok()).collect();
        documents.sort_unstable();
        Ok(documents)
    }

    async fn remove_all_uploads_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError> {
        for (kind, is_counted) in [(STAGED, false), (UPLOADS, true)] {
            let prefix = format!("{kind}/{tenant}/");
            self.objects
                .remove_all(tenant, &prefix, "the uploads of a tenant", is_counted)
                .await?;
        }
        Ok(())
    }
}

async fn remove_staged_upload(bucket: &S3Bucket, staged: &StagedUpload) -> Result<bool, StorageError> {
    let (key, what) = (staged_key(staged), document_name(&staged.document));
    let existed = bucket.object_size(&key, &what).await?.is_some();
    if existed {
        bucket.delete_objects(vec![key], &what).await?;
    }
    Ok(existed)
}

fn upload_key(tenant: &TenantId, document: &DocumentId) -> String {
    format!("{UPLOADS}/{tenant}/{document}")
}

fn staged_key(staged: &StagedUpload) -> String {
    let StagedUpload {
        tenant,
        job,
        document,
    } = staged;
    format!("{STAGED}/{tenant}/{job}/{document}")
}

fn parse_staged_key(key: &str) -> Option<StagedUpload> {
    let mut parts = key.split('/').skip(1);
    Some(StagedUpload {
        tenant: parts.next()?.parse().ok()?,
        job: parts.next()?.parse().ok()?,
        document: parts.next()?.parse().ok()?,
    })
}

fn document_name(document: &DocumentId) -> String {
    format!("document {document}")
}
