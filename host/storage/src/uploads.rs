//! Uploads as files: `<data>/uploads/<tenant>/<document>`.
//!
//! Uploads that are staged for a job are in a folder that is not emptied at the next start. Their file names contain the tenant, the job
//! and the document.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use weir_core::uploads::{StagedUpload, UploadStore};
use weir_core::{DocumentId, JobId, StorageError, TenantId};

use crate::data_folder::{available_file_system_bytes, create_private_folder, sync_folder};
use crate::path_with_public_name::PathWithPublicName;
use crate::storage_usage::StorageUsageTracker;
use crate::tenant_files::{TenantFiles, remove_file_if_exists};

/// The folder of staged uploads. Their names are `<tenant>.<job>.<document>.<number>`, and no part contains a dot.
const STAGING_FOLDER: &str = ".staged";

/// Implements [`UploadStore`] with files.
pub struct FileUploadStore(Arc<TenantFiles>);

impl FileUploadStore {
    /// Opens `<data>/uploads` and creates it if it does not exist. Removes unfinished files, so only one process may have it open.
    /// Blocks on the disk.
    pub(crate) fn open_and_remove_unfinished_files(
        data: &Path,
        storage_usage: StorageUsageTracker,
    ) -> Result<Self, StorageError> {
        let files =
            TenantFiles::open_and_remove_unfinished_files("document", data, "uploads", storage_usage)?;
        create_private_folder(&files.root_folder().join(STAGING_FOLDER))?;
        Ok(Self(Arc::new(files)))
    }
}

#[async_trait]
impl UploadStore for FileUploadStore {
    fn new_temporary_path(&self) -> PathBuf {
        self.0.new_unfinished_path()
    }

    async fn stage_received_file_for_job(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<PathBuf, StorageError> {
        let name = format!("{tenant}.{job}.{document}.{}", self.0.take_unique_number());
        let unfinished = unfinished.to_owned();
        self.0
            .run_blocking(move |files| move_to_staging_folder(files, &unfinished, &name))
            .await
    }

    async fn stage_stored_upload_for_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<Option<PathBuf>, StorageError> {
        let name = format!("{tenant}.{job}.{document}.{}", self.0.take_unique_number());
        let stored_path = self.0.file_path(tenant, &document.to_string());
        self.0
            .run_blocking(move |files| stage_stored_upload(files, &stored_path, &name))
            .await
    }

    async fn list_staged_uploads(&self) -> Result<Vec<StagedUpload>, StorageError> {
        self.0.run_blocking(list_staged_uploads).await
    }

    async fn commit_upload(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        let (tenant, unfinished, name) = (tenant.clone(), unfinished.to_owned(), document.to_string());
        self.0
            .run_blocking(move |files| files.commit_file(&tenant, &unfinished, &name))
            .await
    }

    fn available_disk_bytes(&self) -> Option<u64> {
        available_file_system_bytes(self.0.root_folder())
    }

    fn upload_path(&self, tenant: &TenantId, document: &DocumentId) -> PathBuf {
        self.0.file_path(tenant, &document.to_string())
    }

    async fn remove_upload(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        let (tenant, name) = (tenant.clone(), document.to_string());
        self.0
            .run_blocking(move |files| files.remove_file(&tenant, &name))
            .await
    }

    async fn list_uploads(&self, tenant: &TenantId) -> Result<Vec<DocumentId>, StorageError> {
        let tenant = tenant.clone();
        let names = self
            .0
            .run_blocking(move |files| files.list_file_names(&tenant))
            .await?;
        let mut documents: Vec<DocumentId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        documents.sort_unstable();
        Ok(documents)
    }

    async fn remove_all_uploads_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let tenant = tenant.clone();
        self.0
            .run_blocking(move |files| {
                for staged in list_staged_uploads(files)?
                    .into_iter()
                    .filter(|s| s.tenant == tenant)
                {
                    remove_file_if_exists(&staged.path)
                        .map_err(|e| files.path_with_error_name(&staged.path).io_error(&e))?;
                }
                files.remove_all_files_of_tenant(&tenant)
            })
            .await
    }
}

fn move_to_staging_folder(
    files: &TenantFiles,
    unfinished: &Path,
    name: &str,
) -> Result<PathBuf, StorageError> {
    let folder = files.root_folder().join(STAGING_FOLDER);
    let staged = folder.join(name);
    File::open(unfinished)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(unfinished, &staged))
        .and_then(|()| sync_folder(&folder))
        .map_err(|e| PathWithPublicName::from_path_below_root(&folder, "upload", &staged).io_error(&e))?;
    Ok(staged)
}

