//! What is written down, kept in one place as a ledger would.

mod registry;
mod removals;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use weir_core::event::Event;
use weir_core::ledger::{DocumentRecord, Entry, JobRecord, PageRecord};
use weir_core::order::{Earlier, Idempotency, JobFilter, Order, OrderedFile, Orders, Put};
use weir_core::ports::Ledger;
use weir_core::said::LogEntry;
use weir_core::tenancy::{KeyRecord, Tenant};
use weir_core::usage::{Day, Usage, UsageBook};
use weir_core::{DocumentId, JobId, PageNumber, RevisionId, StorageError, TenantId};

use super::pipelines::Pipelines;

/// What is known of jobs, documents, tenants, keys and pipelines.
#[derive(Default)]
pub(crate) struct Memory(Mutex<Kept>, Mutex<Pipelines>);

#[derive(Default)]
struct Kept {
    jobs: Vec<JobRecord>,
    documents: Vec<DocumentRecord>,
    pages: BTreeMap<(TenantId, DocumentId, PageNumber), PageRecord>,
    /// In the order of writing: the place is the index and one.
    events: Vec<(TenantId, Event)>,
    said: BTreeMap<(TenantId, JobId, u64), LogEntry>,
    orders: Vec<Order>,
    webhooks: BTreeMap<(TenantId, JobId), u32>,
    tenants: BTreeMap<TenantId, Tenant>,
    keys: BTreeMap<String, KeyRecord>,
    usage: HashMap<(TenantId, Day), Usage>,
    words: HashMap<(TenantId, String), ([u8; 32], JobId)>,
    stored: HashMap<TenantId, u64>,
    removals: BTreeSet<(TenantId, DocumentId)>,
    reads: usize,
    failing: bool,
    full: bool,
}

impl Kept {
    fn remove_passwords(&mut self, job: &JobRecord) {
        let of_job = |o: &&mut Order| (&o.tenant, &o.job) == (&job.tenant, &job.id);
        let files = self.orders.iter_mut().filter(of_job).flat_map(|o| &mut o.files);
        files.for_each(|file| file.password = None);
    }
}

impl Memory {
    /// As a ledger refuses a change by a key that went with its tenant.
    pub(super) fn require_key(&self, id: &str) -> Result<(), StorageError> {
        match self.0.lock().keys.contains_key(id) {
            true => Ok(()),
            false => Err(StorageError::Missing {
                what: format!("key {id}"),
            }),
        }
    }

    pub(super) fn pipelines(&self) -> MutexGuard<'_, Pipelines> {
        self.1.lock()
    }

    /// How often events were read.
    pub(crate) fn reads(&self) -> usize {
        self.0.lock().reads
    }

    /// Changes a tenant's record.
    pub(crate) fn set_tenant(&self, id: &TenantId, change: impl FnOnce(&mut Tenant)) {
        change(self.0.lock().tenants.get_mut(id).unwrap());
    }

    /// Whether events can be read.
    pub(crate) fn fail(&self, failing: bool) {
        self.0.lock().failing = failing;
    }

    /// Whether there is no room for anything more in the ledger.
    pub(crate) fn fill(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// What a tenant keeps.
    pub(crate) fn store(&self, tenant: &TenantId, bytes: u64) {
        self.0.lock().stored.insert(tenant.clone(), bytes);
    }

    /// Files of a tenant that took `before` bytes take `after` bytes now.
    pub(super) fn change_stored(&self, tenant: &TenantId, before: u64, after: u64) {
        let mut kept = self.0.lock();
        let stored = kept.stored.entry(tenant.clone()).or_default();
        *stored = (*stored + after).saturating_sub(before);
    }

    fn reading(&self) -> Result<(), StorageError> {
        let mut kept = self.0.lock();
        kept.reads += 1;
        if kept.failing {
            return Err(StorageError::Failed {
                what: "events".into(),
                reason: "the test says so".into(),
            });
        }
        Ok(())
    }
}

