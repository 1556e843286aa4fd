//! Tenants, jobs, orders and events written down as if all that made them had happened.

use weir_core::event::{Event, EventKind};
use weir_core::ledger::{Entry, JobRecord, JobState};
use weir_core::order::{Order, OrderOptions, OrderedFile, Orders as _};
use weir_core::original::Originals as _;
use weir_core::ports::Ledger;
use weir_core::tenancy::{Quotas, Registry as _, Scope, Tenant, TenantState};
use weir_core::{DocumentId, JobId, RevisionId, TenantId};

use super::{Host, Memory};

impl Host {
    /// Makes a tenant with a key of these scopes.
    pub(crate) async fn tenant(&self, name: &str, scopes: &[Scope]) -> (TenantId, String) {
        tenant(&self.memory, name, scopes).await
    }

    /// Changes a tenant's record.
    pub(crate) async fn change(&self, tenant: &TenantId, change: impl FnOnce(&mut Tenant)) {
        self.memory.set_tenant(tenant, change);
    }

    /// Gives a tenant a quota.
    pub(crate) async fn quota(&self, tenant: &TenantId, name: &str, limit: u64) {
        let set = |tenant: &mut Tenant| *tenant.quotas.by_name_mut(name).unwrap() = Some(limit);
        self.change(tenant, set).await;
    }

    /// A job of a tenant without events.
    pub(crate) async fn job(&self, tenant: &TenantId) -> JobId {
        let id = JobId::new();
        self.app
            .ledger
            .commit(vec![Entry::Job(job_record(tenant, id, JobState::Running))])
            .await
            .unwrap();
        id
    }

    /// Puts in a job with one file.
    pub(crate) async fn order(&self, tenant: &TenantId, job: JobId, document: DocumentId) {
        let order = order(tenant, job, document);
        let record = job_record(tenant, job, JobState::Queued);
        self.memory.put(&record, &order, None).await.unwrap();
    }

    /// Puts a document's original where it is kept.
    pub(crate) fn original(&self, tenant: &TenantId, content: &str) -> DocumentId {
        let document = DocumentId::of(content.as_bytes());
        std::fs::write(self.files.path(tenant, &document), content).unwrap();
        document
    }

    /// Commits events `from..=to` of a job; with the last one the job ends if `ends`.
    pub(crate) async fn events(&self, tenant: &TenantId, job: JobId, from: u64, to: u64, ends: bool) {
        commit_events(self.app.ledger.as_ref(), tenant, job, from, to, ends).await;
    }
}

async fn tenant(memory: &Memory, name: &str, scopes: &[Scope]) -> (TenantId, String) {
    let id: TenantId = name.parse().unwrap();
    let tenant = Tenant {
        id: id.clone(),
        state: TenantState::Active,
        weight: 1.0,
        quotas: Quotas::default(),
        created_millis: 0,
    };
    memory.create_tenant(&tenant).await.unwrap();
    let key = crate::auth::mint(&id, scopes.to_vec(), "test", 0, None).unwrap();
    memory.put_key(&key.record).await.unwrap();
    (id, key.text)
}

/// An order of one small file.
pub(crate) fn order(tenant: &TenantId, job: JobId, document: DocumentId) -> Order {
    let file = OrderedFile {
        name: "file.pdf".into(),
        document,
        bytes: 1,
        password: None,
    };
    Order {
        job,
        tenant: tenant.clone(),
        lane: None,
        files: vec![file],
        options: OrderOptions::default(),
        webhook: None,
        trace: None,
    }
}

pub(crate) fn job_record(tenant: &TenantId, id: JobId, state: JobState) -> JobRecord {
    JobRecord {
        id,
        tenant: tenant.clone(),
        pipeline: "default".into(),
        revision: RevisionId::of(b"revision"),
        state,
        created_millis: 1,
    }
}

pub(crate) async fn commit_events(
    ledger: &dyn Ledger,
    tenant: &TenantId,
    job: JobId,
    from: u64,
    to: u64,
    ends: bool,
) {
    let mut entries: Vec<_> = (from..=to)
        .map(|seq| {
            let what = if ends && seq == to {
                EventKind::JobEnded {
                    state: JobState::Done,
                    stages: Vec::new(),
                }
            } else {
                EventKind::PageDone {
                    page: u32::try_from(seq).unwrap(),
                    searchable: true,
                    passages: 1,
                }
            };
            let document = Some(DocumentId::of(b"document"));
            let event = Event {
                seq,
                job,
                document,
                at_millis: seq,
                what,
            };
            Entry::Event(tenant.clone(), event)
        })
        .collect();
    if ends {
        entries.push(Entry::Job(job_record(tenant, job, JobState::Done)));
    }
    ledger.commit(entries).await.unwrap();
}
