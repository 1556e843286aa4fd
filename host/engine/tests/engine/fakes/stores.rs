//! Fake stores that hold their written data, and the durable data that would survive a power cut.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use uuid::Uuid;
use weir_core::blob_key::{check_blob_key, check_blob_key_prefix};
use weir_core::component_log::NumberedComponentLogRecord;
use weir_core::event::Event;
use weir_core::id::{DocumentId, JobId, RevisionId, TenantId};
use weir_core::ledger::{DocumentRecord, JobRecord, JobState, LedgerEntry, PageRecord};
use weir_core::ports::{BlobStore, Ledger, VectorStore};
use weir_core::search::{IndexPoint, SearchHit, SearchQuery};
use weir_core::{PageNumber, Stage, StorageError};

use super::{FakeStages, InjectedFault};

fn to_storage_error(fault: InjectedFault, what: &str) -> StorageError {
    match fault {
        InjectedFault::Full => StorageError::NoSpace { what: what.into() },
        InjectedFault::Unavailable => StorageError::Unavailable {
            what: what.into(),
            reason: "injected fault".into(),
        },
        _ => StorageError::Failed {
            what: what.into(),
            reason: "injected fault".into(),
        },
    }
}

/// A map and its durable copy. A flush copies the changes.
struct CrashableMap<K, V> {
    written: BTreeMap<K, V>,
    durable: BTreeMap<K, V>,
    changed: BTreeSet<K>,
}

impl<K: Clone + Ord, V: Clone> CrashableMap<K, V> {
    fn new_locked() -> Mutex<Self> {
        Mutex::new(Self {
            written: BTreeMap::new(),
            durable: BTreeMap::new(),
            changed: BTreeSet::new(),
        })
    }

    fn insert(&mut self, key: K, value: V) {
        self.changed.insert(key.clone());
        self.written.insert(key, value);
    }

    fn remove_where(&mut self, gone: impl Fn(&K, &V) -> bool) {
        let changed = &mut self.changed;
        self.written.retain(|key, value| {
            let gone = gone(key, value);
            if gone {
                changed.insert(key.clone());
            }
            !gone
        });
    }

    fn flush(&mut self) {
        for key in std::mem::take(&mut self.changed) {
            match self.written.get(&key) {
                Some(value) => self.durable.insert(key, value.clone()),
                None => self.durable.remove(&key),
            };
        }
    }

    fn revert_to_durable(&mut self) {
        self.written = self.durable.clone();
        self.changed.clear();
    }
}

pub struct FakeBlobs {
    stages: Arc<FakeStages>,
    blobs: Mutex<CrashableMap<(TenantId, String), Vec<u8>>>,
    pub flushes: AtomicU32,
}

impl FakeBlobs {
    pub fn new(stages: Arc<FakeStages>) -> Self {
        Self {
            stages,
            blobs: CrashableMap::new_locked(),
            flushes: AtomicU32::new(0),
        }
    }

    pub fn revert_to_durable(&self) {
        self.blobs.lock().revert_to_durable();
    }

    pub fn flush_all(&self) {
        self.blobs.lock().flush();
    }

    pub fn keys(&self) -> BTreeSet<String> {
        self.blobs
            .lock()
            .written
            .keys()
            .map(|(_, key)| key.clone())
            .collect()
    }

    pub fn get_bytes(&self, key: &str) -> Option<Vec<u8>> {
        let key = (TenantId::default_tenant(), key.to_owned());
        self.blobs.lock().written.get(&key).cloned()
    }
}