/// Stages a stored upload with a hard link, or with a copy if the file system has no hard links. Returns `None` if it is not stored.
fn stage_stored_upload(
    files: &TenantFiles,
    stored_path: &Path,
    name: &str,
) -> Result<Option<PathBuf>, StorageError> {
    let folder = files.root_folder().join(STAGING_FOLDER);
    let staged = folder.join(name);
    let linked = fs::hard_link(stored_path, &staged).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Err(error),
        _ => fs::copy(stored_path, &staged)
            .and_then(|_| File::open(&staged)?.sync_all())
            .inspect_err(|_| drop(fs::remove_file(&staged))),
    });
    match linked.and_then(|()| sync_folder(&folder)) {
        Ok(()) => Ok(Some(staged)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(PathWithPublicName::from_path_below_root(&folder, "upload", &staged).io_error(&error))
        }
    }
}

fn list_staged_uploads(files: &TenantFiles) -> Result<Vec<StagedUpload>, StorageError> {
    let folder = files.root_folder().join(STAGING_FOLDER);
    let io = |e: std::io::Error| files.path_with_error_name(&folder).io_error(&e);
    let mut all = Vec::new();
    for entry in fs::read_dir(&folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        all.extend(
            name.to_str()
                .and_then(|name| parse_staged_file_name(name, entry.path())),
        );
    }
    Ok(all)
}

/// Parses the name of a staged file.
fn parse_staged_file_name(name: &str, path: PathBuf) -> Option<StagedUpload> {
    let mut parts = name.split('.');
    Some(StagedUpload {
        tenant: parts.next()?.parse().ok()?,
        job: parts.next()?.parse().ok()?,
        document: parts.next()?.parse().ok()?,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::SqlLedger;

    fn open_uploads() -> (tempfile::TempDir, StorageUsageTracker, FileUploadStore) {
        let dir = tempfile::tempdir().unwrap();
        let usage = SqlLedger::open_for_test(dir.path()).storage_usage();
        let uploads = FileUploadStore::open_and_remove_unfinished_files(dir.path(), usage.clone()).unwrap();
        (dir, usage, uploads)
    }

    async fn commit_upload(uploads: &FileUploadStore, tenant: &TenantId, bytes: &[u8]) -> DocumentId {
        let (unfinished, document) = (uploads.new_temporary_path(), DocumentId::from_content(bytes));
        fs::write(&unfinished, bytes).unwrap();
        uploads
            .commit_upload(tenant, &unfinished, &document)
            .await
            .unwrap();
        document
    }

    #[tokio::test]
    async fn file_upload_store_passes_the_conformance_suite() {
        let (_dir, _usage, uploads) = open_uploads();
        weir_conformance::check_upload_store(&uploads).await;
    }

    #[tokio::test]
    async fn bytes_of_uploads_are_counted_by_tenant() {
        let (_dir, usage, uploads) = open_uploads();
        let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let one = commit_upload(&uploads, &a, b"one").await;
        commit_upload(&uploads, &a, b"second").await;
        commit_upload(&uploads, &a, b"one").await;
        commit_upload(&uploads, &b, b"one").await;
        assert_eq!(
            (
                usage.count_stored_bytes(&a).await,
                usage.count_stored_bytes(&b).await
            ),
            (9, 3)
        );
        assert!(uploads.remove_upload(&a, &one).await.unwrap());
        assert!(!uploads.remove_upload(&a, &one).await.unwrap());
        assert_eq!(
            (
                usage.count_stored_bytes(&a).await,
                usage.count_stored_bytes(&b).await
            ),
            (6, 3)
        );
        uploads.remove_all_uploads_of_tenant(&a).await.unwrap();
        assert_eq!(
            (
                usage.count_stored_bytes(&a).await,
                usage.count_stored_bytes(&b).await
            ),
            (0, 3)
        );
    }

    #[tokio::test]
    async fn unfinished_uploads_are_removed_at_the_next_open() {
        let (dir, usage, uploads) = open_uploads();
        let left = uploads.new_temporary_path();
        fs::write(&left, "half").unwrap();
        drop(uploads);
        let _uploads = FileUploadStore::open_and_remove_unfinished_files(dir.path(), usage).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn available_disk_bytes_are_reported() {
        let (_dir, _usage, uploads) = open_uploads();
        assert!(uploads.available_disk_bytes().is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn upload_folders_are_private_to_their_owner() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, _usage, _uploads) = open_uploads();
        for folder in ["uploads", "uploads/.unfinished"] {
            let mode = fs::metadata(dir.path().join(folder))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o077, 0, "{folder}");
        }
    }
}
