//! A fake store of uploads.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use weir_core::local_file::LocalFile;
use weir_core::uploads::{StagedUpload, UploadStore};
use weir_core::{DocumentId, StorageError, TenantId};

use super::fake_store::FakeStore;

/// A store of uploads in one folder, with the files `unfinished-<n>`, `staged-<tenant>-<job>-<document>` and `<tenant>-<document>`.
pub struct FakeUploadStore {
    folder: PathBuf,
    staged: Mutex<BTreeSet<StagedUpload>>,
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

    /// Returns the path of a document's upload, whether or not it exists.
    pub fn upload_path(&self, tenant: &TenantId, document: &DocumentId) -> PathBuf {
        self.folder.join(format!("{tenant}-{document}"))
    }

    fn staged_path(&self, staged: &StagedUpload) -> PathBuf {
        let StagedUpload {
            tenant,
            job,
            document,
        } = staged;
        self.folder.join(format!("staged-{tenant}-{job}-{document}"))
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

fn file_error(error: std::io::Error) -> StorageError {
    StorageError::from_io_error("a file", &error)
}

#[async_trait]
impl UploadStore for FakeUploadStore {
    fn new_temporary_path(&self) -> PathBuf {
        self.new_path("unfinished")
    }

    async fn stage_received_file(&self, received: &Path, staged: &StagedUpload) -> Result<(), StorageError> {
        std::fs::rename(received, self.staged_path(staged)).map_err(file_error)?;
        self.staged.lock().insert(staged.clone());
        Ok(())
    }

    async fn stage_stored_upload(&self, staged: &StagedUpload) -> Result<Option<u64>, StorageError> {
        let copy = self.new_temporary_path();
        match std::fs::copy(self.upload_path(&staged.tenant, &staged.document), &copy) {
            Ok(bytes) => {
                self.stage_received_file(&copy, staged).await?;
                Ok(Some(bytes))
            }
            Err(_) => Ok(None),
        }
    }

    async fn list_staged_uploads(&self) -> Result<Vec<StagedUpload>, StorageError> {
        Ok(self.staged.lock().iter().cloned().collect())
    }

    async fn commit_staged_upload(&self, staged: &StagedUpload) -> Result<(), StorageError> {
        let to = self.upload_path(&staged.tenant, &staged.document);
        if !self.staged.lock().remove(staged) && to.exists() {
            return Ok(());
        }
        let before = Self::file_size(&to);
        std::fs::rename(self.staged_path(staged), &to).map_err(file_error)?;
        self.store
            .change_stored_bytes(&staged.tenant, before, Self::file_size(&to));
        Ok(())
    }

    async fn remove_staged_upload(&self, staged: &StagedUpload) -> Result<bool, StorageError> {
        let existed = self.staged.lock().remove(staged);
        self.discard_staged_upload(staged);
        Ok(existed)
    }

    fn discard_staged_upload(&self, staged: &StagedUpload) {
        self.staged.lock().remove(staged);
        let _ = std::fs::remove_file(self.staged_path(staged));
    }

    fn available_disk_bytes(&self) -> Option<u64> {
        Some(self.free_bytes.load(Ordering::Relaxed))
    }

    async fn open_upload(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<LocalFile>, StorageError> {
        let path = self.upload_path(tenant, document);
        Ok(path.exists().then(|| path.into()))
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
                self.discard_staged_upload(&staged);
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
