//! A cache of the progress of jobs.
//!
//! The progress of a job follows from its events, and a job may have a hundred thousand of them. So the cache keeps the progress of
//! the jobs that were requested last. The next request reads only the events that were added since.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use weir_core::ports::Ledger;
use weir_core::{JobId, StorageError, TenantId};

use super::progress::JobProgress;

/// The maximum number of cached jobs.
const MAX_CACHED_JOBS: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// The number of events in one read.
const EVENTS_PER_READ: usize = 1000;

/// The progress of the jobs that were requested last.
pub struct ProgressCache(Mutex<LruCache<JobId, Arc<tokio::sync::Mutex<JobProgress>>>>);

impl Default for ProgressCache {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_CACHED_JOBS)))
    }
}

impl ProgressCache {
    /// Returns the progress of a job, after reading the events that were added since the last call.
    pub async fn load_progress(
        &self,
        ledger: &dyn Ledger,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<JobProgress, StorageError> {
        let entry = self.find_or_insert_entry(job);
        // Concurrent calls for the same job wait for this read instead of reading the same events.
        let mut progress = entry.lock().await;
        while !progress.ended {
            let events = ledger
                .list_job_events(tenant, job, progress.last_seq, EVENTS_PER_READ)
                .await?;
            events.iter().for_each(|event| progress.apply_event(event));
            if events.len() < EVENTS_PER_READ {
                break;
            }
        }
        Ok(progress.clone())
    }

    fn find_or_insert_entry(&self, job: &JobId) -> Arc<tokio::sync::Mutex<JobProgress>> {
        Arc::clone(self.0.lock().get_or_insert(*job, Arc::default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_cached_jobs_is_bounded() {
        let cache = ProgressCache::default();
        let first = JobId::new();
        let entry = cache.find_or_insert_entry(&first);
        for _ in 0..MAX_CACHED_JOBS.get() * 2 {
            cache.find_or_insert_entry(&JobId::new());
            cache.find_or_insert_entry(&first);
        }
        assert_eq!(cache.0.lock().len(), MAX_CACHED_JOBS.get());
        assert!(
            Arc::ptr_eq(&entry, &cache.find_or_insert_entry(&first)),
            "the job requested last stays cached"
        );
    }
}