#[async_trait]
impl Ledger for Memory {
    async fn commit(&self, entries: Vec<Entry>) -> Result<(), StorageError> {
        let mut kept = self.0.lock();
        if kept.full {
            let what = "the ledger".into();
            return Err(StorageError::Full { what });
        }
        for entry in entries {
            match entry {
                Entry::Job(job) => {
                    if job.state.is_ended() {
                        kept.remove_passwords(&job);
                    }
                    match kept.jobs.iter_mut().find(|j| j.id == job.id) {
                        Some(known) => *known = job,
                        None => kept.jobs.push(job),
                    }
                }
                Entry::Document(mut document) => {
                    let same = |d: &DocumentRecord| (&d.tenant, d.id) == (&document.tenant, document.id);
                    if let Some(known) = kept.documents.iter().position(same) {
                        document.created_millis = kept.documents.remove(known).created_millis;
                    }
                    kept.documents.push(document);
                }
                Entry::Page(page) => {
                    kept.pages
                        .insert((page.tenant.clone(), page.document, page.page), page);
                }
                Entry::Said(tenant, entry) => {
                    kept.said.insert((tenant, entry.job, entry.seq), entry);
                }
                Entry::Event(tenant, event) => {
                    let same =
                        |(t, e): &(TenantId, Event)| *t == tenant && (e.job, e.seq) == (event.job, event.seq);
                    if !kept.events.iter().rev().take(1000).any(same) {
                        kept.events.push((tenant, event));
                    }
                }
            }
        }
        Ok(())
    }

    async fn document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<DocumentRecord>, StorageError> {
        let kept = self.0.lock();
        let mut documents = kept.documents.iter();
        Ok(documents
            .find(|d| (&d.tenant, &d.id) == (tenant, document))
            .cloned())
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
        let kept = self.0.lock();
        let place = |document: &DocumentRecord| (document.created_millis, document.id);
        let of_tenant = kept.documents.iter().filter(|d| d.tenant == *tenant);
        let mut documents: Vec<_> = of_tenant
            .filter(|d| after.is_none_or(|after| place(d) < after))
            .cloned()
            .collect();
        documents.sort_unstable_by_key(|d| std::cmp::Reverse(place(d)));
        documents.truncate(limit);
        Ok(documents)
    }

