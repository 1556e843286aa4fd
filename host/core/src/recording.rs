//! Recordings of jobs: the recorded policy calls, stored while the job runs and read for replays.
//!
//! A store keeps the bytes of each session apart. It knows neither their format nor whether a session is complete.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use uuid::Uuid;

use crate::error::StorageError;
use crate::id::{JobId, TenantId};
use crate::replay::RecordingRemover;

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

/// Whether bytes were appended to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The bytes are stored.
    Appended,
    /// The session was removed after its first part, so nothing is stored.
    Removed,
}

/// Stores recordings. Each tenant sees its own only.
#[async_trait]
pub trait RecordingStore: Send + Sync {
    /// Returns how long a writer collects bytes of a session before it appends them. Zero if an append is cheap.
    fn append_interval(&self) -> Duration;

    /// Appends bytes to a session. `part` counts the successful calls for this session, from 0. After an error the call can be repeated.
    ///
    /// The first part creates the session. If the session was removed since then, nothing is stored, on whichever machine it was
    /// removed.
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

    /// Removes the recordings of these jobs. It is no error if a job has none.
    async fn remove_recordings(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<(), StorageError>;

    /// Removes all recordings of a tenant. It is no error if there are none.
    async fn remove_all_recordings_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError>;

    /// Lists the recordings of all tenants, in any order.
    async fn list_recordings(&self) -> Result<Vec<StoredRecording>, StorageError>;
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
