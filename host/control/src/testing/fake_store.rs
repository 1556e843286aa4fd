//! A ledger and the other stores, in memory.

mod faults_and_counts;
mod job_claims;
mod job_requests;
mod nodes;
mod retention;
mod tenants;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use weir_core::clock::unix_time_millis;
use weir_core::component_log::NumberedComponentLogRecord;
use weir_core::event::Event;
use weir_core::job_claim::NodeId;
use weir_core::job_request::JobRequest;
use weir_core::ledger::{DocumentRecord, JobRecord, LedgerEntry, PageRecord};
use weir_core::ports::Ledger;
use weir_core::tenancy::{ApiKeyRecord, Tenant};
use weir_core::usage::{Usage, UsageDay, UsageStore};
use weir_core::{DocumentId, JobId, PageNumber, RevisionId, StorageError, TenantId};

use super::fake_claim::FakeClaim;
use super::fake_node::FakeNode;
use super::pipeline_tables::PipelineTables;

/// Implements the ledger and the stores of job requests, usage, tenants, keys, pipelines and shadows in memory.
#[derive(Default)]
pub struct FakeStore(Mutex<StoreTables>, Mutex<PipelineTables>);

#[derive(Default)]
struct StoreTables {
    jobs: Vec<JobRecord>,
    /// When each ended job ended, in milliseconds since 1970.
    job_ends: HashMap<JobId, u64>,
    claims: HashMap<JobId, FakeClaim>,
    /// The holder of each duty, and the end of its lease.
    duties: HashMap<String, (NodeId, Instant)>,
    nodes: Vec<FakeNode>,
    documents: Vec<DocumentRecord>,
    /// Of each page, the record that was written last is at the end.
    pages: BTreeMap<(TenantId, DocumentId, PageNumber), Vec<PageRecord>>,
    /// In the order of commits: the position of an event is its index plus one.
    events: Vec<(TenantId, Event)>,
    component_log: BTreeMap<(TenantId, JobId, u64), NumberedComponentLogRecord>,
    job_requests: Vec<JobRequest>,
    webhooks: BTreeMap<(TenantId, JobId), u32>,
    tenants: BTreeMap<TenantId, Tenant>,
    keys: BTreeMap<String, ApiKeyRecord>,
    usage: HashMap<(TenantId, UsageDay), Usage>,
    idempotency_keys: HashMap<(TenantId, String), ([u8; 32], JobId)>,
    stored_bytes: HashMap<TenantId, u64>,
    removals: BTreeSet<(TenantId, DocumentId)>,
    jobs_with_erased_document: BTreeSet<(TenantId, JobId)>,
    event_reads: usize,
    read_events: usize,
    fail_reads: bool,
    storage_full: bool,
}

impl StoreTables {
    fn remove_passwords(&mut self, job: &JobRecord) {
        let of_job = |o: &&mut JobRequest| (&o.tenant, &o.job) == (&job.tenant, &job.id);
        let files = self
            .job_requests
            .iter_mut()
            .filter(of_job)
            .flat_map(|o| &mut o.files);
        files.for_each(|file| file.password = None);
    }
}

impl FakeStore {
    /// Refuses a change by a key that was removed with its tenant, as a ledger does.
    pub(crate) fn require_key(&self, id: &str) -> Result<(), StorageError> {
        match self.0.lock().keys.contains_key(id) {
            true => Ok(()),
            false => Err(StorageError::NotFound {
                what: format!("key {id}"),
            }),
        }
    }

    pub(crate) fn lock_pipelines(&self) -> MutexGuard<'_, PipelineTables> {
        self.1.lock()
    }

    fn begin_event_read(&self) -> Result<(), StorageError> {
        let mut tables = self.0.lock();
        tables.event_reads += 1;
        if tables.fail_reads {
            return Err(StorageError::Failed {
                what: "events".into(),
                reason: "the test injects this error".into(),
            });
        }
        Ok(())
    }
}

