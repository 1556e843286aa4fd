//! Stores with two faces: what was written, and what would still be there after a power cut.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use uuid::Uuid;
use weir_core::event::Event;
use weir_core::id::{DocumentId, JobId, RevisionId, TenantId};
use weir_core::ledger::{DocumentRecord, Entry, JobRecord, JobState, PageRecord};
use weir_core::ports::{BlobStore, Ledger, VectorStore};
use weir_core::said::LogEntry;
use weir_core::search::{Hit, Point, Query};
use weir_core::{PageNumber, Stage, StorageError};

use super::{Fault, Stages};

fn storage_error(fault: Fault, what: &str) -> StorageError {
    match fault {
        Fault::Full => StorageError::Full { what: what.into() },
        _ => StorageError::Failed {
            what: what.into(),
            reason: "it was told to".into(),
        },
    }
}

/// A map, and the map that survives. A flush copies what has changed.
struct TwoFaced<K, V> {
    written: BTreeMap<K, V>,
    durable: BTreeMap<K, V>,
    changed: BTreeSet<K>,
}

impl<K: Clone + Ord, V: Clone> TwoFaced<K, V> {
    fn empty() -> Mutex<Self> {
        Mutex::new(Self {
            written: BTreeMap::new(),
            durable: BTreeMap::new(),
            changed: BTreeSet::new(),
        })
    }

    fn write(&mut self, key: K, value: V) {
        self.changed.insert(key.clone());
        self.written.insert(key, value);
    }

    fn remove(&mut self, gone: impl Fn(&K, &V) -> bool) {
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

    fn crash(&mut self) {
        self.written = self.durable.clone();
        self.changed.clear();
    }
}

pub struct FakeBlobs {
    stages: Arc<Stages>,
    blobs: Mutex<TwoFaced<(TenantId, String), Vec<u8>>>,
    pub flushes: AtomicU32,
}

impl FakeBlobs {
    pub fn new(stages: Arc<Stages>) -> Self {
        Self {
            stages,
            blobs: TwoFaced::empty(),
            flushes: AtomicU32::new(0),
        }
    }

    pub fn crash(&self) {
        self.blobs.lock().crash();
    }

    pub fn settle(&self) {
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

    pub fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        let key = (TenantId::single(), key.to_owned());
        self.blobs.lock().written.get(&key).cloned()
    }
}

#[async_trait]
impl BlobStore for FakeBlobs {
    async fn put(&self, tenant: &TenantId, key: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let page: u32 = key
            .split('/')
            .nth(1)
            .and_then(|page| page.parse().ok())
            .unwrap_or(0);
        if key.ends_with("ocr.json") && page == self.stages.lost_lines.load(Ordering::SeqCst) {
            return Err(storage_error(Fault::Page, key));
        }
        // Only images cost time; lines are a thousandth of their size.
        if key.contains("/image/")
            && let Some(fault) = self.stages.work(Stage::Store, &[page]).await
        {
            return Err(storage_error(fault, key));
        }
        self.blobs
            .lock()
            .write((tenant.clone(), key.to_owned()), bytes.to_vec());
        Ok(())
    }

    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let key = (tenant.clone(), key.to_owned());
        Ok(self.blobs.lock().written.get(&key).cloned())
    }

    async fn list(&self, _: &TenantId, prefix: &str) -> Result<Vec<String>, StorageError> {
        Ok(self
            .keys()
            .into_iter()
            .filter(|key| key.starts_with(prefix))
            .collect())
    }

    async fn delete(&self, _: &TenantId, prefix: &str) -> Result<(), StorageError> {
        self.blobs.lock().remove(|(_, key), _| key.starts_with(prefix));
        self.stages.flushed_or_removed().await;
        Ok(())
    }

    async fn flush(&self) -> Result<(), StorageError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.blobs.lock().flush();
        self.stages.flushed_or_removed().await;
        Ok(())
    }
}

pub struct FakeVectors {
    stages: Arc<Stages>,
    /// With the collection each is filed under.
    points: Mutex<TwoFaced<(TenantId, Uuid), (String, Point)>>,
    pub flushes: AtomicU32,
    pub upserts: AtomicU32,
    pub largest: AtomicU32,
}

