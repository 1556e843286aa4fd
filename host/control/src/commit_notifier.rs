//! Notifies subscribers after each commit to the ledger.
//!
//! [`CommitNotifier`] wraps the ledger. The engine commits through it. Once the entries are durable, it notifies the subscribers
//! of their tenants. A subscriber therefore never sees an event that a crash could undo and replace by another event with the
//! same number. The notification carries no data: subscribers read the new events from the ledger, with one reader for each tenant.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use weir_core::component_log::NumberedComponentLogRecord;
use weir_core::event::Event;
use weir_core::ledger::{DocumentRecord, JobRecord, LedgerEntry, PageRecord};
use weir_core::ports::Ledger;
use weir_core::{DocumentId, JobId, PageNumber, RevisionId, StorageError, TenantId};

use crate::node_messages::NodeMessages;

/// Time after which the event streams of a tenant look for events that other nodes have committed.
const SHARED_LEDGER_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The same while other nodes announce their commits. An announcement can be lost.
const ANNOUNCED_POLL_INTERVAL: Duration = Duration::from_secs(3);

/// A ledger that notifies the subscribers of a tenant after each commit with entries of that tenant.
pub struct CommitNotifier {
    ledger: Arc<dyn Ledger>,
    subscribers: Mutex<HashMap<TenantId, watch::Sender<()>>>,
    job_end: Notify,
    /// `None` if there are no other nodes.
    other_nodes: Option<Arc<NodeMessages>>,
}

impl CommitNotifier {
    /// Wraps `ledger`.
    pub fn new(ledger: Arc<dyn Ledger>) -> Arc<Self> {
        Self::with_other_nodes(ledger, None)
    }

    /// Wraps a ledger to which other nodes commit too. Their commits are announced if this node receives their messages, and looked for
    /// otherwise.
    pub fn for_shared_ledger(ledger: Arc<dyn Ledger>, messages: Arc<NodeMessages>) -> Arc<Self> {
        Self::with_other_nodes(ledger, Some(messages))
    }

    fn with_other_nodes(ledger: Arc<dyn Ledger>, other_nodes: Option<Arc<NodeMessages>>) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            subscribers: Mutex::default(),
            job_end: Notify::new(),
            other_nodes,
        })
    }

    /// Waits until entries of the tenant of `commits` may have been committed. Returns an error if there is no notifier any more.
    pub(crate) async fn wait_for_commit(
        &self,
        commits: &mut watch::Receiver<()>,
    ) -> Result<(), watch::error::RecvError> {
        let interval = match &self.other_nodes {
            None => return commits.changed().await,
            Some(messages) if messages.receives_messages() => ANNOUNCED_POLL_INTERVAL,
            Some(_) => SHARED_LEDGER_POLL_INTERVAL,
        };
        timeout(interval, commits.changed()).await.unwrap_or(Ok(()))
    }

    /// Returns a receiver that changes after each commit with entries of this tenant.
    pub fn subscribe_to_tenant_commits(&self, tenant: &TenantId) -> watch::Receiver<()> {
        let mut subscribers = self.subscribers.lock();
        subscribers.retain(|_, sender| sender.receiver_count() > 0);
        subscribers.entry(tenant.clone()).or_default().subscribe()
    }

    /// Waits until the end of a job of any tenant has been committed since the last call. Supports one caller at a time.
    pub async fn wait_for_any_job_end(&self) {
        self.job_end.notified().await;
    }

    /// Notifies all subscribers.
    pub(crate) fn notify_all_subscribers(&self) {
        for sender in self.subscribers.lock().values() {
            sender.send_replace(());
        }
    }

    /// Notifies the subscribers of a tenant.
    pub fn notify_subscribers(&self, tenant: &TenantId) {
        if let Some(sender) = self.subscribers.lock().get(tenant) {
            sender.send_replace(());
        }
    }
}

#[async_trait]
impl Ledger for CommitNotifier {
    async fn commit_entries(&self, entries: Vec<LedgerEntry>) -> Result<(), StorageError> {
        let mut tenants: Vec<TenantId> = entries.iter().map(|entry| entry.tenant().clone()).collect();
        tenants.sort_unstable();
        tenants.dedup();
        let ended =
            |entry: &LedgerEntry| matches!(entry, LedgerEntry::Job(record) if record.state.is_terminal());
        let ended = entries.iter().any(ended);
        self.ledger.commit_entries(entries).await?;
        if ended {
            self.job_end.notify_one();
        }
        tenants.iter().for_each(|tenant| self.notify_subscribers(tenant));
        if let Some(messages) = &self.other_nodes {
            messages.announce_events(&tenants);
        }
        Ok(())
    }

    async fn find_document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<DocumentRecord>, StorageError> {
        self.ledger.find_document(tenant, document).await
    }

    async fn list_tenant_documents(&self, tenant: &TenantId) -> Result<Vec<DocumentRecord>, StorageError> {
        self.ledger.list_tenant_documents(tenant).await
    }

    async fn list_pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        revision: Option<&RevisionId>,
    ) -> Result<Vec<PageRecord>, StorageError> {
        self.ledger.list_pages(tenant, document, revision).await
    }

    async fn find_page(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        page: PageNumber,
        revision: Option<&RevisionId>,
    ) -> Result<Option<PageRecord>, StorageError> {
        self.ledger.find_page(tenant, document, page, revision).await
    }

    async fn find_job(&self, tenant: &TenantId, job: &JobId) -> Result<Option<JobRecord>, StorageError> {
        self.ledger.find_job(tenant, job).await
    }

    async fn list_unfinished_jobs(&self) -> Result<Vec<JobRecord>, StorageError> {
        self.ledger.list_unfinished_jobs().await
    }

    async fn list_job_events(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StorageError> {
        self.ledger.list_job_events(tenant, job, after, limit).await
    }

    async fn last_job_event(&self, tenant: &TenantId, job: &JobId) -> Result<Option<Event>, StorageError> {
        self.ledger.last_job_event(tenant, job).await
    }

    async fn list_tenant_events(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StorageError> {
        self.ledger.list_tenant_events(tenant, after, limit).await
    }

    async fn list_component_log(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<NumberedComponentLogRecord>, StorageError> {
        self.ledger.list_component_log(tenant, job, after, limit).await
    }

    async fn last_component_log_seq(&self, tenant: &TenantId, job: &JobId) -> Result<u64, StorageError> {
        self.ledger.last_component_log_seq(tenant, job).await
    }

    async fn last_tenant_event_position(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        self.ledger.last_tenant_event_position(tenant).await
    }

    async fn list_tenant_documents_after(
        &self,
        tenant: &TenantId,
        after: Option<(u64, DocumentId)>,
        limit: usize,
    ) -> Result<Vec<DocumentRecord>, StorageError> {
        self.ledger
            .list_tenant_documents_after(tenant, after, limit)
            .await
    }

    async fn list_pages_after(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        after: PageNumber,
        limit: usize,
    ) -> Result<Vec<PageRecord>, StorageError> {
        self.ledger.list_pages_after(tenant, document, after, limit).await
    }

    async fn erase_document(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        self.ledger.erase_document(tenant, document).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeStore;

    #[tokio::test]
    async fn fake_ledger_and_notifier_pass_the_conformance_suite() {
        weir_conformance::check_ledger(&FakeStore::default()).await;
        weir_conformance::check_job_claim_store(&FakeStore::default()).await;
        weir_conformance::check_node_registry(&FakeStore::default()).await;
        let notifier = CommitNotifier::new(Arc::new(FakeStore::default()));
        weir_conformance::check_ledger(notifier.as_ref()).await;
    }
}
