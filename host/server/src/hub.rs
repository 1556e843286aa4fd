//! What has been committed, told to whoever follows.
//!
//! [`Announced`] is the ledger with a bell: the engine commits through it, and once the entries are durable it rings for
//! their tenants. Followers are thus never told an event that a crash could take back and replace by another under the same
//! number. They read what is new from the ledger, one reader for all followers of a tenant.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use weir_core::event::Event;
use weir_core::ledger::{DocumentRecord, Entry, JobRecord, PageRecord};
use weir_core::ports::Ledger;
use weir_core::said::LogEntry;
use weir_core::{DocumentId, JobId, PageNumber, RevisionId, StorageError, TenantId};

/// A ledger that rings when something has been committed.
pub struct Announced {
    ledger: Arc<dyn Ledger>,
    bells: Mutex<HashMap<TenantId, watch::Sender<()>>>,
    ended: Notify,
}

impl Announced {
    /// Over this ledger.
    pub fn new(ledger: Arc<dyn Ledger>) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            bells: Mutex::default(),
            ended: Notify::new(),
        })
    }

    /// Rings after each commit with entries of this tenant.
    pub(crate) fn bell(&self, tenant: &TenantId) -> watch::Receiver<()> {
        let mut bells = self.bells.lock();
        bells.retain(|_, bell| bell.receiver_count() > 0);
        bells.entry(tenant.clone()).or_default().subscribe()
    }

    /// Returns once a job's end has been committed since the last time, of whatever tenant. For one listener.
    pub(crate) async fn job_ended(&self) {
        self.ended.notified().await;
    }

    /// Rings for a tenant.
    pub(crate) fn ring(&self, tenant: &TenantId) {
        if let Some(bell) = self.bells.lock().get(tenant) {
            bell.send_replace(());
        }
    }
}

#[async_trait]
impl Ledger for Announced {
    async fn commit(&self, entries: Vec<Entry>) -> Result<(), StorageError> {
        let mut tenants: Vec<TenantId> = entries.iter().map(|entry| tenant_of(entry).clone()).collect();
        tenants.sort_unstable();
        tenants.dedup();
        let ended = |entry: &Entry| matches!(entry, Entry::Job(record) if record.state.is_ended());
        let ended = entries.iter().any(ended);
        self.ledger.commit(entries).await?;
        if ended {
            self.ended.notify_one();
        }
        tenants.iter().for_each(|tenant| self.ring(tenant));
        Ok(())
    }

    async fn document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<DocumentRecord>, StorageError> {
        self.ledger.document(tenant, document).await
    }

    async fn documents(&self, tenant: &TenantId) -> Result<Vec<DocumentRecord>, StorageError> {
        self.ledger.documents(tenant).await
    }

    async fn pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        revision: Option<&RevisionId>,
    ) -> Result<Vec<PageRecord>, StorageError> {
        self.ledger.pages(tenant, document, revision).await
    }

    async fn job(&self, tenant: &TenantId, job: &JobId) -> Result<Option<JobRecord>, StorageError> {
        self.ledger.job(tenant, job).await
    }

    async fn unfinished(&self) -> Result<Vec<JobRecord>, StorageError> {
        self.ledger.unfinished().await
    }

    async fn events(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StorageError> {
        self.ledger.events(tenant, job, after, limit).await
    }

    async fn tenant_events(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StorageError> {
        self.ledger.tenant_events(tenant, after, limit).await
    }

    async fn said(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        self.ledger.said(tenant, job, after, limit).await
    }

    async fn last_said(&self, tenant: &TenantId, job: &JobId) -> Result<u64, StorageError> {
        self.ledger.last_said(tenant, job).await
    }

    async fn tenant_place(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        self.ledger.tenant_place(tenant).await
    }

    async fn documents_after(
        &self,
        tenant: &TenantId,
        after: Option<(u64, DocumentId)>,
        limit: usize,
    ) -> Result<Vec<DocumentRecord>, StorageError> {
        self.ledger.documents_after(tenant, after, limit).await
    }

    async fn pages_after(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        after: PageNumber,
        limit: usize,
    ) -> Result<Vec<PageRecord>, StorageError> {
        self.ledger.pages_after(tenant, document, after, limit).await
    }

    async fn forget(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        self.ledger.forget(tenant, document).await
    }
}

const fn tenant_of(entry: &Entry) -> &TenantId {
    match entry {
        Entry::Job(record) => &record.tenant,
        Entry::Document(record) => &record.tenant,
        Entry::Page(record) => &record.tenant,
        Entry::Event(tenant, _) | Entry::Said(tenant, _) => tenant,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::Memory;

    #[tokio::test]
    async fn ledgers_pass_the_conformance_suite() {
        weir_conformance::check_ledger(&Memory::default()).await;
        let announced = Announced::new(Arc::new(Memory::default()));
        weir_conformance::check_ledger(announced.as_ref()).await;
    }
}
