//! Writes uploaded files to the disk.
//!
//! A file goes through three states. It is unfinished while it is received. It is staged for its job when it is complete and
//! durable. It is committed as the file of its document when its job is in the ledger; a file that exists already has the same
//! bytes and is replaced. So a committed file always belongs to a job, and a refused upload never becomes one. After a crash,
//! the next start removes unfinished files, commits the staged files whose job exists, and removes the other staged files.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use weir_core::clock::unix_time_millis;
use weir_core::job_request::JobRequestStore;
use weir_core::uploads::{StagedUpload, UploadStore};
use weir_core::{DocumentId, JobId, StorageError, TenantId};

/// Size of the write buffer.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// Removes a file when dropped. Set to `None` to keep the file.
struct RemoveFileOnDrop(Option<PathBuf>);

impl Drop for RemoveFileOnDrop {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // Ignore errors: the file may not exist yet, or the next start removes it.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A file that is being received. Dropping it removes the file.
pub struct IncomingFile {
    /// `None` if the file is only hashed.
    target: Option<IncomingFileTarget>,
    hash: Sha256,
    size_bytes: u64,
}

struct IncomingFileTarget {
    upload_store: Arc<dyn UploadStore>,
    path: PathBuf,
    remove_guard: RemoveFileOnDrop,
    file: BufWriter<File>,
}

impl IncomingFile {
    /// Creates an empty file.
    pub async fn create_file_to_store(uploads: &Arc<dyn UploadStore>) -> Result<Self, StorageError> {
        let path = uploads.new_temporary_path();
        // Created before the file, so that the file is removed even if this future is dropped right after creating it.
        let remove_guard = RemoveFileOnDrop(Some(path.clone()));
        let file = File::create_new(&path)
            .await
            .map_err(|error| upload_io_error(&error))?;
        Ok(Self {
            target: Some(IncomingFileTarget {
                upload_store: Arc::clone(uploads),
                path,
                remove_guard,
                file: BufWriter::with_capacity(WRITE_BUFFER_BYTES, file),
            }),
            ..Self::create_file_to_hash_only()
        })
    }

    /// Creates a file that is hashed and not stored, for the comparison with an earlier request.
    pub fn create_file_to_hash_only() -> Self {
        Self {
            target: None,
            hash: Sha256::new(),
            size_bytes: 0,
        }
    }

    /// Appends bytes.
    pub async fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.hash.update(bytes);
        self.size_bytes += bytes.len() as u64;
        match &mut self.target {
            Some(target) => target
                .file
                .write_all(bytes)
                .await
                .map_err(|error| upload_io_error(&error)),
            None => Ok(()),
        }
    }

    /// Completes the file and returns its id and size. If it is stored, it is durable and staged for the job when this returns.
    pub async fn finish_and_stage_file(
        self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<(DocumentId, u64, Option<StagedFile>), StorageError> {
        let document = DocumentId::from_digest(self.hash.finalize().into());
        let Some(mut target) = self.target else {
            return Ok((document, self.size_bytes, None));
        };
        target
            .file
            .flush()
            .await
            .map_err(|error| upload_io_error(&error))?;
        // Sync this descriptor: it reports all write errors of the file, while a descriptor opened later may miss them.
        let synced = target.file.get_ref().sync_all().await;
        synced.map_err(|error| upload_io_error(&error))?;
        let staged = StagedUpload {
            tenant: tenant.clone(),
            job: *job,
            document,
        };
        target
            .upload_store
            .stage_received_file(&target.path, &staged)
            .await?;
        target.remove_guard.0 = None;
        let staged_file = StagedFile {
            upload_store: target.upload_store,
            staged,
            is_discarded_on_drop: true,
            received_bytes: self.size_bytes,
        };
        Ok((document, self.size_bytes, Some(staged_file)))
    }
}

/// A complete and durable file that is staged for its job. Dropping it before the commit removes the file.
pub struct StagedFile {
    upload_store: Arc<dyn UploadStore>,
    staged: StagedUpload,
    /// Whether dropping it removes the staged upload.
    is_discarded_on_drop: bool,
    /// Number of received bytes. 0 for a document that was stored before.
    pub received_bytes: u64,
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if self.is_discarded_on_drop {
            self.upload_store.discard_staged_upload(&self.staged);
        }
    }
}

