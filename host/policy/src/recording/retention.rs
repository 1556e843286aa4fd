//! Removes recordings that are too old or take too much space.
//!
//! The age of a recording is the time since its last call. If all recordings together exceed the byte limit, the oldest are
//! removed first, of any tenant. Recordings serve to test changes, and the latest jobs are the most useful for that.
//!
//! If several nodes share a store, each removes the recordings of all. Removing one twice is no error.

use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use weir_core::recording::{RecordingStore, StoredRecording};
use weir_core::{JobId, StorageError, TenantId};

use super::recording_in_progress::OpenSessions;

const SECONDS_PER_DAY: u64 = 86_400;
/// Interval between two runs.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);
/// Recordings that one listing collects. They take some megabytes.
const MAX_CANDIDATES: usize = 10_000;

/// How long recordings are kept, and how many bytes of them. A value of 0 means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Days since the job's last call.
    pub max_days: u32,
    /// Bytes of all tenants' recordings.
    pub max_bytes: u64,
}

impl Retention {
    fn max_age(self) -> Option<Duration> {
        (self.max_days > 0).then(|| Duration::from_secs(u64::from(self.max_days) * SECONDS_PER_DAY))
    }

    /// Explains why a job's recording is gone, if the job is older than the limit. The age is taken from the job id, which
    /// contains the time of its creation.
    pub fn explain_expiry(self, job: &JobId) -> Option<String> {
        let (seconds, _) = job.0.get_timestamp()?.to_unix();
        let began = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        let age = began.elapsed().ok()?;
        (age > self.max_age()?).then(|| {
            format!(
                "it ran {} days ago, and policy.recording_retention_days is {}",
                age.as_secs() / SECONDS_PER_DAY,
                self.max_days
            )
        })
    }
}

/// A recording as a candidate for removal. Sorts by age, the oldest first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    last_modified: SystemTime,
    owner: (TenantId, JobId),
    bytes: u64,
}

/// Removes the expired recordings of a store, except those of `list_open_jobs`, which are still being written. Returns the number of
/// removed recordings. Holds at most `max_candidates` recordings in memory, and lists again if more have expired.
async fn remove_old_and_excess_recordings(
    store: &dyn RecordingStore,
    retention: Retention,
    list_open_jobs: impl Fn() -> HashSet<(TenantId, JobId)>,
    now: SystemTime,
    max_candidates: usize,
) -> Result<usize, StorageError> {
    let mut removed = 0;
    if retention == Retention::default() {
        return Ok(removed);
    }
    loop {
        let open = list_open_jobs();
        let (mut oldest, mut total_bytes, mut has_more) = (BinaryHeap::new(), 0_u64, false);
        let mut add = |recording: StoredRecording| {
            total_bytes = total_bytes.saturating_add(recording.bytes);
            let owner = (recording.tenant, recording.job);
            if open.contains(&owner) {
                return;
            }
            oldest.push(Candidate {
                last_modified: recording.last_modified,
                owner,
                bytes: recording.bytes,
            });
            if oldest.len() > max_candidates {
                has_more = true;
                oldest.pop();
            }
        };
        store.visit_recordings(&mut add).await?;
        for candidate in oldest.into_sorted_vec() {
            let age = now.duration_since(candidate.last_modified).unwrap_or_default();
            let is_too_old = retention.max_age().is_some_and(|most| age > most);
            let is_over_byte_limit = retention.max_bytes > 0 && total_bytes > retention.max_bytes;
            if !(is_too_old || is_over_byte_limit) {
                return Ok(removed);
            }
            let (tenant, job) = candidate.owner;
            store.remove_recordings(&tenant, &[job]).await?;
            total_bytes = total_bytes.saturating_sub(candidate.bytes);
            removed += 1;
        }
        if !has_more {
            return Ok(removed);
        }
    }
}

/// Removes expired recordings in a task beside the thread that stores recordings.
pub(super) struct RecordingSweeper {
    pub(super) store: Arc<dyn RecordingStore>,
    pub(super) retention: Retention,
    pub(super) open_sessions: OpenSessions,
    /// Starts a run before its time.
    pub(super) is_due: Arc<Notify>,
}