#[async_trait]
impl BlobStore for FakeBlobs {
    async fn put_blob(&self, tenant: &TenantId, key: &str, bytes: &[u8]) -> Result<(), StorageError> {
        check_blob_key(key)?;
        let page: u32 = key
            .split('/')
            .nth(1)
            .and_then(|page| page.parse().ok())
            .unwrap_or(0);
        let unstorable_page = self.stages.page_with_unstorable_lines.load(Ordering::SeqCst);
        if page != 0 && page == unstorable_page && key.ends_with("ocr.json") {
            return Err(to_storage_error(InjectedFault::Page, key));
        }
        // Only images cost time, since lines are a thousand times smaller.
        if key.contains("/image/")
            && let Some(fault) = self.stages.run_stage(Stage::Store, &[page]).await
        {
            return Err(to_storage_error(fault, key));
        }
        self.blobs
            .lock()
            .insert((tenant.clone(), key.to_owned()), bytes.to_vec());
        Ok(())
    }

    async fn get_blob(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        check_blob_key(key)?;
        let key = (tenant.clone(), key.to_owned());
        Ok(self.blobs.lock().written.get(&key).cloned())
    }

    async fn list_blob_keys(&self, tenant: &TenantId, prefix: &str) -> Result<Vec<String>, StorageError> {
        check_blob_key_prefix(prefix)?;
        let blobs = self.blobs.lock();
        let keys = blobs
            .written
            .keys()
            .filter(|(owner, key)| owner == tenant && key.starts_with(prefix));
        Ok(keys.map(|(_, key)| key.clone()).collect())
    }

    async fn delete_blobs_with_prefix(&self, tenant: &TenantId, prefix: &str) -> Result<(), StorageError> {
        check_blob_key_prefix(prefix)?;
        self.blobs
            .lock()
            .remove_where(|(owner, key), _| owner == tenant && key.starts_with(prefix));
        self.stages.hang_after_countdown().await;
        Ok(())
    }

    async fn flush_blobs(&self) -> Result<(), StorageError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.blobs.lock().flush();
        self.stages.hang_after_countdown().await;
        Ok(())
    }
}

pub struct FakeVectors {
    stages: Arc<FakeStages>,
    /// The points with their collections.
    points: Mutex<CrashableMap<(TenantId, Uuid), (String, IndexPoint)>>,
    pub flushes: AtomicU32,
    pub upserts: AtomicU32,
    pub most_pages_per_upsert: AtomicU32,
}

impl FakeVectors {
    pub fn new(stages: Arc<FakeStages>) -> Self {
        Self {
            stages,
            points: CrashableMap::new_locked(),
            flushes: AtomicU32::new(0),
            upserts: AtomicU32::new(0),
            most_pages_per_upsert: AtomicU32::new(0),
        }
    }

    pub fn revert_to_durable(&self) {
        self.points.lock().revert_to_durable();
    }

    pub fn flush_all(&self) {
        self.points.lock().flush();
    }

    /// Returns all points in order of document, page and passage.
    pub fn sorted_points(&self) -> Vec<IndexPoint> {
        let all = self.points.lock();
        let mut points: Vec<_> = all.written.values().map(|(_, point)| point.clone()).collect();
        points.sort_by_key(|p| (p.document, p.page, p.passage));
        points
    }

    fn remove_where(&self, tenant: &TenantId, is_removed: impl Fn(&IndexPoint) -> bool) {
        let is_removed = |(owner, _): &(TenantId, Uuid), (_, point): &(String, IndexPoint)| {
            owner == tenant && is_removed(point)
        };
        self.points.lock().remove_where(is_removed);
    }
}

#[async_trait]
impl VectorStore for FakeVectors {
    async fn upsert_points(
        &self,
        tenant: &TenantId,
        collection: &str,
        points: Vec<IndexPoint>,
    ) -> Result<(), StorageError> {
        self.upserts.fetch_add(1, Ordering::SeqCst);
        let pages: BTreeSet<_> = points.iter().map(|p| p.page).collect();
        let pages: Vec<_> = pages.into_iter().collect();
        self.most_pages_per_upsert
            .fetch_max(u32::try_from(pages.len()).unwrap(), Ordering::SeqCst);
        if let Some(fault) = self.stages.run_stage(Stage::Upsert, &pages).await {
            return Err(to_storage_error(fault, "the index"));
        }
        let mut all = self.points.lock();
        for point in points {
            all.insert((tenant.clone(), point.id), (collection.to_owned(), point));
        }
        Ok(())
    }

