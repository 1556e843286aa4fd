//! Recordings as files in the data folder. [`recording_keys`](crate::recording_keys) names them.
//!
//! A session is one file, to which parts are appended. Nothing is synced: a recording that a power failure has cut short is replayed as far as
//! it goes.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use weir_core::recording::{AppendOutcome, RecordingSession, RecordingStore, StoredRecording, StoredSession};
use weir_core::{JobId, StorageError, TenantId};

use crate::data_folder::create_private_folder;
use crate::path_with_public_name::PathWithPublicName;
use crate::recording_keys::{
    RECORDINGS, StoredPart, earlier_job_key, group_by_job, group_by_session, job_prefix, keys_of_session,
    session_key,
};
use crate::tenant_files::remove_file_if_exists;

/// Implements [`RecordingStore`] with files.
#[derive(Clone)]
pub struct FileRecordingStore {
    data: PathBuf,
}

impl FileRecordingStore {
    /// Opens the recordings in a data folder, which need not exist.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
        }
    }

    async fn run_blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        let store = self.clone();
        let folder = PathWithPublicName::new("the recordings", self.data.join(RECORDINGS));
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(done) => done.map_err(|error| folder.io_error(&error)),
            Err(error) => Err(folder.failed_error(error)),
        }
    }

    fn append(&self, session: &RecordingSession, is_first: bool, bytes: &[u8]) -> io::Result<AppendOutcome> {
        let path = self.data.join(session_key(session));
        if is_first && let Some(folder) = path.parent() {
            create_private_folder(folder).map_err(io::Error::other)?;
        }
        let mut options = OpenOptions::new();
        options.append(true).create(is_first).mode(0o600);
        let mut file = match options.open(&path) {
            Err(error) if !is_first && error.kind() == ErrorKind::NotFound => {
                return Ok(AppendOutcome::Removed);
            }
            file => file?,
        };
        let length = file.metadata()?.len();
        if let Err(error) = file.write_all(bytes) {
            // A repeated call would otherwise write these bytes twice.
            let _ = file.set_len(length);
            return Err(error);
        }
        Ok(AppendOutcome::Appended)
    }

    fn list_parts(&self, tenant: &TenantId, job: &JobId) -> io::Result<Vec<StoredPart>> {
        let mut found = Vec::new();
        let earlier = earlier_job_key(tenant, job);
        match fs::metadata(self.data.join(&earlier)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            metadata => found.push(stored_part(earlier, &metadata?)?),
        }
        self.list_files(&job_prefix(tenant, job), &mut found)?;
        Ok(found)
    }

    /// Lists the files below a folder. A file that disappears meanwhile is left out.
    fn list_files(&self, folder: &str, found: &mut Vec<StoredPart>) -> io::Result<()> {
        let entries = match fs::read_dir(self.data.join(folder)) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(());
            }
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let key = format!("{folder}/{name}");
            match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                metadata => match metadata? {
                    metadata if metadata.is_dir() => self.list_files(&key, found)?,
                    metadata => found.push(stored_part(key, &metadata)?),
                },
            }
        }
        Ok(())
    }

    fn read(&self, tenant: &TenantId, job: &JobId, name: &str) -> io::Result<Option<Vec<u8>>> {
        let keys = keys_of_session(self.list_parts(tenant, job)?, name);
        let mut bytes = (!keys.is_empty()).then(Vec::new);
        for key in keys {
            if let Some(bytes) = &mut bytes {
                bytes.extend(fs::read(self.data.join(key))?);
            }
        }
        Ok(bytes)
    }

    fn remove(&self, tenant: &TenantId, jobs: &[JobId]) -> io::Result<()> {
        for job in jobs {
            remove_file_if_exists(&self.data.join(earlier_job_key(tenant, job)))?;
            remove_folder_if_exists(&self.data.join(job_prefix(tenant, job)))?;
        }
        // Fails while the tenant has other recordings.
        let _ = fs::remove_dir(self.tenant_folder(tenant));
        Ok(())
    }

    fn tenant_folder(&self, tenant: &TenantId) -> PathBuf {
        self.data.join(RECORDINGS).join(tenant.as_str())
    }
}

fn stored_part(key: String, metadata: &fs::Metadata) -> io::Result<StoredPart> {
    Ok(StoredPart {
        key,
        bytes: metadata.len(),
        last_modified: metadata.modified()?,
    })
}

