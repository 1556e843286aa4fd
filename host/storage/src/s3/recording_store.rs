//! Recordings as objects: `<prefix>/recordings/<tenant>/<job>/<session>.<part>.calls`.
//!
//! Objects cannot be appended to, so each part is an object. Recordings are read rarely and are small, so they are not cached.
//!
//! A removal on one node must also stop the node that writes the session, whose next part may already be on its way. So the first part
//! stands for the session: a writer stores a part and then looks whether the first still exists; a removal deletes what it finds and
//! lists again until nothing is left. Either the writer finds that the first part is gone, or the removal finds the new part.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use weir_core::recording::{AppendOutcome, RecordingSession, RecordingStore, StoredRecording, StoredSession};
use weir_core::{JobId, StorageError, TenantId};

use super::bucket::{ListedObject, MAX_KEYS_PER_DELETION, S3Bucket};
use crate::recording_keys::{
    RECORDINGS, StoredPart, group_by_job, group_by_session, job_prefix, keys_of_session, part_key,
};

/// Time in which the calls of a session are collected for one object. A killed node loses at most the calls of this time.
const APPEND_INTERVAL: Duration = Duration::from_secs(5);

/// Implements [`RecordingStore`] with objects.
#[derive(Clone)]
pub struct S3RecordingStore {
    bucket: Arc<S3Bucket>,
}

impl S3RecordingStore {
    /// Opens the recordings in a bucket.
    #[must_use]
    pub const fn new(bucket: Arc<S3Bucket>) -> Self {
        Self { bucket }
    }

    async fn list_parts(&self, prefix: &str, what: &str) -> Result<Vec<StoredPart>, StorageError> {
        let objects = self.bucket.list_objects(prefix, what).await?.into_iter();
        let to_part = |object: ListedObject| StoredPart {
            key: object.key,
            bytes: object.bytes,
            last_modified: object.last_modified,
        };
        Ok(objects.map(to_part).collect())
    }

    /// Deletes all objects whose keys start with `prefix`, also those that a writer stores meanwhile.
    async fn remove_prefix(&self, prefix: &str, what: &str) -> Result<(), StorageError> {
        loop {
            let objects = self.bucket.list_objects(prefix, what).await?;
            if objects.is_empty() {
                return Ok(());
            }
            for objects in objects.chunks(MAX_KEYS_PER_DELETION) {
                let keys = objects.iter().map(|object| object.key.clone()).collect();
                self.bucket.delete_objects(keys, what).await?;
            }
        }
    }
}

fn recording_name(job: &JobId) -> String {
    format!("the recording of job {job}")
}

#[async_trait]
impl RecordingStore for S3RecordingStore {
    fn append_interval(&self) -> Duration {
        APPEND_INTERVAL
    }

    async fn append_part(
        &self,
        session: &RecordingSession,
        part: u32,
        bytes: &[u8],
    ) -> Result<AppendOutcome, StorageError> {
        let (key, what) = (part_key(session, part), recording_name(&session.job));
        self.bucket.put_bytes(&key, &what, bytes).await?;
        if part > 0 {
            let first = part_key(session, 0);
            if self.bucket.object_size(&first, &what).await?.is_none() {
                self.bucket.delete_objects(vec![key], &what).await?;
                return Ok(AppendOutcome::Removed);
            }
        }
        Ok(AppendOutcome::Appended)
    }

    async fn list_sessions(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Vec<StoredSession>, StorageError> {
        let parts = self
            .list_parts(&job_prefix(tenant, job), &recording_name(job))
            .await?;
        Ok(group_by_session(&parts))
    }

    async fn read_session(
        &self,
        tenant: &TenantId,
        job: &JobId,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StorageError> {
        let what = recording_name(job);
        let parts = self.list_parts(&job_prefix(tenant, job), &what).await?;
        let mut session = None;
        for key in keys_of_session(parts, name) {
            if let Some(bytes) = self.bucket.get_bytes(&key, &what).await? {
                session.get_or_insert_with(Vec::new).extend(bytes);
            }
        }
        Ok(session)
    }

    async fn remove_recordings(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<(), StorageError> {
        for job in jobs {
            self.remove_prefix(&job_prefix(tenant, job), &recording_name(job))
                .await?;
        }
        Ok(())
    }

    async fn remove_all_recordings_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let prefix = format!("{RECORDINGS}/{tenant}/");
        self.remove_prefix(&prefix, "the recordings of a tenant").await
    }

    async fn list_recordings(&self) -> Result<Vec<StoredRecording>, StorageError> {
        let parts = self
            .list_parts(&format!("{RECORDINGS}/"), "the recordings")
            .await?;
        Ok(group_by_job(&parts))
    }
}