impl FakeVectors {
    pub fn new(stages: Arc<Stages>) -> Self {
        Self {
            stages,
            points: TwoFaced::empty(),
            flushes: AtomicU32::new(0),
            upserts: AtomicU32::new(0),
            largest: AtomicU32::new(0),
        }
    }

    pub fn crash(&self) {
        self.points.lock().crash();
    }

    pub fn settle(&self) {
        self.points.lock().flush();
    }

    /// All points, in order of document, page and passage.
    pub fn points(&self) -> Vec<Point> {
        let all = self.points.lock();
        let mut points: Vec<_> = all.written.values().map(|(_, point)| point.clone()).collect();
        points.sort_by_key(|p| (p.document, p.page, p.passage));
        points
    }

    fn remove_where(&self, tenant: &TenantId, is_removed: impl Fn(&Point) -> bool) {
        let is_removed = |(owner, _): &(TenantId, Uuid), (_, point): &(String, Point)| {
            owner == tenant && is_removed(point)
        };
        self.points.lock().remove(is_removed);
    }
}

#[async_trait]
impl VectorStore for FakeVectors {
    async fn upsert(
        &self,
        tenant: &TenantId,
        collection: &str,
        points: Vec<Point>,
    ) -> Result<(), StorageError> {
        self.upserts.fetch_add(1, Ordering::SeqCst);
        let pages: BTreeSet<_> = points.iter().map(|p| p.page).collect();
        let pages: Vec<_> = pages.into_iter().collect();
        self.largest
            .fetch_max(u32::try_from(pages.len()).unwrap(), Ordering::SeqCst);
        if let Some(fault) = self.stages.work(Stage::Upsert, &pages).await {
            return Err(storage_error(fault, "the index"));
        }
        let mut all = self.points.lock();
        for point in points {
            all.write((tenant.clone(), point.id), (collection.to_owned(), point));
        }
        Ok(())
    }

    async fn remove(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        pages: Option<&[PageNumber]>,
    ) -> Result<(), StorageError> {
        self.remove_where(tenant, |point| {
            point.document == *document
                && pages.is_none_or(|pages| !point.is_summary() && pages.contains(&point.page))
        });
        self.stages.flushed_or_removed().await;
        Ok(())
    }

