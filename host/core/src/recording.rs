//! Recordings of jobs: the recorded policy calls, stored while the job runs and read for replays.
//!
//! A store keeps the bytes of each session apart. It knows neither their format nor whether a session is complete.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use uuid::{NoContext, Timestamp, Uuid};

use crate::error::StorageError;
use crate::id::{JobId, TenantId};
use crate::replay::RecordingRemover;

/// Maximum time from a recorded call to the append of its bytes. A writer drops older bytes, because a store forgets removals.
pub const MAX_APPEND_DELAY: Duration = Duration::from_secs(10 * 60);

/// Identifies the recording of one session of a job: from the start or the resumption of the job to its next end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordingSession {
    /// The owner of the job.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// Version 7 UUID, so that the sessions of a job sort by their start.
    pub id: Uuid,
}

impl RecordingSession {
    /// Creates a session that starts now.
    #[must_use]
    pub fn start(tenant: TenantId, job: JobId) -> Self {
        Self {
            tenant,
            job,
            id: Uuid::now_v7(),
        }
    }
}

/// A stored session of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// The name of the session among those of its job.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// The stored sessions of a job together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecording {
    /// The owner of the job.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// Size in bytes.
    pub bytes: u64,
    /// When bytes were last appended, by the clock of the store.
    pub last_modified: SystemTime,
}

/// A removal of recordings. It applies to the sessions that started before it, also to those of which nothing is stored yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordingRemoval(Uuid);

impl RecordingRemoval {
    /// Creates a removal that applies to all sessions of this process so far.
    #[must_use]
    pub fn now() -> Self {
        Self(Uuid::now_v7())
    }

    /// Creates a removal that also applies to sessions of other machines, whose clocks are ahead by at most `clock_difference`.
    #[must_use]
    pub fn of_all_machines(clock_difference: Duration) -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .saturating_add(clock_difference);
        let time = Timestamp::from_unix(NoContext, since_epoch.as_secs(), since_epoch.subsec_nanos());
        Self(Uuid::new_v7(time))
    }

    /// Whether a session with this id is removed.
    #[must_use]
    pub fn applies_to(self, session: Uuid) -> bool {
        session < self.0
    }
}

impl fmt::Display for RecordingRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RecordingRemoval {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

/// Whether bytes were appended to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The bytes are stored.
    Appended,
    /// The session was removed, so nothing is stored.
    Removed,
}

/// Stores recordings. Each tenant sees its own only.
#[async_trait]
pub trait RecordingStore: Send + Sync {
    /// Returns how long a writer collects bytes of a session before it appends them. Zero if an append is cheap.
    fn append_interval(&self) -> Duration;

    /// Appends bytes to a session. `part` counts the successful calls for this session, from 0. After an error the call can be repeated.
    ///
    /// The first part creates the session. If a removal applies to the session ([`RecordingRemoval`]), nothing is stored, on whichever
    /// machine it was removed. A store knows a removal for longer than [`MAX_APPEND_DELAY`].
    async fn append_part(
        &self,
        session: &RecordingSession,
        part: u32,
        bytes: &[u8],
    ) -> Result<AppendOutcome, StorageError>;

    /// Lists the sessions of a job by their start; empty if the job has no recording.
    async fn list_sessions(&self, tenant: &TenantId, job: &JobId)
    -> Result<Vec<StoredSession>, StorageError>;

    /// Reads all parts of a session in their order; `None` if it does not exist.
    async fn read_session(
        &self,
        tenant: &TenantId,
        job: &JobId,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StorageError>;

    /// Removes the sessions of these jobs that have started. It is no error if a job has none.
    async fn remove_recordings(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<(), StorageError>;

    /// Removes all sessions of a tenant that have started. It is no error if there are none.
    async fn remove_all_recordings_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError>;

    /// Calls `visit` with the recordings of all tenants, in any order, while they are listed. A recording can be visited in several pieces
    /// if the server does not list its parts together.
    async fn visit_recordings(
        &self,
        visit: &mut (dyn FnMut(StoredRecording) + Send),
    ) -> Result<(), StorageError>;

    /// Forgets the removals that no append can meet any more, and removes parts that have arrived late all the same.
    async fn forget_old_removals(&self) -> Result<(), StorageError>;
}

/// Returns the recordings of all tenants.
pub async fn list_recordings(store: &dyn RecordingStore) -> Result<Vec<StoredRecording>, StorageError> {
    let mut found = Vec::new();
    store
        .visit_recordings(&mut |recording| found.push(recording))
        .await?;
    Ok(found)
}

#[async_trait]
impl<S: RecordingStore + ?Sized> RecordingRemover for Arc<S> {
    async fn remove_job_recordings(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<(), StorageError> {
        self.remove_recordings(tenant, jobs).await
    }

    async fn remove_tenant_recordings(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.remove_all_recordings_of_tenant(tenant).await
    }
}