#[async_trait]
impl Ledger for FakeStore {
    async fn commit_entries(&self, entries: Vec<LedgerEntry>) -> Result<(), StorageError> {
        let mut tables = self.0.lock();
        if tables.storage_full {
            let what = "the ledger".into();
            return Err(StorageError::NoSpace { what });
        }
        for entry in &entries {
            if let LedgerEntry::RequireClaim(claim) = entry {
                tables.require_claim(claim)?;
            }
        }
        for entry in entries {
            match entry {
                LedgerEntry::RequireClaim(_) => {}
                LedgerEntry::Job(job) => {
                    if job.state.is_terminal() {
                        tables.claims.entry(job.id).or_default().owner = None;
                    }
                    if job.state.is_terminal() {
                        tables.job_ends.entry(job.id).or_insert_with(unix_time_millis);
                        tables.remove_passwords(&job);
                    }
                    match tables.jobs.iter_mut().find(|j| j.id == job.id) {
                        Some(known) => *known = job,
                        None => tables.jobs.push(job),
                    }
                }
                LedgerEntry::Document(mut document) => {
                    let same = |d: &DocumentRecord| (&d.tenant, d.id) == (&document.tenant, document.id);
                    if let Some(known) = tables.documents.iter().position(same) {
                        document.created_millis = tables.documents.remove(known).created_millis;
                    }
                    tables.documents.push(document);
                }
                LedgerEntry::Page(page) => {
                    let key = (page.tenant.clone(), page.document, page.page);
                    let records = tables.pages.entry(key).or_default();
                    records.retain(|record| record.revision != page.revision);
                    records.push(page);
                }
                LedgerEntry::ComponentLog(tenant, entry) => {
                    tables.component_log.insert((tenant, entry.job, entry.seq), entry);
                }
                LedgerEntry::Event(tenant, event) => {
                    let same =
                        |(t, e): &(TenantId, Event)| *t == tenant && (e.job, e.seq) == (event.job, event.seq);
                    if !tables.events.iter().rev().take(1000).any(same) {
                        tables.events.push((tenant, event));
                    }
                }
            }
        }
        Ok(())
    }

    async fn find_document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<DocumentRecord>, StorageError> {
        let tables = self.0.lock();
        let mut documents = tables.documents.iter();
        Ok(documents
            .find(|d| (&d.tenant, &d.id) == (tenant, document))
            .cloned())
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
        let tables = self.0.lock();
        let position_of = |document: &DocumentRecord| (document.created_millis, document.id);
        let of_tenant = tables.documents.iter().filter(|d| d.tenant == *tenant);
        let mut documents: Vec<_> = of_tenant
            .filter(|d| after.is_none_or(|after| position_of(d) < after))
            .cloned()
            .collect();
        documents.sort_unstable_by_key(|d| std::cmp::Reverse(position_of(d)));
        documents.truncate(limit);
        Ok(documents)
    }

