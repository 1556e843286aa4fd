//! A cache of the progress of jobs.
//!
//! The progress of a job follows from its events, and a job may have a hundred thousand of them. So the cache keeps the progress of
//! the jobs that were requested last. The next request reads only the events that were added since.
//!
//! A full cache evicts from the tenant with the most bytes the job whose last request is the oldest. So a tenant that polls many or
//! large jobs does not evict the jobs of others.

use std::collections::HashMap;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use weir_core::event::Event;
use weir_core::job_request::{JobRequest, JobRequestStore, JobSnapshot};
use weir_core::ledger::JobRecord;
use weir_core::ports::Ledger;
use weir_core::rollout::RevisionAssignment;
use weir_core::{JobId, StorageError, TenantId};

use super::progress::JobProgress;

/// The maximum bytes of all cached progress. A job with one document takes about 1 KiB.
const MAX_CACHED_BYTES: usize = 64 << 20;
/// Estimated bytes of an entry beside its progress.
const ENTRY_OVERHEAD_BYTES: usize = 256;
/// The number of events in one read.
const EVENTS_PER_READ: usize = 1000;

/// A job with its progress.
#[derive(Debug, Clone)]
pub struct JobWithProgress {
    /// Its record.
    pub record: JobRecord,
    /// Its request; `None` for a job of `weir run`.
    pub request: Option<JobRequest>,
    /// The revision that it was assigned, if it has one.
    pub assigned_revision: Option<RevisionAssignment>,
    /// The progress of its documents.
    pub progress: JobProgress,
}

type SharedProgress = Arc<tokio::sync::Mutex<JobProgress>>;

struct CacheEntry {
    progress: SharedProgress,
    bytes: usize,
}

struct TenantEntries {
    jobs: LruCache<JobId, CacheEntry>,
    bytes: usize,
}

impl Default for TenantEntries {
    fn default() -> Self {
        Self {
            jobs: LruCache::unbounded(),
            bytes: 0,
        }
    }
}

struct CacheState {
    max_bytes: usize,
    tenants: HashMap<TenantId, TenantEntries>,
    bytes: usize,
}

/// The progress of the jobs that were requested last.
pub struct ProgressCache(Mutex<CacheState>);

impl Default for ProgressCache {
    fn default() -> Self {
        Self::with_max_bytes(MAX_CACHED_BYTES)
    }
}

impl ProgressCache {
    fn with_max_bytes(max_bytes: usize) -> Self {
        Self(Mutex::new(CacheState {
            max_bytes,
            tenants: HashMap::new(),
            bytes: 0,
        }))
    }