fn remove_folder_if_exists(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[async_trait]
impl RecordingStore for FileRecordingStore {
    fn append_interval(&self) -> Duration {
        Duration::ZERO
    }

    async fn append_part(
        &self,
        session: &RecordingSession,
        part: u32,
        bytes: &[u8],
    ) -> Result<AppendOutcome, StorageError> {
        let (session, bytes) = (session.clone(), bytes.to_owned());
        self.run_blocking(move |store| store.append(&session, part == 0, &bytes))
            .await
    }

    async fn list_sessions(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Vec<StoredSession>, StorageError> {
        let (tenant, job) = (tenant.clone(), *job);
        self.run_blocking(move |store| Ok(group_by_session(&store.list_parts(&tenant, &job)?)))
            .await
    }

    async fn read_session(
        &self,
        tenant: &TenantId,
        job: &JobId,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StorageError> {
        let (tenant, job, name) = (tenant.clone(), *job, name.to_owned());
        self.run_blocking(move |store| store.read(&tenant, &job, &name))
            .await
    }

    async fn remove_recordings(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<(), StorageError> {
        let (tenant, jobs) = (tenant.clone(), jobs.to_vec());
        self.run_blocking(move |store| store.remove(&tenant, &jobs)).await
    }

    async fn remove_all_recordings_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let folder = self.tenant_folder(tenant);
        self.run_blocking(move |_| remove_folder_if_exists(&folder)).await
    }

    async fn list_recordings(&self) -> Result<Vec<StoredRecording>, StorageError> {
        self.run_blocking(|store| {
            let mut found = Vec::new();
            store.list_files(RECORDINGS, &mut found)?;
            Ok(group_by_job(&found))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn store_passes_the_conformance_suite() {
        let dir = tempfile::tempdir().unwrap();
        weir_conformance::check_recording_store(&FileRecordingStore::new(dir.path())).await;
        assert_eq!(fs::read_dir(dir.path().join(RECORDINGS)).unwrap().count(), 0);
    }

    /// An earlier version wrote one file for each job, and a migration from an S3 server leaves parts.
    #[tokio::test]
    async fn file_of_an_earlier_version_and_parts_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (tenant, job) = (TenantId::default_tenant(), JobId::new());
        let (earlier, resumed) = (
            earlier_job_key(&tenant, &job),
            RecordingSession::start(tenant.clone(), job),
        );
        fs::create_dir_all(dir.path().join(job_prefix(&tenant, &job))).unwrap();
        for (key, bytes) in [
            (earlier, "earlier"),
            (crate::recording_keys::part_key(&resumed, 10), "c"),
            (crate::recording_keys::part_key(&resumed, 0), "a"),
            (crate::recording_keys::part_key(&resumed, 9), "b"),
        ] {
            fs::write(dir.path().join(key), bytes).unwrap();
        }
        let store = FileRecordingStore::new(dir.path());
        let sessions = store.list_sessions(&tenant, &job).await.unwrap();
        let mut read = Vec::new();
        for session in &sessions {
            let bytes = store
                .read_session(&tenant, &job, &session.name)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(bytes.len() as u64, session.bytes);
            read.push(String::from_utf8(bytes).unwrap());
        }
        assert_eq!(read, ["earlier", "abc"]);
        assert_eq!(store.list_recordings().await.unwrap().len(), 1);
        store.remove_recordings(&tenant, &[job]).await.unwrap();
        assert_eq!(store.list_sessions(&tenant, &job).await.unwrap(), []);
        assert!(!dir.path().join("recordings/default").exists());
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn failed_append_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileRecordingStore::new(dir.path());
        let session = RecordingSession::start(TenantId::default_tenant(), JobId::new());
        store.append_part(&session, 0, b"a").await.unwrap();
        let path = dir.path().join(session_key(&session));
        fs::rename(&path, dir.path().join("aside")).unwrap();
        fs::create_dir(&path).unwrap();
        store.append_part(&session, 1, b"b").await.unwrap_err();
        fs::remove_dir(&path).unwrap();
        fs::rename(dir.path().join("aside"), &path).unwrap();
        store.append_part(&session, 1, b"c").await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ac");
    }
}
