//! Conformance checks of recordings, and a store in memory that passes them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use weir_core::recording::{AppendOutcome, RecordingSession, RecordingStore, StoredRecording, StoredSession};
use weir_core::{JobId, StorageError, TenantId};

/// Checks a store of recordings. Panics if the store breaks the contract of its port. Leaves nothing in an empty store.
pub async fn check_recording_store(store: &dyn RecordingStore) {
    // One name begins with the other, so that a store that joins names and ids would mix them.
    let (a, b): (TenantId, TenantId) = (
        "recording-suite".parse().unwrap(),
        "recording-suite-b".parse().unwrap(),
    );
    let (job, other_job) = (JobId::new(), JobId::new());
    let began = SystemTime::now() - Duration::from_secs(5);
    assert_eq!(read_sessions(store, &a, &job).await, Vec::<String>::new());
    let read = store.read_session(&a, &job, "missing").await.unwrap();
    assert_eq!(read, None, "there is no session");
    store.remove_recordings(&a, &[job]).await.unwrap();
    store.remove_all_recordings_of_tenant(&a).await.unwrap();

    let first = RecordingSession::start(a.clone(), job);
    let resumed = RecordingSession::start(a.clone(), job);
    // More parts than have one digit, and two sessions that are written at the same time.
    for part in 0..12 {
        append(store, &first, part, &format!("<{part}>")).await;
        append(store, &resumed, part, &format!("[{part}]")).await;
    }
    let other = RecordingSession::start(a.clone(), other_job);
    append(store, &other, 0, "other job").await;
    let same_job_id = RecordingSession::start(b.clone(), job);
    append(store, &same_job_id, 0, "other tenant").await;
    let joined =
        |open: char, close: char| -> String { (0..12).map(|part| format!("{open}{part}{close}")).collect() };
    assert_eq!(
        read_sessions(store, &a, &job).await,
        [joined('<', '>'), joined('[', ']')]
    );
    assert_eq!(read_sessions(store, &a, &other_job).await, ["other job"]);
    assert_eq!(read_sessions(store, &b, &job).await, ["other tenant"]);
    assert_eq!(read_sessions(store, &b, &other_job).await, Vec::<String>::new());

    let mut found = store.list_recordings().await.unwrap();
    found.sort_by_key(|recording| (recording.tenant.clone(), recording.job));
    let sizes: Vec<_> = found
        .iter()
        .map(|recording| (&recording.tenant, recording.job, recording.bytes))
        .collect();
    let job_bytes = 2 * joined('<', '>').len() as u64;
    assert_eq!(sizes, [(&a, job, job_bytes), (&a, other_job, 9), (&b, job, 12)]);
    let is_recent = |time: SystemTime| time >= began && time <= SystemTime::now() + Duration::from_secs(5);
    assert!(
        found.iter().all(|recording| is_recent(recording.last_modified)),
        "{found:?}"
    );

    // The writers of removed sessions go on.
    store.remove_recordings(&a, &[JobId::new(), job]).await.unwrap();
    for session in [&first, &resumed] {
        let late = store.append_part(session, 12, b"late").await.unwrap();
        assert_eq!(late, AppendOutcome::Removed);
    }
    assert_eq!(read_sessions(store, &a, &job).await, Vec::<String>::new());
    assert_eq!(read_sessions(store, &a, &other_job).await, ["other job"]);
    assert_eq!(read_sessions(store, &b, &job).await, ["other tenant"]);
    // The job is recorded again.
    append(store, &RecordingSession::start(a.clone(), job), 0, "again").await;
    assert_eq!(read_sessions(store, &a, &job).await, ["again"]);

    // The second removal finds nothing.
    for _ in 0..2 {
        store.remove_all_recordings_of_tenant(&a).await.unwrap();
        for job in [&job, &other_job] {
            assert_eq!(read_sessions(store, &a, job).await, Vec::<String>::new());
        }
        let late = store.append_part(&other, 1, b"late").await.unwrap();
        assert_eq!(late, AppendOutcome::Removed);
        assert_eq!(read_sessions(store, &b, &job).await, ["other tenant"]);
    }
    store.remove_all_recordings_of_tenant(&b).await.unwrap();
    assert_eq!(store.list_recordings().await.unwrap(), []);
}

async fn append(store: &dyn RecordingStore, session: &RecordingSession, part: u32, text: &str) {
    let appended = store.append_part(session, part, text.as_bytes()).await.unwrap();
    assert_eq!(appended, AppendOutcome::Appended, "part {part}");
}