    /// Returns a job with its progress, after reading the events that were added since the last call; `None` if there is no such job. One
    /// read of the store, unless more than a thousand events were added.
    pub async fn load_job(
        &self,
        job_requests: &dyn JobRequestStore,
        ledger: &dyn Ledger,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Option<JobWithProgress>, StorageError> {
        let entry = self.find_or_insert_entry(tenant, job);
        // Concurrent calls for the same job wait for this read instead of reading the same events.
        let mut progress = entry.lock().await;
        let limit = if progress.ended { 0 } else { EVENTS_PER_READ };
        let snapshot = job_requests
            .read_job_snapshot(tenant, job, progress.last_seq, limit)
            .await?;
        let Some(JobSnapshot {
            record,
            request,
            assigned_revision,
            events,
        }) = snapshot
        else {
            self.remove_entry(tenant, job);
            return Ok(None);
        };
        self.apply_events(tenant, job, &entry, &mut progress, &events);
        if !progress.ended && events.len() == EVENTS_PER_READ {
            self.read_new_events(ledger, tenant, job, &entry, &mut progress)
                .await?;
        }
        Ok(Some(JobWithProgress {
            record,
            request,
            assigned_revision,
            progress: progress.clone(),
        }))
    }

    /// Returns the progress of a job, after reading the events that were added since the last call.
    pub async fn load_progress(
        &self,
        ledger: &dyn Ledger,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<JobProgress, StorageError> {
        let entry = self.find_or_insert_entry(tenant, job);
        let mut progress = entry.lock().await;
        self.read_new_events(ledger, tenant, job, &entry, &mut progress)
            .await?;
        Ok(progress.clone())
    }

    async fn read_new_events(
        &self,
        ledger: &dyn Ledger,
        tenant: &TenantId,
        job: &JobId,
        entry: &SharedProgress,
        progress: &mut JobProgress,
    ) -> Result<(), StorageError> {
        while !progress.ended {
            let events = ledger
                .list_job_events(tenant, job, progress.last_seq, EVENTS_PER_READ)
                .await?;
            self.apply_events(tenant, job, entry, progress, &events);
            if events.len() < EVENTS_PER_READ {
                break;
            }
        }
        Ok(())
    }

    fn apply_events(
        &self,
        tenant: &TenantId,
        job: &JobId,
        entry: &SharedProgress,
        progress: &mut JobProgress,
        events: &[Event],
    ) {
        if events.is_empty() {
            return;
        }
        events.iter().for_each(|event| progress.apply_event(event));
        let bytes = ENTRY_OVERHEAD_BYTES + progress.estimated_bytes();
        self.0.lock().set_entry_bytes(tenant, job, entry, bytes);
    }

    fn find_or_insert_entry(&self, tenant: &TenantId, job: &JobId) -> SharedProgress {
        let mut state = self.0.lock();
        if let Some(entry) = state.tenants.get_mut(tenant).and_then(|of| of.jobs.get(job)) {
            return Arc::clone(&entry.progress);
        }
        let progress = SharedProgress::default();
        let entry = CacheEntry {
            progress: Arc::clone(&progress),
            bytes: 0,
        };
        let of_tenant = state.tenants.entry(tenant.clone()).or_default();
        of_tenant.jobs.put(*job, entry);
        let bytes = ENTRY_OVERHEAD_BYTES + size_of::<JobProgress>();
        state.set_entry_bytes(tenant, job, &progress, bytes);
        progress
    }

    fn remove_entry(&self, tenant: &TenantId, job: &JobId) {
        self.0.lock().remove_entry(tenant, |jobs| jobs.pop(job));
    }
}

impl CacheState {
    /// Records the size of an entry, unless it was evicted meanwhile, and evicts others if the cache is too large.
    fn set_entry_bytes(&mut self, tenant: &TenantId, job: &JobId, progress: &SharedProgress, bytes: usize) {
        let Some(of_tenant) = self.tenants.get_mut(tenant) else {
            return;
        };
        let Some(entry) = of_tenant.jobs.peek_mut(job) else {
            return;
        };
        if !Arc::ptr_eq(&entry.progress, progress) {
            return;
        }
        let before = std::mem::replace(&mut entry.bytes, bytes);
        of_tenant.bytes = of_tenant.bytes - before + bytes;
        self.bytes = self.bytes - before + bytes;
        if self.bytes > self.max_bytes {
            self.evict_entries();
        }
    }

    /// Evicts more than needed, so that the tenants are compared rarely.
    fn evict_entries(&mut self) {
        let goal = self.max_bytes - self.max_bytes / 8;
        while self.bytes > goal {
            let largest = self.tenants.iter().max_by_key(|(_, of_tenant)| of_tenant.bytes);
            let Some((tenant, bytes)) = largest.map(|(tenant, of_tenant)| (tenant.clone(), of_tenant.bytes))
            else {
                return;
            };
            let tenant_goal = bytes - bytes / 8;
            let mut tenant_bytes = bytes;
            while self.bytes > goal && tenant_bytes >= tenant_goal {
                let Some(evicted) = self.remove_entry(&tenant, |jobs| Some(jobs.pop_lru()?.1)) else {
                    return;
                };
                tenant_bytes -= evicted;
            }
        }
    }

    /// Removes the entry that `take` takes from those of the tenant. Returns its bytes; `None` if there is none.
    fn remove_entry(
        &mut self,
        tenant: &TenantId,
        take: impl FnOnce(&mut LruCache<JobId, CacheEntry>) -> Option<CacheEntry>,
    ) -> Option<usize> {
        let of_tenant = self.tenants.get_mut(tenant)?;
        let removed = take(&mut of_tenant.jobs)?.bytes;
        of_tenant.bytes -= removed;
        self.bytes -= removed;
        if of_tenant.jobs.is_empty() {
            self.tenants.remove(tenant);
        }
        Some(removed)
    }
}

#[cfg(test)]
mod tests {
    use weir_core::event::EventKind;
    use weir_core::ledger::LedgerEntry;

    use super::*;
    use crate::testing::FakeStore;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    fn make_event(job: JobId, seq: u64, kind: EventKind) -> Event {
        Event {
            seq,
            job,
            document: None,
            since_job_created_millis: seq,
            kind,
        }
    }

    fn page_done(job: JobId, seq: u64) -> Event {
        let kind = EventKind::PageDone {
            page: 1,
            searchable: true,
            passages: 1,
        };
        make_event(job, seq, kind)
    }

    async fn commit(store: &FakeStore, tenant: &TenantId, events: impl IntoIterator<Item = Event>) {
        let events = events.into_iter();
        let entries = events.map(|event| LedgerEntry::Event(tenant.clone(), event));
        store.commit_entries(entries.collect()).await.unwrap();
    }

    fn cached_jobs(cache: &ProgressCache, name: &str) -> usize {
        let state = cache.0.lock();
        let of_tenant = state.tenants.get(&tenant(name));
        of_tenant.map_or(0, |of_tenant| of_tenant.jobs.len())
    }

    #[tokio::test]
    async fn polling_a_thousand_running_jobs_reads_each_event_once() {
        const EVENTS: u64 = 5;
        let (store, cache, t) = (FakeStore::default(), ProgressCache::default(), tenant("t"));
        let jobs: Vec<JobId> = (0..1000).map(|_| JobId::new()).collect();
        for job in &jobs {
            commit(&store, &t, (1..=EVENTS).map(|seq| page_done(*job, seq))).await;
        }
        let poll_all = async || {
            for job in &jobs {
                cache.load_progress(&store, &t, job).await.unwrap();
            }
        };
        poll_all().await;
        let first_reads = store.read_events();
        assert_eq!(first_reads, jobs.len() * EVENTS as usize);
        poll_all().await;
        assert_eq!(store.read_events(), first_reads, "no event was added");
        for job in &jobs {
            commit(&store, &t, [page_done(*job, EVENTS + 1)]).await;
        }
        poll_all().await;
        assert_eq!(store.read_events(), first_reads + jobs.len());
    }

    #[tokio::test]
    async fn events_of_ended_and_unknown_jobs_are_not_read_again() {
        let (store, cache, t) = (FakeStore::default(), ProgressCache::default(), tenant("t"));
        let job = JobId::new();
        let found = cache.load_job(&store, &store, &t, &job).await.unwrap();
        assert!(found.is_none());
        assert_eq!(cached_jobs(&cache, "t"), 0, "an unknown job is not cached");
        let record = JobRecord {
            id: job,
            tenant: t.clone(),
            pipeline: "default".into(),
            revision: weir_core::RevisionId::from_content(b"r"),
            state: weir_core::ledger::JobState::Done,
            created_millis: 1,
        };
        store
            .commit_entries(vec![LedgerEntry::Job(record.clone())])
            .await
            .unwrap();
        // More events than one read returns.
        let last = EVENTS_PER_READ as u64 + 5;
        commit(&store, &t, (1..last).map(|seq| page_done(job, seq))).await;
        let ended = EventKind::JobEnded {
            state: weir_core::ledger::JobState::Done,
            stages: Vec::new(),
        };
        commit(&store, &t, [make_event(job, last, ended)]).await;
        for _ in 0..2 {
            let found = cache.load_job(&store, &store, &t, &job).await.unwrap().unwrap();
            assert_eq!((found.record, found.progress.last_seq), (record.clone(), last));
        }
        assert_eq!(store.event_reads(), 2, "the second call reads no events");
    }

    #[test]
    fn full_cache_evicts_the_oldest_jobs_of_the_largest_tenant() {
        let entry_bytes = ENTRY_OVERHEAD_BYTES + size_of::<JobProgress>();
        let cache = ProgressCache::with_max_bytes(entry_bytes * 100);
        let [small, large] = ["small", "large"].map(tenant);
        let first = JobId::new();
        let of_small = cache.find_or_insert_entry(&small, &first);
        let polled = JobId::new();
        let of_large = cache.find_or_insert_entry(&large, &polled);
        let forgotten = JobId::new();
        cache.find_or_insert_entry(&large, &forgotten);
        for _ in 0..1000 {
            cache.find_or_insert_entry(&large, &JobId::new());
            cache.find_or_insert_entry(&large, &polled);
            let state = cache.0.lock();
            assert!(state.bytes <= state.max_bytes);
            let bytes: usize = state.tenants.values().map(|of_tenant| of_tenant.bytes).sum();
            assert_eq!(state.bytes, bytes);
        }
        assert!(cached_jobs(&cache, "large") > 80);
        assert!(Arc::ptr_eq(
            &of_small,
            &cache.find_or_insert_entry(&small, &first)
        ));
        assert!(
            Arc::ptr_eq(&of_large, &cache.find_or_insert_entry(&large, &polled)),
            "the job requested last stays cached"
        );
        let state = cache.0.lock();
        assert!(state.tenants.get(&large).unwrap().jobs.peek(&forgotten).is_none());
    }

    #[tokio::test]
    async fn entry_counts_with_the_bytes_of_its_documents() {
        let (store, cache, t) = (FakeStore::default(), ProgressCache::default(), tenant("t"));
        let job = JobId::new();
        let name = "n".repeat(1000);
        let cancelled = |seq| {
            let kind = EventKind::DocumentCancelled {
                name: name.clone(),
                done: 0,
            };
            make_event(job, seq, kind)
        };
        commit(&store, &t, (1..=50).map(cancelled)).await;
        cache.load_progress(&store, &t, &job).await.unwrap();
        assert!(cache.0.lock().bytes > 50 * 1000);

        let full = ProgressCache::with_max_bytes(50 * 1000);
        let progress = full.load_progress(&store, &t, &job).await.unwrap();
        assert_eq!(progress.documents.len(), 50);
        assert_eq!(cached_jobs(&full, "t"), 0);
        assert_eq!(full.0.lock().bytes, 0);
    }
}
