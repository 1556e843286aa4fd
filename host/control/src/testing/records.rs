//! Helpers that create tenants, jobs, job requests and events directly in the fake stores, and that read metrics.

use metrics_exporter_prometheus::PrometheusRecorder;
use weir_core::event::{Event, EventKind};
use weir_core::job_request::{JobRequest, JobRequestOptions, JobRequestStore as _, RequestedFile};
use weir_core::ledger::{JobRecord, JobState, LedgerEntry};
use weir_core::ports::Ledger;
use weir_core::retention::RetentionPeriods;
use weir_core::tenancy::{KeyScope, OverridableNumbers as _, Quotas, Tenant, TenantState, TenantStore as _};
use weir_core::{DocumentId, JobId, RevisionId, TenantId};

use super::{FakeStore, TestControl};

impl TestControl {
    /// Creates a tenant and a key with these scopes.
    pub async fn create_tenant(&self, name: &str, scopes: &[KeyScope]) -> (TenantId, String) {
        create_tenant_with_key(&self.store, name, scopes).await
    }

    /// Changes a tenant's record.
    pub async fn change_tenant(&self, tenant: &TenantId, change: impl FnOnce(&mut Tenant)) {
        self.store.set_tenant(tenant, change);
    }

    /// Sets a quota of a tenant.
    pub async fn set_quota(&self, tenant: &TenantId, name: &str, limit: u64) {
        let set = |tenant: &mut Tenant| *tenant.quotas.by_name_mut(name).unwrap() = Some(limit);
        self.change_tenant(tenant, set).await;
    }

    /// Creates a running job without events.
    pub async fn create_running_job(&self, tenant: &TenantId) -> JobId {
        let id = JobId::new();
        self.control
            .ledger
            .commit_entries(vec![LedgerEntry::Job(job_record(tenant, id, JobState::Running))])
            .await
            .unwrap();
        id
    }

    /// Creates a queued job with one file.
    pub async fn create_queued_job(&self, tenant: &TenantId, job: JobId, document: DocumentId) {
        let job_request = sample_job_request(tenant, job, document);
        let record = job_record(tenant, job, JobState::Queued);
        self.store
            .create_job_with_request(&record, &job_request, None)
            .await
            .unwrap();
    }

    /// Commits a queued job of one file to the ledger, as a submission would.
    pub async fn commit_queued_job(
        &self,
        tenant: &TenantId,
        content: &str,
        created_millis: u64,
    ) -> JobRequest {
        let job_request = sample_job_request(tenant, JobId::new(), self.store_upload(tenant, content));
        let record = JobRecord {
            created_millis,
            ..job_record(tenant, job_request.job, JobState::Queued)
        };
        self.store
            .create_job_with_request(&record, &job_request, None)
            .await
            .unwrap();
        job_request
    }

    /// Commits a job of one file to the ledger and queues it.
    pub async fn enqueue_job(&self, tenant: &TenantId, content: &str) -> JobId {
        let job_request = self.commit_queued_job(tenant, content, 1).await;
        self.control
            .admission
            .reserve_queue_place(tenant, None)
            .unwrap()
            .enqueue_reserved_job(&job_request);
        job_request.job
    }

    /// Stores an uploaded file and returns its document id.
    pub fn store_upload(&self, tenant: &TenantId, content: &str) -> DocumentId {
        let document = DocumentId::from_content(content.as_bytes());
        std::fs::write(self.uploads.upload_path(tenant, &document), content).unwrap();
        document
    }

    /// Commits the events `from..=to` of a job. If `ends` is true, the last one ends the job.
    pub async fn commit_events(&self, tenant: &TenantId, job: JobId, from: u64, to: u64, ends: bool) {
        commit_events(self.control.ledger.as_ref(), tenant, job, from, to, ends).await;
    }
}

async fn create_tenant_with_key(store: &FakeStore, name: &str, scopes: &[KeyScope]) -> (TenantId, String) {
    let id: TenantId = name.parse().unwrap();
    let tenant = Tenant {
        id: id.clone(),
        state: TenantState::Active,
        weight: 1.0,
        quotas: Quotas::default(),
        retention: RetentionPeriods::default(),
        created_millis: 0,
    };
    store.create_tenant(&tenant).await.unwrap();
    let key = crate::api_key::generate_api_key(&id, scopes.to_vec(), "test", 0, None).unwrap();
    store.put_api_key(&key.record).await.unwrap();
    (id, key.full_key)
}

/// Returns a job request with one small file.
pub fn sample_job_request(tenant: &TenantId, job: JobId, document: DocumentId) -> JobRequest {
    let file = RequestedFile {
        name: "file.pdf".into(),
        document,
        bytes: 1,
        password: None,
    };
    JobRequest {
        job,
        tenant: tenant.clone(),
        lane: None,
        files: vec![file],
        options: JobRequestOptions::default(),
        webhook: None,
        traceparent: None,
    }
}

/// Returns the record of a job of the default pipeline.
pub fn job_record(tenant: &TenantId, id: JobId, state: JobState) -> JobRecord {
    JobRecord {
        id,
        tenant: tenant.clone(),
        pipeline: "default".into(),
        revision: RevisionId::from_content(b"revision"),
        state,
        created_millis: 1,
    }
}

/// Commits the events `from..=to` of a job. If `ends` is true, the last one ends the job.
pub async fn commit_events(
    ledger: &dyn Ledger,
    tenant: &TenantId,
    job: JobId,
    from: u64,
    to: u64,
    ends: bool,
) {
    let mut entries: Vec<_> = (from..=to)
        .map(|seq| {
            let kind = if ends && seq == to {
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
            let document = Some(DocumentId::from_content(b"document"));
            let event = Event {
                seq,
                job,
                document,
                since_job_created_millis: seq,
                kind,
            };
            LedgerEntry::Event(tenant.clone(), event)
        })
        .collect();
    if ends {
        entries.push(LedgerEntry::Job(job_record(tenant, job, JobState::Done)));
    }
    ledger.commit_entries(entries).await.unwrap();
}

/// Returns the value of a metric by its name and labels in Prometheus text format; 0 if it has not been recorded.
pub fn metric_value(recorder: &PrometheusRecorder, series: &str) -> f64 {
    let text = recorder.handle().render();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// A generator of pseudo-random numbers that are the same in each run.
pub struct TestRng(u64);

impl TestRng {
    /// Creates a generator. `seed` must not be 0.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below `bound`.
    pub fn next_below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