impl RecordingSweeper {
    pub(super) async fn run(self) {
        loop {
            if let Err(error) = self.remove_expired_recordings().await {
                tracing::warn!(%error, "cannot remove expired recordings");
            }
            tokio::select! {
                () = tokio::time::sleep(SWEEP_INTERVAL) => {}
                () = self.is_due.notified() => {}
            }
        }
    }

    async fn remove_expired_recordings(&self) -> Result<(), StorageError> {
        self.store.forget_old_removals().await?;
        let removed = remove_old_and_excess_recordings(
            &*self.store,
            self.retention,
            || self.open_sessions.list_jobs(),
            SystemTime::now(),
            MAX_CANDIDATES,
        );
        let removed = removed.await?;
        if removed > 0 {
            tracing::info!(
                removed,
                "removed recordings over the limits policy.recording_retention_days and policy.max_recording_bytes"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use weir_conformance::MemoryRecordingStore;

    use super::*;

    /// The tenants of sample recordings of 1000 bytes, and their ages in days.
    const SAMPLES: [(&str, u64); 4] = [("a", 40), ("a", 10), ("b", 31), ("b", 1)];

    struct Samples {
        store: MemoryRecordingStore,
        recordings: Vec<(TenantId, JobId)>,
        now: SystemTime,
    }

    impl Samples {
        fn new() -> Self {
            let (store, now) = (MemoryRecordingStore::default(), SystemTime::now());
            let recordings = SAMPLES.map(|(tenant, days)| {
                let (tenant, job) = (tenant.parse().unwrap(), JobId::new());
                let modified = now - Duration::from_secs(days * SECONDS_PER_DAY);
                store.insert(&tenant, &job, vec![0; 1000], modified);
                (tenant, job)
            });
            Self {
                store,
                recordings: recordings.into(),
                now,
            }
        }

        /// Applies the limits. Returns the number of removed recordings and which are left.
        async fn sweep(&self, max_days: u32, max_bytes: u64, open: &[usize]) -> (usize, Vec<usize>) {
            let list_open_jobs = || open.iter().map(|&n| self.recordings[n].clone()).collect();
            let retention = Retention { max_days, max_bytes };
            // Fewer candidates than have expired.
            let swept = remove_old_and_excess_recordings(&self.store, retention, list_open_jobs, self.now, 2);
            let is_left = |n: &usize| {
                let (tenant, job) = &self.recordings[*n];
                !self.store.sessions(tenant, job).is_empty()
            };
            (swept.await.unwrap(), (0..SAMPLES.len()).filter(is_left).collect())
        }
    }

    #[tokio::test]
    async fn recordings_over_max_days_are_removed() {
        assert_eq!(Samples::new().sweep(30, 0, &[]).await, (2, vec![1, 3]));
    }

    #[tokio::test]
    async fn oldest_recordings_are_removed_over_max_bytes() {
        assert_eq!(Samples::new().sweep(0, 1500, &[]).await, (3, vec![3]));
    }

    #[tokio::test]
    async fn a_recording_being_written_is_not_removed() {
        assert_eq!(Samples::new().sweep(30, 1000, &[0]).await, (3, vec![0]));
    }

    #[tokio::test]
    async fn without_limits_nothing_is_removed() {
        assert_eq!(Samples::new().sweep(0, 0, &[]).await, (0, vec![0, 1, 2, 3]));
    }

    #[test]
    fn expiry_is_explained_by_the_age_of_the_job_id() {
        let retention = Retention {
            max_days: 30,
            max_bytes: 0,
        };
        let old: JobId = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap();
        let reason = retention.explain_expiry(&old).unwrap();
        assert!(
            reason.contains("policy.recording_retention_days is 30"),
            "{reason}"
        );
        assert_eq!(retention.explain_expiry(&JobId::new()), None);
        assert_eq!(Retention::default().explain_expiry(&old), None);
    }
}
