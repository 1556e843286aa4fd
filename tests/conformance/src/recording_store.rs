//! Conformance checks of recordings, and a store in memory that passes them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use uuid::{NoContext, Timestamp, Uuid};
use weir_core::recording::{
    AppendOutcome, RecordingRemoval, RecordingSession, RecordingStore, StoredRecording, StoredSession,
    list_recordings,
};
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
    let without_recordings: TenantId = "recording-suite-c".parse().unwrap();
    store
        .remove_recordings(&without_recordings, &[job])
        .await
        .unwrap();
    store
        .remove_all_recordings_of_tenant(&without_recordings)
        .await
        .unwrap();

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

    let mut found = list_recordings(store).await.unwrap();
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

    // The writers of removed sessions go on. One has stored nothing yet.
    let delayed = RecordingSession::start(a.clone(), job);
    store.remove_recordings(&a, &[JobId::new(), job]).await.unwrap();
    for (session, part) in [(&first, 12), (&resumed, 12), (&delayed, 0), (&delayed, 0)] {
        let late = store.append_part(session, part, b"late").await.unwrap();
        assert_eq!(late, AppendOutcome::Removed, "part {part}");
    }
    assert_eq!(read_sessions(store, &a, &job).await, Vec::<String>::new());
    assert_eq!(read_sessions(store, &a, &other_job).await, ["other job"]);
    assert_eq!(read_sessions(store, &b, &job).await, ["other tenant"]);
    // The job is recorded again.
    append(store, &start_later(&a, job), 0, "again").await;
    assert_eq!(read_sessions(store, &a, &job).await, ["again"]);
    store.forget_old_removals().await.unwrap();
    let late = store.append_part(&delayed, 0, b"late").await.unwrap();
    assert_eq!(late, AppendOutcome::Removed);
    assert_eq!(read_sessions(store, &a, &job).await, ["again"]);

    let delayed = RecordingSession::start(a.clone(), JobId::new());
    // The second removal finds nothing.
    for _ in 0..2 {
        store.remove_all_recordings_of_tenant(&a).await.unwrap();
        for job in [&job, &other_job] {
            assert_eq!(read_sessions(store, &a, job).await, Vec::<String>::new());
        }
        for (session, part) in [(&other, 1), (&delayed, 0)] {
            let late = store.append_part(session, part, b"late").await.unwrap();
            assert_eq!(late, AppendOutcome::Removed, "part {part}");
        }
        assert_eq!(read_sessions(store, &a, &delayed.job).await, Vec::<String>::new());
        assert_eq!(read_sessions(store, &b, &job).await, ["other tenant"]);
    }
    store.remove_all_recordings_of_tenant(&b).await.unwrap();
    assert_eq!(list_recordings(store).await.unwrap(), []);
}

/// Returns a session that starts after a removal, also by a clock that is a minute behind.
fn start_later(tenant: &TenantId, job: JobId) -> RecordingSession {
    let later = SystemTime::now() + Duration::from_secs(120);
    let since_epoch = later.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let time = Timestamp::from_unix(NoContext, since_epoch.as_secs(), 0);
    RecordingSession {
        id: Uuid::new_v7(time),
        ..RecordingSession::start(tenant.clone(), job)
    }
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

/// A call of a [`MemoryRecordingStore`] that can be kept from returning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordingStoreCall {
    /// [`RecordingStore::append_part`].
    Append,
    /// [`RecordingStore::remove_recordings`].
    Remove,
    /// [`RecordingStore::visit_recordings`].
    Visit,
}

/// Recordings in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryRecordingStore {
    recordings: Mutex<BTreeMap<(TenantId, JobId), MemoryRecording>>,
    /// The last removal of each job, and of all jobs of a tenant.
    removals: Mutex<BTreeMap<(TenantId, Option<JobId>), RecordingRemoval>>,
    append_interval: Duration,
    append_error: Mutex<Option<StorageError>>,
    stalled: Mutex<Option<RecordingStoreCall>>,
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

    /// Lets no such call return from now on.
    pub fn stall(&self, call: RecordingStoreCall) {
        *self.stalled.lock().unwrap() = Some(call);
    }

    async fn wait_if_stalled(&self, call: RecordingStoreCall) {
        let is_stalled = *self.stalled.lock().unwrap() == Some(call);
        if is_stalled {
            std::future::pending::<()>().await;
        }
    }

    fn is_removed(&self, session: &RecordingSession) -> bool {
        let removals = self.removals.lock().unwrap();
        [Some(session.job), None].into_iter().any(|job| {
            let removal = removals.get(&(session.tenant.clone(), job));
            removal.is_some_and(|removal| removal.applies_to(session.id))
        })
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
        self.wait_if_stalled(RecordingStoreCall::Append).await;
        if let Some(error) = self.append_error.lock().unwrap().clone() {
            return Err(error);
        }
        let mut recordings = self.recordings.lock().unwrap();
        if self.is_removed(session) {
            return Ok(AppendOutcome::Removed);
        }
        let (owner, name) = ((session.tenant.clone(), session.job), session.id.to_string());
        let stored = recordings.get(&owner);
        let is_stored = stored.is_some_and(|found| found.sessions.contains_key(&name));
        assert!(part == 0 || is_stored, "part {part} is appended to no session");
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
        self.wait_if_stalled(RecordingStoreCall::Remove).await;
        let mut recordings = self.recordings.lock().unwrap();
        let mut removals = self.removals.lock().unwrap();
        for job in jobs {
            removals.insert((tenant.clone(), Some(*job)), RecordingRemoval::now());
            recordings.remove(&(tenant.clone(), *job));
        }
        Ok(())
    }

    async fn remove_all_recordings_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let mut recordings = self.recordings.lock().unwrap();
        let removal = RecordingRemoval::now();
        self.removals
            .lock()
            .unwrap()
            .insert((tenant.clone(), None), removal);
        recordings.retain(|(owner, _), _| owner != tenant);
        Ok(())
    }

    async fn visit_recordings(
        &self,
        visit: &mut (dyn FnMut(StoredRecording) + Send),
    ) -> Result<(), StorageError> {
        self.wait_if_stalled(RecordingStoreCall::Visit).await;
        for ((tenant, job), found) in self.recordings.lock().unwrap().iter() {
            visit(StoredRecording {
                tenant: tenant.clone(),
                job: *job,
                bytes: found.sessions.values().map(|bytes| bytes.len() as u64).sum(),
                last_modified: found.last_modified,
            });
        }
        Ok(())
    }

    async fn forget_old_removals(&self) -> Result<(), StorageError> {
        Ok(())
    }
}