    async fn list_pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        revision: Option<&RevisionId>,
    ) -> Result<Vec<PageRecord>, StorageError> {
        let tables = self.0.lock();
        let pages = tables.pages.iter();
        Ok(pages
            .filter(|((t, d, _), _)| (t, d) == (tenant, document))
            .filter_map(|(_, records)| {
                let mut latest_first = records.iter().rev();
                latest_first.find(|record| revision.is_none_or(|revision| record.revision == *revision))
            })
            .cloned()
            .collect())
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

    async fn find_job(&self, tenant: &TenantId, job: &JobId) -> Result<Option<JobRecord>, StorageError> {
        let tables = self.0.lock();
        let mut jobs = tables.jobs.iter();
        Ok(jobs.find(|j| (&j.tenant, &j.id) == (tenant, job)).cloned())
    }

    async fn list_unfinished_jobs(&self) -> Result<Vec<JobRecord>, StorageError> {
        let tables = self.0.lock();
        let unfinished = tables.jobs.iter().filter(|j| !j.state.is_terminal());
        let mut unfinished: Vec<_> = unfinished.cloned().collect();
        unfinished.sort_by_key(|j| j.created_millis);
        Ok(unfinished)
    }

    async fn list_job_events(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StorageError> {
        self.begin_event_read()?;
        // Yield, so that other tasks can commit while the caller still processes this read.
        let events = {
            let mut tables = self.0.lock();
            let of_job = tables
                .events
                .iter()
                .filter(|(t, e)| t == tenant && e.job == *job && e.seq > after);
            let events: Vec<Event> = of_job.take(limit).map(|(_, e)| e.clone()).collect();
            tables.read_events += events.len();
            events
        };
        tokio::task::yield_now().await;
        Ok(events)
    }

    async fn last_job_event(&self, tenant: &TenantId, job: &JobId) -> Result<Option<Event>, StorageError> {
        Ok(self.list_job_events(tenant, job, 0, usize::MAX).await?.pop())
    }

    async fn list_component_log(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<NumberedComponentLogRecord>, StorageError> {
        let tables = self.0.lock();
        let (from, to) = (after.saturating_add(1), u64::MAX);
        let of_job = tables
            .component_log
            .range((tenant.clone(), *job, from)..=(tenant.clone(), *job, to));
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
        self.begin_event_read()?;
        let events = {
            let tables = self.0.lock();
            let placed = (1..).zip(&tables.events).skip(usize::try_from(after).unwrap());
            placed
                .filter(|(_, (t, _))| t == tenant)
                .take(limit)
                .map(|(position, (_, e))| (position, e.clone()))
                .collect()
        };
        tokio::task::yield_now().await;
        Ok(events)
    }

    async fn last_tenant_event_position(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        let tables = self.0.lock();
        Ok((1..)
            .zip(&tables.events)
            .filter(|(_, (t, _))| t == tenant)
            .map(|(p, _)| p)
            .last()
            .unwrap_or(0))
    }

    async fn erase_document(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        let mut tables = self.0.lock();
        let before = tables.documents.len();
        tables
            .documents
            .retain(|d| (&d.tenant, &d.id) != (tenant, document));
        tables.pages.retain(|(t, d, _), _| (t, d) != (tenant, document));
        let known = tables.documents.len() < before;
        let jobs = tables.mark_jobs_with_erased_document(tenant, document);
        drop(tables);
        self.lock_pipelines().remove_shadow_runs_of_jobs(tenant, &jobs);
        Ok(known)
    }
}

#[async_trait]
impl UsageStore for FakeStore {
    async fn add_daily_usage_of_tenants(
        &self,
        day: UsageDay,
        amounts: Vec<(TenantId, Usage)>,
    ) -> Result<(), StorageError> {
        let mut tables = self.0.lock();
        if tables.fail_reads {
            return Err(StorageError::NoSpace { what: "usage".into() });
        }
        for (tenant, usage) in amounts {
            if tables.tenants.contains_key(&tenant) {
                tables.usage.entry((tenant, day)).or_default().add_amounts(&usage);
            }
        }
        Ok(())
    }

    async fn list_daily_usage(
        &self,
        tenant: &TenantId,
        from: UsageDay,
        to: UsageDay,
    ) -> Result<Vec<(UsageDay, Usage)>, StorageError> {
        let tables = self.0.lock();
        let mut days: Vec<_> = (tables.usage.iter())
            .filter(|((t, day), _)| t == tenant && (from..=to).contains(day))
            .map(|((_, day), usage)| (*day, *usage))
            .collect();
        days.sort_by_key(|(day, _)| *day);
        Ok(days)
    }

    async fn count_stored_bytes(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        Ok(self.0.lock().stored_bytes.get(tenant).copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fake_tenant_store_passes_the_conformance_suite() {
        weir_conformance::check_tenant_store(&FakeStore::default()).await;
    }

    #[tokio::test]
    async fn fake_job_request_store_passes_the_conformance_suite() {
        weir_conformance::check_job_request_store(&FakeStore::default()).await;
    }

    #[tokio::test]
    async fn fake_document_removal_store_passes_the_conformance_suite() {
        weir_conformance::check_document_removal_store(&FakeStore::default()).await;
    }

    #[tokio::test]
    async fn fake_pipeline_store_passes_the_conformance_suite() {
        weir_conformance::check_pipeline_store(&FakeStore::default()).await;
    }

    #[tokio::test]
    async fn fake_shadow_store_passes_the_conformance_suite() {
        weir_conformance::check_shadow_store(&FakeStore::default()).await;
    }

    #[tokio::test]
    async fn fake_retention_store_passes_the_conformance_suite() {
        weir_conformance::check_retention_store(&FakeStore::default()).await;
    }

    #[tokio::test]
    async fn fake_usage_store_passes_the_conformance_suite() {
        weir_conformance::check_usage_store(&FakeStore::default()).await;
    }
}