/// Reads all sessions of a job, and checks the listed sizes.
async fn read_sessions(store: &dyn RecordingStore, tenant: &TenantId, job: &JobId) -> Vec<String> {
    let mut read = Vec::new();
    for session in store.list_sessions(tenant, job).await.unwrap() {
        let bytes = store.read_session(tenant, job, &session.name).await.unwrap();
        let bytes = bytes.unwrap();
        assert_eq!(bytes.len() as u64, session.bytes);
        read.push(String::from_utf8(bytes).unwrap());
    }
    read
}

/// Recordings in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryRecordingStore {
    recordings: Mutex<BTreeMap<(TenantId, JobId), MemoryRecording>>,
    append_interval: Duration,
    append_error: Mutex<Option<StorageError>>,
}

#[derive(Debug)]
struct MemoryRecording {
    /// The bytes of the sessions, by name.
    sessions: BTreeMap<String, Vec<u8>>,
    last_modified: SystemTime,
}

impl MemoryRecordingStore {
    /// Creates a store whose writers collect bytes for this time.
    #[must_use]
    pub fn with_append_interval(append_interval: Duration) -> Self {
        Self {
            append_interval,
            ..Self::default()
        }
    }

    /// Lets every append fail with this error, or with `None` succeed again.
    pub fn fail_appends_with(&self, error: Option<StorageError>) {
        *self.append_error.lock().unwrap() = error;
    }

    /// Returns the bytes of each session of a job.
    #[must_use]
    pub fn sessions(&self, tenant: &TenantId, job: &JobId) -> Vec<Vec<u8>> {
        let recordings = self.recordings.lock().unwrap();
        let recording = recordings.get(&(tenant.clone(), *job));
        recording.map_or_else(Vec::new, |found| found.sessions.values().cloned().collect())
    }

    /// Stores a recording with one session.
    pub fn insert(&self, tenant: &TenantId, job: &JobId, bytes: Vec<u8>, last_modified: SystemTime) {
        let recording = MemoryRecording {
            sessions: [(String::new(), bytes)].into(),
            last_modified,
        };
        let mut recordings = self.recordings.lock().unwrap();
        recordings.insert((tenant.clone(), *job), recording);
    }
}

#[async_trait]
impl RecordingStore for MemoryRecordingStore {
    fn append_interval(&self) -> Duration {
        self.append_interval
    }

    async fn append_part(
        &self,
        session: &RecordingSession,
        part: u32,
        bytes: &[u8],
    ) -> Result<AppendOutcome, StorageError> {
        if let Some(error) = self.append_error.lock().unwrap().clone() {
            return Err(error);
        }
        let mut recordings = self.recordings.lock().unwrap();
        let (owner, name) = ((session.tenant.clone(), session.job), session.id.to_string());
        let is_stored = recordings
            .get(&owner)
            .is_some_and(|found| found.sessions.contains_key(&name));
        if part > 0 && !is_stored {
            return Ok(AppendOutcome::Removed);
        }
        let recording = recordings.entry(owner).or_insert_with(|| MemoryRecording {
            sessions: BTreeMap::new(),
            last_modified: SystemTime::now(),
        });
        recording.last_modified = SystemTime::now();
        recording.sessions.entry(name).or_default().extend(bytes);
        Ok(AppendOutcome::Appended)
    }

    async fn list_sessions(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Vec<StoredSession>, StorageError> {
        let recordings = self.recordings.lock().unwrap();
        let Some(found) = recordings.get(&(tenant.clone(), *job)) else {
            return Ok(Vec::new());
        };
        let sessions = found.sessions.iter().map(|(name, bytes)| StoredSession {
            name: name.clone(),
            bytes: bytes.len() as u64,
        });
        Ok(sessions.collect())
    }

    async fn read_session(
        &self,
        tenant: &TenantId,
        job: &JobId,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StorageError> {
        let recordings = self.recordings.lock().unwrap();
        let found = recordings.get(&(tenant.clone(), *job));
        Ok(found.and_then(|found| found.sessions.get(name).cloned()))
    }

    async fn remove_recordings(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<(), StorageError> {
        let mut recordings = self.recordings.lock().unwrap();
        for job in jobs {
            recordings.remove(&(tenant.clone(), *job));
        }
        Ok(())
    }

    async fn remove_all_recordings_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let mut recordings = self.recordings.lock().unwrap();
        recordings.retain(|(owner, _), _| owner != tenant);
        Ok(())
    }

    async fn list_recordings(&self) -> Result<Vec<StoredRecording>, StorageError> {
        let recordings = self.recordings.lock().unwrap();
        let stored = recordings.iter().map(|((tenant, job), found)| StoredRecording {
            tenant: tenant.clone(),
            job: *job,
            bytes: found.sessions.values().map(|bytes| bytes.len() as u64).sum(),
            last_modified: found.last_modified,
        });
        Ok(stored.collect())
    }
}
