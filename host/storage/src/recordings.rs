//! Recordings as files in the data folder. [`recording_keys`](crate::recording_keys) names them.
//!
//! A session is one file, to which parts are appended. Nothing is synced: a recording that a power failure has cut short is replayed as far as
//! it goes.
//!
//! Only one process uses a data folder, so recent removals are known in memory: no append comes from elsewhere or survives a restart.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio::sync::mpsc;
use weir_core::recording::{
    AppendOutcome, MAX_APPEND_DELAY, RecordingRemoval, RecordingSession, RecordingStore, StoredRecording,
    StoredSession,
};
use weir_core::{JobId, StorageError, TenantId};

use crate::data_folder::create_private_folder;
use crate::path_with_public_name::PathWithPublicName;
use crate::recording_keys::{
    GroupByJob, RECORDINGS, StoredPart, earlier_job_key, group_by_session, job_prefix, keys_of_session,
    session_key,
};
use crate::tenant_files::remove_file_if_exists;

/// Time for which a removal is known: a writer may just have begun an append at the end of [`MAX_APPEND_DELAY`].
const REMOVAL_LIFETIME: Duration = MAX_APPEND_DELAY.saturating_mul(2);
/// Recordings that a listing is ahead of its consumer.
const LISTED_RECORDINGS: usize = 256;

/// The last removal of each job, and of all jobs of a tenant, each with its time.
type RecentRemovals = HashMap<(TenantId, Option<JobId>), (RecordingRemoval, Instant)>;

/// Implements [`RecordingStore`] with files.
#[derive(Clone)]
pub struct FileRecordingStore {
    data: PathBuf,
    /// Read during an append, so that a removal finds the file of each append that does not find the removal.
    removals: Arc<RwLock<RecentRemovals>>,
}

impl FileRecordingStore {
    /// Opens the recordings in a data folder, which need not exist.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            removals: Arc::default(),
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

    /// Keeps later appends from storing anything that is removed, and waits for those in progress.
    fn remember_removal(&self, tenant: &TenantId, job: Option<JobId>) {
        let removed = (RecordingRemoval::now(), Instant::now());
        self.removals.write().insert((tenant.clone(), job), removed);
    }

    fn forget_old_removals(&self) {
        let mut removals = self.removals.write();
        removals.retain(|_, (_, since)| since.elapsed() < REMOVAL_LIFETIME);
    }

    fn append(&self, session: &RecordingSession, is_first: bool, bytes: &[u8]) -> io::Result<AppendOutcome> {
        let removals = self.removals.read();
        let is_removed = [Some(session.job), None].into_iter().any(|job| {
            let removed = removals.get(&(session.tenant.clone(), job));
            removed.is_some_and(|(removal, _)| removal.applies_to(session.id))
        });
        if is_removed {
            return Ok(AppendOutcome::Removed);
        }
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

    /// Lists the files below a folder.
    fn list_files(&self, folder: &str, found: &mut Vec<StoredPart>) -> io::Result<()> {
        self.visit_entries(folder, &mut |key, metadata| match metadata.is_dir() {
            true => self.list_files(&key, found),
            false => {
                found.push(stored_part(key, &metadata)?);
                Ok(())
            }
        })
    }

    /// Calls `visit` with the key and metadata of each entry of a folder, which need not exist. An entry that disappears meanwhile is left
    /// out.
    fn visit_entries(
        &self,
        folder: &str,
        visit: &mut dyn FnMut(String, fs::Metadata) -> io::Result<()>,
    ) -> io::Result<()> {
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
            match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                metadata => visit(format!("{folder}/{name}"), metadata?)?,
            }
        }
        Ok(())
    }

    /// Sends the recordings of all jobs. The file of an earlier version and the folder of a job are two recordings.
    fn send_recordings(&self, listed: &mpsc::Sender<StoredRecording>) -> io::Result<()> {
        self.visit_entries(RECORDINGS, &mut |tenant_folder, _| {
            self.visit_entries(&tenant_folder, &mut |key, metadata| {
                let mut parts = Vec::new();
                match metadata.is_dir() {
                    true => self.list_files(&key, &mut parts)?,
                    false => parts.push(stored_part(key, &metadata)?),
                }
                let mut group = GroupByJob::default();
                parts.iter().for_each(|part| drop(group.add_part(part)));
                if let Some(recording) = group.take_last() {
                    listed.blocking_send(recording).map_err(io::Error::other)?;
                }
                Ok(())
            })
        })
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
            self.remember_removal(tenant, Some(*job));
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

/// Removes the recordings of a data folder whose recordings are on an S3 server from now on. Nothing reads them any more, and neither the
/// removal of a document on another node nor the limits of recordings would reach them.
pub(crate) async fn remove_recordings_of_former_store(data: &Path) -> Result<(), StorageError> {
    let former = FileRecordingStore::new(data);
    let remove = |store: &FileRecordingStore| {
        let folder = store.data.join(RECORDINGS);
        if fs::exists(&folder)? {
            tracing::info!("recordings in the data folder are removed, because new ones are on an S3 server");
        }
        remove_folder_if_exists(&folder)
    };
    former.run_blocking(remove).await
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
        let tenant = tenant.clone();
        self.run_blocking(move |store| {
            store.remember_removal(&tenant, None);
            remove_folder_if_exists(&store.tenant_folder(&tenant))
        })
        .await
    }

    async fn visit_recordings(
        &self,
        visit: &mut (dyn FnMut(StoredRecording) + Send),
    ) -> Result<(), StorageError> {
        let (listed, mut received) = mpsc::channel(LISTED_RECORDINGS);
        let list = self.run_blocking(move |store| store.send_recordings(&listed));
        let visit_all = async {
            while let Some(recording) = received.recv().await {
                visit(recording);
            }
        };
        tokio::join!(list, visit_all).0
    }

    async fn forget_old_removals(&self) -> Result<(), StorageError> {
        self.run_blocking(|store| {
            store.forget_old_removals();
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use weir_core::recording::list_recordings;

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
        let found = list_recordings(&store).await.unwrap();
        assert_eq!(found.iter().map(|recording| recording.bytes).sum::<u64>(), 10);
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