impl StagedFile {
    /// Stages the stored file of a document for this job, and returns it with its size. `None` if the document is not stored.
    ///
    /// The job keeps the staged file even if the document is removed before the job is committed.
    pub async fn stage_stored_document(
        uploads: &Arc<dyn UploadStore>,
        tenant: &TenantId,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<Option<(Self, u64)>, StorageError> {
        let staged = StagedUpload {
            tenant: tenant.clone(),
            job: *job,
            document: *document,
        };
        let bytes = uploads.stage_stored_upload(&staged).await?;
        let staged_file = |bytes| {
            let staged_file = Self {
                upload_store: Arc::clone(uploads),
                staged,
                is_discarded_on_drop: true,
                received_bytes: 0,
            };
            (staged_file, bytes)
        };
        Ok(bytes.map(staged_file))
    }

    /// Keeps the staged upload, because its job may be in the ledger.
    pub(crate) fn keep_for_recovery(mut self) {
        self.is_discarded_on_drop = false;
    }

    /// Commits the file. Its job must be in the ledger; after a crash the next start does the same.
    pub async fn commit_file(mut self) -> Result<(), StorageError> {
        self.is_discarded_on_drop = false;
        match self.upload_store.commit_staged_upload(&self.staged).await {
            // Another node runs the job already and has committed its files.
            Err(StorageError::NotFound { .. }) => Ok(()),
            committed => committed,
        }
    }
}

/// Recovers the staged files of an earlier process: commits those whose job exists and removes the others. Files of jobs that are younger
/// than `min_age` stay, because another node may be receiving them.
pub async fn recover_staged_files(
    uploads: &dyn UploadStore,
    job_requests: &dyn JobRequestStore,
    min_age: Duration,
) -> Result<(), StorageError> {
    let min_age_millis = u64::try_from(min_age.as_millis()).unwrap_or(u64::MAX);
    let newest_millis = unix_time_millis().saturating_sub(min_age_millis);
    for staged in uploads.list_staged_uploads().await? {
        if !min_age.is_zero() && staged.job.created_millis() > newest_millis {
            continue;
        }
        match job_requests.find_job_request(&staged.tenant, &staged.job).await? {
            Some(_) => match uploads.commit_staged_upload(&staged).await {
                // Another node has committed it meanwhile.
                Ok(()) | Err(StorageError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            },
            None => drop(uploads.remove_staged_upload(&staged).await?),
        }
    }
    Ok(())
}

fn upload_io_error(error: &io::Error) -> StorageError {
    StorageError::from_io_error("the upload", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeUploadStore, TestControl};

    async fn stage_test_file(
        uploads: &Arc<dyn UploadStore>,
        tenant: &TenantId,
        job: JobId,
        content: &[u8],
    ) -> StagedFile {
        let mut incoming = IncomingFile::create_file_to_store(uploads).await.unwrap();
        for bytes in content.chunks(3) {
            incoming.write_bytes(bytes).await.unwrap();
        }
        incoming
            .finish_and_stage_file(tenant, &job)
            .await
            .unwrap()
            .2
            .unwrap()
    }

    #[tokio::test]
    async fn staged_file_is_stored_only_by_commit_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = FakeUploadStore::new(folder.path(), Arc::default());
        let (uploads, tenant, job): (Arc<dyn UploadStore>, _, _) =
            (files.clone(), TenantId::default_tenant(), JobId::new());
        let arrived = stage_test_file(&uploads, &tenant, job, b"content").await;
        let document = DocumentId::from_content(b"content");
        let size = async || {
            let again = StagedFile::stage_stored_document(&uploads, &tenant, &job, &document)
                .await
                .unwrap();
            again.map(|(_, bytes)| bytes)
        };
        assert_eq!((arrived.staged.document, arrived.received_bytes), (document, 7));
        assert_eq!(size().await, None);
        arrived.commit_file().await.unwrap();
        assert_eq!(size().await, Some(7));
        // A dropped upload of the same file and an incomplete upload leave only the committed file.
        drop(stage_test_file(&uploads, &tenant, JobId::new(), b"content").await);
        let mut broken = IncomingFile::create_file_to_store(&uploads).await.unwrap();
        broken.write_bytes(b"cont").await.unwrap();
        drop(broken);
        assert_eq!(files.file_names(), [format!("{tenant}-{document}")]);
    }

    #[tokio::test]
    async fn hash_only_file_is_not_written() {
        let mut incoming = IncomingFile::create_file_to_hash_only();
        incoming.write_bytes(b"con").await.unwrap();
        incoming.write_bytes(b"tent").await.unwrap();
        let finished = incoming
            .finish_and_stage_file(&TenantId::default_tenant(), &JobId::new())
            .await;
        let (document, bytes, arrived) = finished.unwrap();
        assert_eq!((document, bytes), (DocumentId::from_content(b"content"), 7));
        assert!(arrived.is_none());
    }

    #[tokio::test]
    async fn staged_files_are_recovered_after_a_crash() {
        let host = TestControl::new();
        let (tenant, uploads) = (TenantId::default_tenant(), Arc::clone(&host.control.upload_store));
        let (known, unknown) = (JobId::new(), JobId::new());
        host.create_queued_job(&tenant, known, DocumentId::from_content(b"accepted"))
            .await;
        let leak = |arrived: StagedFile| std::mem::forget(arrived);
        leak(stage_test_file(&uploads, &tenant, known, b"accepted").await);
        leak(stage_test_file(&uploads, &tenant, unknown, b"not accepted").await);
        assert_eq!(uploads.list_staged_uploads().await.unwrap().len(), 2);
        recover_staged_files(&*uploads, &*host.store, Duration::ZERO)
            .await
            .unwrap();
        assert_eq!(uploads.list_staged_uploads().await.unwrap(), []);
        assert_eq!(
            uploads.list_uploads(&tenant).await.unwrap(),
            [DocumentId::from_content(b"accepted")]
        );
    }
}
