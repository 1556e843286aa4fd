//! Uploads as files: `<data>/uploads/<tenant>/<document>`.
//!
//! Uploads that are staged for a job are in a folder that is not emptied at the next start. Their file names contain the tenant, the job
//! and the document.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use weir_core::local_file::LocalFile;
use weir_core::uploads::{StagedUpload, UploadStore};
use weir_core::{DocumentId, StorageError, TenantId};

use crate::data_folder::{available_file_system_bytes, create_private_folder, sync_folder};
use crate::path_with_public_name::PathWithPublicName;
use crate::storage_usage::StorageUsageTracker;
use crate::tenant_files::{TenantFiles, remove_file_if_exists};

/// The folder of staged uploads. Their names are `<tenant>.<job>.<document>`, and no part contains a dot.
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
        rename_numbered_staged_files(&files)?;
        Ok(Self(Arc::new(files)))
    }
}

#[async_trait]
impl UploadStore for FileUploadStore {
    fn new_temporary_path(&self) -> PathBuf {
        self.0.new_unfinished_path()
    }

    async fn stage_received_file(&self, received: &Path, staged: &StagedUpload) -> Result<(), StorageError> {
        let (received, staged) = (received.to_owned(), staged.clone());
        self.0
            .run_blocking(move |files| move_to_staging_folder(files, &received, &staged))
            .await
    }

    async fn stage_stored_upload(&self, staged: &StagedUpload) -> Result<Option<u64>, StorageError> {
        let staged = staged.clone();
        self.0
            .run_blocking(move |files| stage_stored_upload(files, &staged))
            .await
    }

    async fn list_staged_uploads(&self) -> Result<Vec<StagedUpload>, StorageError> {
        self.0.run_blocking(list_staged_uploads).await
    }

    async fn commit_staged_upload(&self, staged: &StagedUpload) -> Result<(), StorageError> {
        let staged = staged.clone();
        self.0
            .run_blocking(move |files| {
                let (path, name) = (staged_path(files, &staged), staged.document.to_string());
                if !path.exists() && files.open_file(&staged.tenant, &name)?.is_some() {
                    return Ok(());
                }
                files.commit_file(&staged.tenant, &path, &name)
            })
            .await
    }

    async fn remove_staged_upload(&self, staged: &StagedUpload) -> Result<bool, StorageError> {
        let staged = staged.clone();
        self.0
            .run_blocking(move |files| remove_staged_upload(files, &staged))
            .await
    }

    fn discard_staged_upload(&self, staged: &StagedUpload) {
        // An unlink is short enough for the caller's thread. The error is logged where it is created.
        let _ = remove_staged_upload(&self.0, staged);
    }

    fn available_disk_bytes(&self) -> Option<u64> {
        available_file_system_bytes(self.0.root_folder())
    }

    async fn open_upload(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<LocalFile>, StorageError> {
        let (tenant, name) = (tenant.clone(), document.to_string());
        self.0
            .run_blocking(move |files| {
                let opened = files.open_file(&tenant, &name)?;
                if opened.is_none() {
                    // A job that needs the upload fails with an error without the path.
                    let path = files.file_path(&tenant, &name);
                    tracing::warn!(path = %path.display(), "an upload does not exist");
                }
                Ok(opened)
            })
            .await
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
                    remove_staged_upload(files, &staged)?;
                }
                files.remove_all_files_of_tenant(&tenant)
            })
            .await
    }
}

/// Returns the path of a staged upload, which need not exist.
fn staged_path(files: &TenantFiles, staged: &StagedUpload) -> PathBuf {
    let StagedUpload {
        tenant,
        job,
        document,
    } = staged;
    let folder = files.root_folder().join(STAGING_FOLDER);
    folder.join(format!("{tenant}.{job}.{document}"))
}

fn move_to_staging_folder(
    files: &TenantFiles,
    received: &Path,
    staged: &StagedUpload,
) -> Result<(), StorageError> {
    let (folder, path) = (
        files.root_folder().join(STAGING_FOLDER),
        staged_path(files, staged),
    );
    File::open(received)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(received, &path))
        .and_then(|()| sync_folder(&folder))
        .map_err(|e| staged_path_with_error_name(files, &path).io_error(&e))
}

/// Stages a stored upload with a hard link, or with a copy if the file system has no hard links. Returns its size in bytes; `None` if it
/// is not stored.
fn stage_stored_upload(files: &TenantFiles, staged: &StagedUpload) -> Result<Option<u64>, StorageError> {
    let stored_path = files.file_path(&staged.tenant, &staged.document.to_string());
    let path = staged_path(files, staged);
    let linked = fs::hard_link(&stored_path, &path).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Err(error),
        ErrorKind::AlreadyExists => Ok(()),
        _ => {
            let copy = files.new_unfinished_path();
            fs::copy(&stored_path, &copy)
                .and_then(|_| File::open(&copy)?.sync_all())
                .and_then(|()| fs::rename(&copy, &path))
                .inspect_err(|_| drop(fs::remove_file(&copy)))
        }
    });
    let sized = linked
        .and_then(|()| sync_folder(&files.root_folder().join(STAGING_FOLDER)))
        .and_then(|()| fs::metadata(&path));
    match sized {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(staged_path_with_error_name(files, &path).io_error(&error)),
    }
}

