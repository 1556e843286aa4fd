//! A fake store of uploads.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use weir_core::uploads::{StagedUpload, UploadStore};
use weir_core::{DocumentId, JobId, StorageError, TenantId};

use super::fake_store::FakeStore;

/// A store of uploads in one folder, with the files `unfinished-<n>`, `staged-<n>` and `<tenant>-<document>`.
pub struct FakeUploadStore {
    folder: PathBuf,
    staged: Mutex<Vec<StagedUpload>>,
    next_file_number: AtomicU64,
    /// Counts the stored bytes of tenants.
    store: Arc<FakeStore>,
    /// The free bytes on the disk.
    free_bytes: AtomicU64,
}

impl FakeUploadStore {
    /// Creates a store without uploads in a folder. `memory` counts the stored bytes.
    pub fn new(folder: &Path, memory: Arc<FakeStore>) -> Arc<Self> {
        std::fs::create_dir_all(folder).unwrap();
        Arc::new(Self {
            folder: folder.to_owned(),
            staged: Mutex::default(),
            next_file_number: AtomicU64::new(0),
            store: memory,
            free_bytes: AtomicU64::new(u64::MAX),
        })
    }

    /// Sets the number of free bytes on the disk.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.free_bytes.store(bytes, Ordering::Relaxed);
    }

    fn file_size(path: &Path) -> u64 {
        std::fs::metadata(path).map_or(0, |data| data.len())
    }

    fn new_path(&self, kind: &str) -> PathBuf {
        self.folder.join(format!(
            "{kind}-{}",
            self.next_file_number.fetch_add(1, Ordering::Relaxed)
        ))
    }

    /// Returns the names of all files.
    pub fn file_names(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.folder).unwrap();
        let names: BTreeSet<_> = files
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        names.into_iter().collect()
    }
}

#[async_trait]
impl UploadStore for FakeUploadStore {
    fn new_temporary_path(&self) -> PathBuf {
        self.new_path("unfinished")
    }

    async fn stage_received_file_for_job(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<PathBuf, StorageError> {
        let path = self.new_path("staged");
        std::fs::rename(unfinished, &path).map_err(|e| StorageError::from_io_error("a file", &e))?;
        self.staged.lock().push(StagedUpload {
            tenant: tenant.clone(),
            job: *job,
            document: *document,
            path: path.clone(),
        });
        Ok(path)
    }

    async fn stage_stored_upload_for_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<Option<PathBuf>, StorageError> {
        let copy = self.new_temporary_path();
        match std::fs::copy(self.upload_path(tenant, document), &copy) {
            Ok(_) => self
                .stage_received_file_for_job(tenant, &copy, job, document)
                .await
                .map(Some),
            Err(_) => Ok(None),
        }
    }

    async fn list_staged_uploads(&self) -> Result<Vec<StagedUpload>, StorageError> {
        let staged = self.staged.lock();
        Ok(staged
            .iter()
            .filter(|staged| staged.path.exists())
            .cloned()
            .collect())
    }

    async fn commit_upload(
        &self,
        tenant: &TenantId,
        from: &Path,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        let to = self.upload_path(tenant, document);
        let before = Self::file_size(&to);
        std::fs::rename(from, &to).map_err(|e| StorageError::from_io_error("a file", &e))?;
        self.store
            .change_stored_bytes(tenant, before, Self::file_size(&to));
        Ok(())
    }

    fn available_disk_bytes(&self) -> Option<u64> {
        Some(self.free_bytes.load(Ordering::Relaxed))
    }

    fn upload_path(&self, tenant: &TenantId, document: &DocumentId) -> PathBuf {
        self.folder.join(format!("{tenant}-{document}"))
    }

    async fn remove_upload(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        let path = self.upload_path(tenant, document);
        let before = Self::file_size(&path);
        let removed = std::fs::remove_file(path).is_ok();
        self.store.change_stored_bytes(tenant, before, 0);
        Ok(removed)
    }

    async fn list_uploads(&self, tenant: &TenantId) -> Result<Vec<DocumentId>, StorageError> {
        let of_tenant = |name: &String| name.strip_prefix(&format!("{tenant}-"))?.parse().ok();
        Ok(self.file_names().iter().filter_map(of_tenant).collect())
    }

    async fn remove_all_uploads_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError> {
        for staged in self.list_staged_uploads().await? {
            if staged.tenant == *tenant {
                std::fs::remove_file(&staged.path).map_err(|e| StorageError::from_io_error("a file", &e))?;
            }
        }
        for document in self.list_uploads(tenant).await? {
            self.remove_upload(tenant, &document).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[tokio::test]
async fn fake_upload_store_passes_the_conformance_suite() {
    let folder = tempfile::tempdir().unwrap();
    let store = FakeUploadStore::new(folder.path(), Arc::default());
    weir_conformance::check_upload_store(&*store).await;
}