    async fn remove_summaries(&self, tenant: &TenantId, document: &DocumentId) -> Result<(), StorageError> {
        self.remove_where(tenant, |point| point.document == *document && point.is_summary());
        self.stages.flushed_or_removed().await;
        Ok(())
    }

    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.remove_where(tenant, |_| true);
        Ok(())
    }

    async fn search(&self, tenant: &TenantId, query: &Query) -> Result<Vec<Hit>, StorageError> {
        let all = self.points.lock();
        let is_match = |((owner, _), (collection, p)): &(&(TenantId, Uuid), &(String, Point))| {
            owner == tenant
                && p.text.contains(&query.text)
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
            .map(|p| Hit {
                summary: p.is_summary(),
                labels: p.labels.iter().cloned().collect(),
                document: p.document,
                name: p.name,
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

    async fn pages(
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

    async fn flush(&self) -> Result<(), StorageError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.points.lock().flush();
        self.stages.flushed_or_removed().await;
        Ok(())
    }
}

type PageKey = (TenantId, DocumentId, PageNumber, RevisionId);

#[derive(Default)]
pub struct FakeLedger {
    state: Mutex<Tables>,
    /// Entries of each commit.
    pub commits: Mutex<Vec<usize>>,
    /// Every commit fails for lack of room.
    pub full: AtomicBool,
    /// So many commits are written but answered with an error.
    pub lies: AtomicU32,
}

#[derive(Default)]
struct Tables {
    pages: HashMap<PageKey, (u64, PageRecord)>,
    events: BTreeMap<(JobId, u64), Event>,
    said: BTreeMap<(TenantId, JobId, u64), LogEntry>,
    documents: BTreeMap<(TenantId, DocumentId), DocumentRecord>,
    jobs: HashMap<JobId, JobRecord>,
    /// Events in the order they were written.
    written: Vec<(TenantId, Event)>,
    clock: u64,
}

impl FakeLedger {
    /// All events of a job, in order.
    pub fn log(&self, job: JobId) -> Vec<Event> {
        let state = self.state.lock();
        let all = state.events.range((job, 0)..=(job, u64::MAX));
        all.map(|(_, event)| event.clone()).collect()
    }
}

#[async_trait]
impl Ledger for FakeLedger {
    async fn commit(&self, entries: Vec<Entry>) -> Result<(), StorageError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(StorageError::Full {
                what: "the ledger".into(),
            });
        }
        self.commits.lock().push(entries.len());
        let mut state = self.state.lock();
        for entry in entries {
            state.clock += 1;
            let clock = state.clock;
            match entry {
                Entry::Job(job) => {
                    state.jobs.insert(job.id, job);
                }
                Entry::Document(document) => {
                    let key = (document.tenant.clone(), document.id);
                    let known = state.documents.get(&key).map(|known| known.created_millis);
                    let created_millis = known.unwrap_or(document.created_millis);
                    let document = DocumentRecord {
                        created_millis,
                        ..document
                    };
                    state.documents.insert(key, document);
                }
                Entry::Page(page) => {
                    let key = (page.tenant.clone(), page.document, page.page, page.revision);
                    state.pages.insert(key, (clock, page));
                }
                Entry::Said(tenant, entry) => {
                    let key = (tenant, entry.job, entry.seq);
                    let before = state.said.insert(key, entry.clone());
                    assert!(before.is_none_or(|b| b == entry), "two entries have one number");
                }
                Entry::Event(tenant, event) => {
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
            .lies
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match lie {
            Ok(_) => Err(storage_error(Fault::Page, "a commit")),
            Err(_) => Ok(()),
        }
    }

    async fn document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<DocumentRecord>, StorageError> {
        let key = (tenant.clone(), *document);
        Ok(self.state.lock().documents.get(&key).cloned())
    }

    async fn documents(&self, tenant: &TenantId) -> Result<Vec<DocumentRecord>, StorageError> {
        self.documents_after(tenant, None, usize::MAX).await
    }

    async fn documents_after(
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

    async fn pages_after(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        after: PageNumber,
        limit: usize,
    ) -> Result<Vec<PageRecord>, StorageError> {
        let pages = self.pages(tenant, document, None).await?;
        Ok(pages
            .into_iter()
            .filter(|page| page.page > after)
            .take(limit)
            .collect())
    }

    async fn tenant_place(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        let events = self.tenant_events(tenant, 0, usize::MAX).await?;
        Ok(events.last().map_or(0, |(place, _)| *place))
    }

    async fn pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        revision: Option<&RevisionId>,
    ) -> Result<Vec<PageRecord>, StorageError> {
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

    async fn job(&self, _: &TenantId, job: &JobId) -> Result<Option<JobRecord>, StorageError> {
        Ok(self.state.lock().jobs.get(job).cloned())
    }

    async fn unfinished(&self) -> Result<Vec<JobRecord>, StorageError> {
        let state = self.state.lock();
        let open = |j: &&JobRecord| matches!(j.state, JobState::Queued | JobState::Running);
        Ok(state.jobs.values().filter(open).cloned().collect())
    }

    async fn events(
        &self,
        _: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StorageError> {
        Ok(self
            .log(*job)
            .into_iter()
            .filter(|e| e.seq > after)
            .take(limit)
            .collect())
    }

    async fn said(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let state = self.state.lock();
        let place = |seq| (tenant.clone(), *job, seq);
        let of_job = state.said.range(place(after.saturating_add(1))..=place(u64::MAX));
        Ok(of_job.take(limit).map(|(_, entry)| entry.clone()).collect())
    }

    async fn last_said(&self, tenant: &TenantId, job: &JobId) -> Result<u64, StorageError> {
        let all = self.said(tenant, job, 0, usize::MAX).await?;
        Ok(all.last().map_or(0, |entry| entry.seq))
    }

    async fn tenant_events(
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

    async fn forget(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        let mut state = self.state.lock();
        state
            .pages
            .retain(|(owner, id, ..), _| owner != tenant || id != document);
        let key = (tenant.clone(), *document);
        Ok(state.documents.remove(&key).is_some())
    }
}