fn remove_staged_upload(files: &TenantFiles, staged: &StagedUpload) -> Result<bool, StorageError> {
    let path = staged_path(files, staged);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(staged_path_with_error_name(files, &path).io_error(&error)),
    }
}

fn list_staged_uploads(files: &TenantFiles) -> Result<Vec<StagedUpload>, StorageError> {
    let names = list_staging_folder(files)?;
    Ok(names
        .iter()
        .filter_map(|name| parse_staged_file_name(name))
        .collect())
}

fn list_staging_folder(files: &TenantFiles) -> Result<Vec<String>, StorageError> {
    let folder = files.root_folder().join(STAGING_FOLDER);
    let io = |e: std::io::Error| files.path_with_error_name(&folder).io_error(&e);
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(io)? {
        names.extend(entry.map_err(io)?.file_name().into_string());
    }
    Ok(names)
}

/// Renames staged uploads of earlier versions, whose names end with a number. One job can have several of one document, with equal
/// bytes.
fn rename_numbered_staged_files(files: &TenantFiles) -> Result<(), StorageError> {
    let folder = files.root_folder().join(STAGING_FOLDER);
    for name in list_staging_folder(files)? {
        if let (4, Some(staged)) = (name.split('.').count(), parse_staged_file_name(&name)) {
            let path = folder.join(&name);
            fs::rename(&path, staged_path(files, &staged))
                // rename(2) of a hard link over another link of the same file leaves both.
                .and_then(|()| remove_file_if_exists(&path))
                .map_err(|e| staged_path_with_error_name(files, &path).io_error(&e))?;
        }
    }
    Ok(())
}

fn parse_staged_file_name(name: &str) -> Option<StagedUpload> {
    let mut parts = name.split('.');
    Some(StagedUpload {
        tenant: parts.next()?.parse().ok()?,
        job: parts.next()?.parse().ok()?,
        document: parts.next()?.parse().ok()?,
    })
}

fn staged_path_with_error_name(files: &TenantFiles, path: &Path) -> PathWithPublicName {
    let folder = files.root_folder().join(STAGING_FOLDER);
    PathWithPublicName::from_path_below_root(&folder, "upload", path)
}

#[cfg(test)]
mod tests {
    use weir_conformance::store_upload;
    use weir_core::JobId;

    use super::*;
    use crate::ledger::SqlLedger;

    fn open_uploads() -> (tempfile::TempDir, StorageUsageTracker, FileUploadStore) {
        let dir = tempfile::tempdir().unwrap();
        let usage = SqlLedger::open_for_test(dir.path()).storage_usage();
        let uploads = FileUploadStore::open_and_remove_unfinished_files(dir.path(), usage.clone()).unwrap();
        (dir, usage, uploads)
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
        let one = store_upload(&uploads, &a, b"one").await;
        store_upload(&uploads, &a, b"second").await;
        store_upload(&uploads, &a, b"one").await;
        store_upload(&uploads, &b, b"one").await;
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

    #[tokio::test]
    async fn staged_uploads_of_earlier_versions_are_found() {
        let (dir, usage, uploads) = open_uploads();
        let (tenant, job) = (TenantId::default_tenant(), JobId::new());
        let document = store_upload(&uploads, &tenant, b"staged").await;
        drop(uploads);
        let folder = dir.path().join("uploads");
        for number in [0, 1] {
            let numbered = folder.join(format!(".staged/{tenant}.{job}.{document}.{number}"));
            fs::hard_link(folder.join(format!("{tenant}/{document}")), numbered).unwrap();
        }
        let uploads = FileUploadStore::open_and_remove_unfinished_files(dir.path(), usage).unwrap();
        let staged = StagedUpload {
            tenant,
            job,
            document,
        };
        assert_eq!(
            uploads.list_staged_uploads().await.unwrap(),
            std::slice::from_ref(&staged)
        );
        uploads.remove_upload(&staged.tenant, &document).await.unwrap();
        uploads.commit_staged_upload(&staged).await.unwrap();
        assert_eq!(uploads.list_staged_uploads().await.unwrap(), []);
        assert_eq!(uploads.list_uploads(&staged.tenant).await.unwrap(), [document]);
        assert_eq!(fs::read_dir(folder.join(".staged")).unwrap().count(), 0);
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
