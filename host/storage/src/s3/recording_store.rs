//! Recordings as objects: `<prefix>/recordings/<tenant>/<job>/<session>.<part>.calls`.
//!
//! Objects cannot be appended to, so each part is an object. Recordings are read rarely and are small, so they are not cached.
//!
//! A removal on one node must also stop the node that writes a session, whose next part may already be on its way, or wait for the server
//! to be available. So a removal first stores an object that names it, `<prefix>/removed-recordings/<tenant>[/<job>]`, then deletes the
//! parts and lists again until nothing is left. A writer stores a part and then reads the removals of its job and tenant. Either the writer
//! finds the removal, or the removal finds the part. The objects of removals are deleted after a day, with parts that the server has stored
//! late, after their writer gave the request up.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use weir_core::recording::{
    AppendOutcome, RecordingRemoval, RecordingSession, RecordingStore, StoredRecording, StoredSession,
};
use weir_core::{JobId, StorageError, TenantId};

use super::bucket::{ListedObject, MAX_KEYS_PER_DELETION, S3Bucket};
use crate::recording_keys::{
    GroupByJob, RECORDINGS, REMOVALS, StoredPart, group_by_session, is_removed, job_prefix, keys_of_session,
    part_key, prefix_of_removed, removal_key,
};

/// Time in which the calls of a session are collected for one object. A killed node loses at most the calls of this time.
const APPEND_INTERVAL: Duration = Duration::from_secs(5);

/// Time for which a removal is known. Writers drop bytes after [`MAX_APPEND_DELAY`](weir_core::recording::MAX_APPEND_DELAY), which is much
/// shorter, so the clocks need not agree.
const REMOVAL_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How far the clock of a writer may be ahead of the clock of a node that removes its session.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);
/// Requests for one operation at the same time.
const MAX_CONCURRENT_REQUESTS: usize = 8;

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
        Ok(objects.map(to_stored_part).collect())
    }

    async fn read_removal(&self, key: &str, what: &str) -> Result<Option<RecordingRemoval>, StorageError> {
        let Some(bytes) = self.bucket.get_bytes(key, what).await? else {
            return Ok(None);
        };
        let removal = std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.parse().ok());
        removal.map(Some).ok_or_else(|| StorageError::Damaged {
            what: what.to_owned(),
            reason: format!("the object {key} is not the id of a removal"),
        })
    }

    /// Whether a removal applies to a session.
    async fn is_session_removed(&self, session: &RecordingSession, what: &str) -> Result<bool, StorageError> {
        let of_job = removal_key(&session.tenant, Some(&session.job));
        let of_tenant = removal_key(&session.tenant, None);
        let (of_job, of_tenant) = tokio::try_join!(
            self.read_removal(&of_job, what),
            self.read_removal(&of_tenant, what)
        )?;
        let mut removals = [of_job, of_tenant].into_iter().flatten();
        Ok(removals.any(|removal| removal.applies_to(session.id)))
    }

    /// Keeps all nodes from storing more of the sessions that have started.
    async fn store_removal(
        &self,
        tenant: &TenantId,
        job: Option<&JobId>,
        what: &str,
    ) -> Result<(), StorageError> {
        let removal = RecordingRemoval::of_all_machines(MAX_CLOCK_DIFFERENCE).to_string();
        let key = removal_key(tenant, job);
        self.bucket.put_bytes(&key, what, removal.as_bytes()).await
    }

    /// Deletes the parts that a removal applies to.
    async fn remove_late_parts(&self, removal_key: &str, what: &str) -> Result<(), StorageError> {
        let Some(prefix) = prefix_of_removed(removal_key) else {
            return Ok(());
        };
        let Some(removal) = self.read_removal(removal_key, what).await? else {
            return Ok(());
        };
        let parts = self.list_parts(&prefix, what).await?.into_iter();
        let late = parts.map(|part| part.key).filter(|key| is_removed(key, removal));
        self.delete_all(&late.collect::<Vec<_>>(), what).await
    }

    /// Deletes objects in batches.
    async fn delete_all(&self, keys: &[String], what: &str) -> Result<(), StorageError> {
        for keys in keys.chunks(MAX_KEYS_PER_DELETION) {
            self.bucket.delete_objects(keys.to_vec(), what).await?;
        }
        Ok(())
    }

    /// Deletes all objects whose keys start with `prefix`, also those that a writer stores meanwhile.
    async fn remove_prefix(&self, prefix: &str, what: &str) -> Result<(), StorageError> {
        loop {
            let objects = self.bucket.list_objects(prefix, what).await?;
            if objects.is_empty() {
                return Ok(());
            }
            let keys: Vec<_> = objects.into_iter().map(|object| object.key).collect();
            self.delete_all(&keys, what).await?;
        }
    }
}

fn to_stored_part(object: ListedObject) -> StoredPart {
    StoredPart {
        key: object.key,
        bytes: object.bytes,
        last_modified: object.last_modified,
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
        if self.is_session_removed(session, &what).await? {
            self.bucket.delete_objects(vec![key], &what).await?;
            return Ok(AppendOutcome::Removed);
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
        let keys = keys_of_session(parts, name);
        let read_part = async |key: String| self.bucket.get_bytes(&key, &what).await;
        // At once, because a long session has many parts; in order, because they are joined.
        let session = stream::iter(keys)
            .map(read_part)
            .buffered(MAX_CONCURRENT_REQUESTS)
            .try_fold(None, async |mut session: Option<Vec<u8>>, part| {
                if let Some(bytes) = part {
                    session.get_or_insert_default().extend(bytes);
                }
                Ok(session)
            });
        session.await
    }

    async fn remove_recordings(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<(), StorageError> {
        let remove = async |job: &JobId| {
            let what = recording_name(job);
            self.store_removal(tenant, Some(job), &what).await?;
            self.remove_prefix(&job_prefix(tenant, job), &what).await
        };
        stream::iter(jobs)
            .map(Ok)
            .try_for_each_concurrent(MAX_CONCURRENT_REQUESTS, remove)
            .await
    }

    async fn remove_all_recordings_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let what = "the recordings of a tenant";
        self.store_removal(tenant, None, what).await?;
        self.remove_prefix(&format!("{RECORDINGS}/{tenant}/"), what).await
    }

    async fn visit_recordings(
        &self,
        visit: &mut (dyn FnMut(StoredRecording) + Send),
    ) -> Result<(), StorageError> {
        let mut group = GroupByJob::default();
        let add = |object| {
            if let Some(recording) = group.add_part(&to_stored_part(object)) {
                visit(recording);
            }
        };
        self.bucket
            .visit_objects(&format!("{RECORDINGS}/"), "the recordings", add)
            .await?;
        if let Some(recording) = group.take_last() {
            visit(recording);
        }
        Ok(())
    }

    async fn forget_old_removals(&self) -> Result<(), StorageError> {
        let (what, now) = ("the removals of recordings", SystemTime::now());
        let mut old = Vec::new();
        let add = |object: ListedObject| {
            let age = now.duration_since(object.last_modified).unwrap_or_default();
            if age > REMOVAL_LIFETIME {
                old.push(object.key);
            }
        };
        self.bucket
            .visit_objects(&format!("{REMOVALS}/"), what, add)
            .await?;
        for keys in old.chunks(MAX_KEYS_PER_DELETION) {
            stream::iter(keys)
                .map(Ok)
                .try_for_each_concurrent(MAX_CONCURRENT_REQUESTS, |key| self.remove_late_parts(key, what))
                .await?;
            self.bucket.delete_objects(keys.to_vec(), what).await?;
        }
        Ok(())
    }
}