    async fn remove_document_or_page_points(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        pages: Option<&[PageNumber]>,
    ) -> Result<(), StorageError> {
        self.remove_where(tenant, |point| {
            point.document == *document
                && pages.is_none_or(|pages| !point.is_summary() && pages.contains(&point.page))
        });
        self.stages.hang_after_countdown().await;
        Ok(())
    }

    async fn remove_document_summaries(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        self.remove_where(tenant, |point| point.document == *document && point.is_summary());
        self.stages.hang_after_countdown().await;
        Ok(())
    }

    async fn remove_tenant_points(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.remove_where(tenant, |_| true);
        Ok(())
    }

    async fn search_by_vector_and_words(
        &self,
        tenant: &TenantId,
        query: &SearchQuery,
    ) -> Result<Vec<SearchHit>, StorageError> {
        let all = self.points.lock();
        let is_match = |((owner, _), (collection, p)): &(&(TenantId, Uuid), &(String, IndexPoint))| {
            owner == tenant
                && p.text.contains(&query.query_text)
                && (query.documents.is_empty() || query.documents.contains(&p.document))
                && query.collection.as_ref().is_none_or(|c| c == collection)
                && query.labels.iter().all(|label| p.labels.contains(label))
        };
        let mut found: Vec<_> = all
            .written
            .iter()
            .filter(is_match)
            .map(|(_, (_, point))| point.clone())
            .collect();
        found.sort_by_key(|p| (p.document, p.page, p.passage));
        Ok(found
            .into_iter()
            .take(query.top_k)
            .map(|p| SearchHit {
                summary: p.is_summary(),
                labels: p.labels.iter().cloned().collect(),
                document: p.document,
                name: p.document_name,
                page: p.page,
                score: 1.0,
                similarity: 1.0,
                weak: false,
                matches: Vec::new(),
                text: p.text,
                rect: p.rect,
                image: p.image,
            })
            .collect())
    }

    async fn count_passages_by_page(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<(PageNumber, u32)>, StorageError> {
        let mut pages = BTreeMap::new();
        for ((owner, _), (_, point)) in &self.points.lock().written {
            if owner == tenant && point.document == *document && !point.is_summary() {
                *pages.entry(point.page).or_insert(0) += 1;
            }
        }
        Ok(pages.into_iter().collect())
    }

    async fn flush_points(&self) -> Result<(), StorageError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.points.lock().flush();
        self.stages.hang_after_countdown().await;
        Ok(())
    }
}

type PageKey = (TenantId, DocumentId, PageNumber, RevisionId);

#[derive(Default)]
pub struct FakeLedger {
    state: Mutex<FakeTables>,
    /// The number of entries of each commit.
    pub commits: Mutex<Vec<usize>>,
    /// Whether every commit fails with `storage-full`.
    pub is_full: AtomicBool,
    /// Whether the commits and the reads of a job's start fail with `storage-unavailable`.
    pub is_unavailable: AtomicBool,
    /// Jobs that another node has claimed.
    pub jobs_with_lost_claim: Mutex<BTreeSet<JobId>>,
    /// The number of commits that are written but return an error.
    pub false_commit_errors: AtomicU32,
}

#[derive(Default)]
struct FakeTables {
    pages: HashMap<PageKey, (u64, PageRecord)>,
    events: BTreeMap<(JobId, u64), Event>,
    component_log: BTreeMap<(TenantId, JobId, u64), NumberedComponentLogRecord>,
    documents: BTreeMap<(TenantId, DocumentId), DocumentRecord>,
    jobs: HashMap<JobId, JobRecord>,
    /// Events in the order in which they were written.
    written: Vec<(TenantId, Event)>,
    clock: u64,
}