    async fn pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        _revision: Option<&RevisionId>,
    ) -> Result<Vec<PageRecord>, StorageError> {
        let kept = self.0.lock();
        let pages = kept.pages.values();
        Ok(pages
            .filter(|p| (&p.tenant, &p.document) == (tenant, document))
            .cloned()
            .collect())
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

    async fn job(&self, tenant: &TenantId, job: &JobId) -> Result<Option<JobRecord>, StorageError> {
        let kept = self.0.lock();
        let mut jobs = kept.jobs.iter();
        Ok(jobs.find(|j| (&j.tenant, &j.id) == (tenant, job)).cloned())
    }

    async fn unfinished(&self) -> Result<Vec<JobRecord>, StorageError> {
        let kept = self.0.lock();
        let unfinished = kept.jobs.iter().filter(|j| !j.state.is_ended());
        let mut unfinished: Vec<_> = unfinished.cloned().collect();
        unfinished.sort_by_key(|j| j.created_millis);
        Ok(unfinished)
    }

    async fn events(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StorageError> {
        self.reading()?;
        // A read takes a moment, in which others commit.
        let events = {
            let kept = self.0.lock();
            let of_job = kept
                .events
                .iter()
                .filter(|(t, e)| t == tenant && e.job == *job && e.seq > after);
            of_job.take(limit).map(|(_, e)| e.clone()).collect()
        };
        tokio::task::yield_now().await;
        Ok(events)
    }

    async fn said(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let kept = self.0.lock();
        let (from, to) = (after.saturating_add(1), u64::MAX);
        let of_job = kept
            .said
            .range((tenant.clone(), *job, from)..=(tenant.clone(), *job, to));
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
        self.reading()?;
        let events = {
            let kept = self.0.lock();
            let placed = (1..).zip(&kept.events).skip(usize::try_from(after).unwrap());
            placed
                .filter(|(_, (t, _))| t == tenant)
                .take(limit)
                .map(|(place, (_, e))| (place, e.clone()))
                .collect()
        };
        tokio::task::yield_now().await;
        Ok(events)
    }

    async fn tenant_place(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        let kept = self.0.lock();
        Ok((1..)
            .zip(&kept.events)
            .filter(|(_, (t, _))| t == tenant)
            .map(|(p, _)| p)
            .last()
            .unwrap_or(0))
    }

    async fn forget(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        let mut kept = self.0.lock();
        let before = kept.documents.len();
        kept.documents
            .retain(|d| (&d.tenant, &d.id) != (tenant, document));
        kept.pages.retain(|(t, d, _), _| (t, d) != (tenant, document));
        Ok(kept.documents.len() < before)
    }
}

#[async_trait]
impl Orders for Memory {
    async fn put(
        &self,
        record: &JobRecord,
        order: &Order,
        idempotency: Option<&Idempotency>,
    ) -> Result<Put, StorageError> {
        let mut kept = self.0.lock();
        let word = idempotency.map(|word| ((order.tenant.clone(), word.key.clone()), word.digest));
        if let Some((word, digest)) = &word {
            match kept.words.get(word) {
                Some((known, job)) if known == digest => return Ok(Put::Before(*job)),
                Some(_) => return Ok(Put::Differs),
                None => {}
            }
        }
        let removed = |file: &&OrderedFile| kept.removals.contains(&(order.tenant.clone(), file.document));
        if let Some(file) = order.files.iter().find(removed) {
            return Ok(Put::Removing(file.document));
        }
        if let Some((word, digest)) = word {
            kept.words.insert(word, (digest, order.job));
        }
        kept.jobs.push(record.clone());
        kept.orders.push(order.clone());
        if order.webhook.is_some() {
            kept.webhooks.insert((order.tenant.clone(), order.job), 0);
        }
        Ok(Put::New)
    }

    async fn earlier(&self, tenant: &TenantId, word: &str) -> Result<Option<Earlier>, StorageError> {
        let word = (tenant.clone(), word.to_owned());
        let known = self.0.lock().words.get(&word).copied();
        Ok(known.map(|(digest, job)| Earlier { digest, job }))
    }

    async fn order(&self, tenant: &TenantId, job: &JobId) -> Result<Option<Order>, StorageError> {
        let kept = self.0.lock();
        let mut orders = kept.orders.iter();
        Ok(orders.find(|o| (&o.tenant, &o.job) == (tenant, job)).cloned())
    }

    async fn jobs(&self, tenant: &TenantId, filter: &JobFilter) -> Result<Vec<JobRecord>, StorageError> {
        let kept = self.0.lock();
        let mut jobs: Vec<_> = kept
            .jobs
            .iter()
            .filter(|j| j.tenant == *tenant && filter.state.is_none_or(|state| state == j.state))
            .filter(|j| filter.before.is_none_or(|before| j.id.0 < before.0))
            .cloned()
            .collect();
        jobs.sort_by_key(|j| std::cmp::Reverse(j.id.0));
        jobs.truncate(filter.limit);
        Ok(jobs)
    }

    async fn owed_webhooks(&self) -> Result<Vec<(TenantId, JobId, u32)>, StorageError> {
        let kept = self.0.lock();
        let owed = kept.webhooks.iter();
        Ok(owed
            .map(|((tenant, job), tries)| (tenant.clone(), *job, *tries))
            .collect())
    }

    async fn webhook_tried(
        &self,
        tenant: &TenantId,
        job: &JobId,
        tries: Option<u32>,
    ) -> Result<(), StorageError> {
        let (key, mut kept) = ((tenant.clone(), *job), self.0.lock());
        match tries {
            Some(tries) => drop(kept.webhooks.insert(key, tries)),
            None => {
                kept.webhooks.remove(&key);
                let order = kept
                    .orders
                    .iter_mut()
                    .find(|o| (&o.tenant, &o.job) == (tenant, job));
                order.into_iter().for_each(|order| order.webhook = None);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl UsageBook for Memory {
    async fn add(&self, day: Day, amounts: Vec<(TenantId, Usage)>) -> Result<(), StorageError> {
        let mut kept = self.0.lock();
        if kept.failing {
            return Err(StorageError::Full { what: "usage".into() });
        }
        for (tenant, usage) in amounts {
            kept.usage.entry((tenant, day)).or_default().add(&usage);
        }
        Ok(())
    }

    async fn usage(&self, tenant: &TenantId, from: Day, to: Day) -> Result<Vec<(Day, Usage)>, StorageError> {
        let kept = self.0.lock();
        let mut days: Vec<_> = (kept.usage.iter())
            .filter(|((t, day), _)| t == tenant && (from..=to).contains(day))
            .map(|((_, day), usage)| (*day, *usage))
            .collect();
        days.sort_by_key(|(day, _)| *day);
        Ok(days)
    }

    async fn stored_bytes(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        Ok(self.0.lock().stored.get(tenant).copied().unwrap_or(0))
    }
}