impl FakeLedger {
    /// Returns all events of a job, in order.
    pub fn job_events(&self, job: JobId) -> Vec<Event> {
        let state = self.state.lock();
        let all = state.events.range((job, 0)..=(job, u64::MAX));
        all.map(|(_, event)| event.clone()).collect()
    }

    fn check_claims(&self, entries: &[LedgerEntry]) -> Result<(), StorageError> {
        let lost = self.jobs_with_lost_claim.lock();
        for entry in entries {
            if let LedgerEntry::RequireClaim(claim) = entry
                && lost.contains(&claim.job)
            {
                return Err(StorageError::ClaimLost { job: claim.job });
            }
        }
        Ok(())
    }

    fn check_available(&self) -> Result<(), StorageError> {
        match self.is_unavailable.load(Ordering::SeqCst) {
            true => Err(to_storage_error(InjectedFault::Unavailable, "the ledger")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Ledger for FakeLedger {
    async fn commit_entries(&self, entries: Vec<LedgerEntry>) -> Result<(), StorageError> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(StorageError::NoSpace {
                what: "the ledger".into(),
            });
        }
        self.check_available()?;
        self.check_claims(&entries)?;
        self.commits.lock().push(entries.len());
        let mut state = self.state.lock();
        for entry in entries {
            state.clock += 1;
            let clock = state.clock;
            match entry {
                LedgerEntry::RequireClaim(_) => {}
                LedgerEntry::Job(job) => {
                    state.jobs.insert(job.id, job);
                }
                LedgerEntry::Document(document) => {
                    let key = (document.tenant.clone(), document.id);
                    let known = state.documents.get(&key).map(|known| known.created_millis);
                    let created_millis = known.unwrap_or(document.created_millis);
                    let document = DocumentRecord {
                        created_millis,
                        ..document
                    };
                    state.documents.insert(key, document);
                }
                LedgerEntry::Page(page) => {
                    let key = (page.tenant.clone(), page.document, page.page, page.revision);
                    state.pages.insert(key, (clock, page));
                }
                LedgerEntry::ComponentLog(tenant, entry) => {
                    let key = (tenant, entry.job, entry.seq);
                    let before = state.component_log.insert(key, entry.clone());
                    assert!(before.is_none_or(|b| b == entry), "two entries have one number");
                }
                LedgerEntry::Event(tenant, event) => {
                    let before = state.events.insert((event.job, event.seq), event.clone());
                    if before.is_none() {
                        state.written.push((tenant, event.clone()));
                    }
                    assert!(before.is_none_or(|b| b == event), "two events have one number");
                }
            }
        }
        drop(state);
        let lie = self
            .false_commit_errors
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match lie {
            Ok(_) => Err(to_storage_error(InjectedFault::Page, "a commit")),
            Err(_) => Ok(()),
        }
    }

    async fn find_document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<DocumentRecord>, StorageError> {
        self.check_available()?;
        let key = (tenant.clone(), *document);
        Ok(self.state.lock().documents.get(&key).cloned())
    }

    async fn list_tenant_documents(&self, tenant: &TenantId) -> Result<Vec<DocumentRecord>, StorageError> {
        self.list_tenant_documents_after(tenant, None, usize::MAX).await
    }

    async fn list_tenant_documents_after(
        &self,
        tenant: &TenantId,
        after: Option<(u64, DocumentId)>,
        limit: usize,
    ) -> Result<Vec<DocumentRecord>, StorageError> {
        let state = self.state.lock();
        let place = |document: &DocumentRecord| (document.created_millis, document.id);
        let of_tenant = state.documents.values().filter(|d| d.tenant == *tenant);
        let mut documents: Vec<_> = of_tenant
            .filter(|d| after.is_none_or(|after| place(d) < after))
            .cloned()
            .collect();
        documents.sort_unstable_by_key(|d| std::cmp::Reverse(place(d)));
        documents.truncate(limit);
        Ok(documents)
    }

    async fn list_pages_after(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        after: PageNumber,
        limit: usize,
    ) -> Result<Vec<PageRecord>, StorageError> {
        let pages = self.list_pages(tenant, document, None).await?;
        Ok(pages
            .into_iter()
            .filter(|page| page.page > after)
            .take(limit)
            .collect())
    }

    async fn last_tenant_event_position(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        let events = self.list_tenant_events(tenant, 0, usize::MAX).await?;
        Ok(events.last().map_or(0, |(place, _)| *place))
    }

    async fn list_pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        revision: Option<&RevisionId>,
    ) -> Result<Vec<PageRecord>, StorageError> {
        self.check_available()?;
        let state = self.state.lock();
        let mut latest: BTreeMap<PageNumber, &(u64, PageRecord)> = BTreeMap::new();
        let all = state.pages.values().filter(|(_, r)| {
            r.tenant == *tenant && r.document == *document && revision.is_none_or(|v| *v == r.revision)
        });
        for record in all {
            let slot = latest.entry(record.1.page).or_insert(record);
            if record.0 > slot.0 {
                *slot = record;
            }
        }
        Ok(latest.into_values().map(|(_, record)| record.clone()).collect())
    }

    async fn find_page(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        page: PageNumber,
        revision: Option<&RevisionId>,
    ) -> Result<Option<PageRecord>, StorageError> {
        let pages = self.list_pages(tenant, document, revision).await?;
        Ok(pages.into_iter().find(|record| record.page == page))
    }

    async fn find_job(&self, _: &TenantId, job: &JobId) -> Result<Option<JobRecord>, StorageError> {
        Ok(self.state.lock().jobs.get(job).cloned())
    }

    async fn list_unfinished_jobs(&self) -> Result<Vec<JobRecord>, StorageError> {
        let state = self.state.lock();
        let open = |j: &&JobRecord| matches!(j.state, JobState::Queued | JobState::Running);
        Ok(state.jobs.values().filter(open).cloned().collect())
    }

    async fn list_job_events(
        &self,
        _: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StorageError> {
        Ok(self
            .job_events(*job)
            .into_iter()
            .filter(|e| e.seq > after)
            .take(limit)
            .collect())
    }

    async fn last_job_event(&self, tenant: &TenantId, job: &JobId) -> Result<Option<Event>, StorageError> {
        let state = self.state.lock();
        let mut latest = state.written.iter().rev();
        let last = latest.find(|(owner, event)| owner == tenant && event.job == *job);
        Ok(last.map(|(_, event)| event.clone()))
    }

    async fn list_component_log(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<NumberedComponentLogRecord>, StorageError> {
        let state = self.state.lock();
        let place = |seq| (tenant.clone(), *job, seq);
        let of_job = state
            .component_log
            .range(place(after.saturating_add(1))..=place(u64::MAX));
        Ok(of_job.take(limit).map(|(_, entry)| entry.clone()).collect())
    }

    async fn last_component_log_seq(&self, tenant: &TenantId, job: &JobId) -> Result<u64, StorageError> {
        let all = self.list_component_log(tenant, job, 0, usize::MAX).await?;
        Ok(all.last().map_or(0, |entry| entry.seq))
    }

    async fn list_tenant_events(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StorageError> {
        let state = self.state.lock();
        let placed = (1..).zip(&state.written).skip(usize::try_from(after).unwrap());
        Ok(placed
            .filter(|(_, (owner, _))| owner == tenant)
            .map(|(place, (_, event))| (place, event.clone()))
            .take(limit)
            .collect())
    }

    async fn erase_document(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        let mut state = self.state.lock();
        state
            .pages
            .retain(|(owner, id, ..), _| owner != tenant || id != document);
        let key = (tenant.clone(), *document);
        Ok(state.documents.remove(&key).is_some())
    }
}
