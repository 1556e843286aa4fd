//! The fake stores of job requests and of document removals in progress.

use std::collections::BTreeSet;

use async_trait::async_trait;
use weir_core::document_removal::{BeginRemovalOutcome, DocumentRemovalStore};
use weir_core::event::{Event, EventKind};
use weir_core::job_request::{
    EarlierIdempotentRequest, IdempotencyKey, JobFilter, JobRequest, JobRequestStore, JobSnapshot,
    PutRequestOutcome, RequestedFile,
};
use weir_core::ledger::JobRecord;
use weir_core::ports::Ledger as _;
use weir_core::revision::PipelineStore as _;
use weir_core::{DocumentId, JobId, StorageError, TenantId};

use super::{FakeStore, StoreTables};

#[async_trait]
impl JobRequestStore for FakeStore {
    async fn create_job_with_request(
        &self,
        record: &JobRecord,
        job_request: &JobRequest,
        idempotency: Option<&IdempotencyKey>,
    ) -> Result<PutRequestOutcome, StorageError> {
        let mut tables = self.0.lock();
        let tenant_key_and_digest = idempotency.map(|idempotency_key| {
            (
                (job_request.tenant.clone(), idempotency_key.key.clone()),
                idempotency_key.request_digest,
            )
        });
        if let Some((tenant_key, digest)) = &tenant_key_and_digest {
            match tables.idempotency_keys.get(tenant_key) {
                Some((known, job)) if known == digest => return Ok(PutRequestOutcome::AlreadyCreated(*job)),
                Some(_) => return Ok(PutRequestOutcome::KeyConflict),
                None => {}
            }
        }
        let removed = |file: &&RequestedFile| {
            tables
                .removals
                .contains(&(job_request.tenant.clone(), file.document))
        };
        if let Some(file) = job_request.files.iter().find(removed) {
            return Ok(PutRequestOutcome::DocumentBeingRemoved(file.document));
        }
        let tenant_and_job = (&job_request.tenant, &job_request.job);
        let mut known_requests = tables.job_requests.iter();
        if known_requests.any(|known| (&known.tenant, &known.job) == tenant_and_job) {
            return Err(StorageError::Failed {
                what: "a job request".into(),
                reason: "the job has a request already".into(),
            });
        }
        if let Some((tenant_key, digest)) = tenant_key_and_digest {
            tables
                .idempotency_keys
                .insert(tenant_key, (digest, job_request.job));
        }
        let is_same = |job: &JobRecord| (&job.tenant, &job.id) == (&record.tenant, &record.id);
        tables.jobs.retain(|job| !is_same(job));
        tables.jobs.push(record.clone());
        tables.job_requests.push(job_request.clone());
        if job_request.webhook.is_some() {
            tables
                .webhooks
                .insert((job_request.tenant.clone(), job_request.job), 0);
        }
        Ok(PutRequestOutcome::Created)
    }

    async fn find_request_by_idempotency_key(
        &self,
        tenant: &TenantId,
        idempotency_key: &str,
    ) -> Result<Option<EarlierIdempotentRequest>, StorageError> {
        let tenant_key = (tenant.clone(), idempotency_key.to_owned());
        let known = self.0.lock().idempotency_keys.get(&tenant_key).copied();
        Ok(known.map(|(digest, job)| EarlierIdempotentRequest {
            request_digest: digest,
            job,
        }))
    }

    async fn find_job_request(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Option<JobRequest>, StorageError> {
        let tables = self.0.lock();
        let mut job_requests = tables.job_requests.iter();
        Ok(job_requests
            .find(|request| (&request.tenant, &request.job) == (tenant, job))
            .cloned())
    }

    async fn read_job_snapshot(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Option<JobSnapshot>, StorageError> {
        let Some(record) = self.find_job(tenant, job).await? else {
            return Ok(None);
        };
        let events = match limit {
            0 => Vec::new(),
            _ => self.list_job_events(tenant, job, after, limit).await?,
        };
        Ok(Some(JobSnapshot {
            record,
            request: self.find_job_request(tenant, job).await?,
            assigned_revision: self.find_assigned_revision_of_job(tenant, job).await?,
            events,
        }))
    }

    async fn list_jobs(&self, tenant: &TenantId, filter: &JobFilter) -> Result<Vec<JobRecord>, StorageError> {
        let tables = self.0.lock();
        let mut jobs: Vec<_> = tables
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

    async fn list_undelivered_webhooks(&self) -> Result<Vec<(TenantId, JobId, u32)>, StorageError> {
        let tables = self.0.lock();
        let has_ended = |tenant: &TenantId, job: &JobId| {
            let mut ended = tables.jobs.iter().filter(|j| j.state.is_terminal());
            ended.any(|j| (&j.tenant, &j.id) == (tenant, job))
        };
        let pending = tables
            .webhooks
            .iter()
            .filter(|((tenant, job), _)| has_ended(tenant, job));
        let mut pending: Vec<_> = pending
            .map(|((tenant, job), attempts)| (tenant.clone(), *job, *attempts))
            .collect();
        pending.sort_by_key(|(_, job, _)| *job);
        Ok(pending)
    }

    async fn record_webhook_attempts_or_end(
        &self,
        tenant: &TenantId,
        job: &JobId,
        tries: Option<u32>,
    ) -> Result<(), StorageError> {
        let (key, mut tables) = ((tenant.clone(), *job), self.0.lock());
        match tries {
            Some(tries) => {
                if let Some(attempts) = tables.webhooks.get_mut(&key) {
                    *attempts = tries;
                }
            }
            None => {
                tables.webhooks.remove(&key);
                let job_request = tables
                    .job_requests
                    .iter_mut()
                    .find(|request| (&request.tenant, &request.job) == (tenant, job));
                job_request.into_iter().for_each(|order| order.webhook = None);
            }
        }
        Ok(())
    }
}

impl StoreTables {
    /// Returns the jobs whose request names the document, and those with a document-started event of it.
    pub(super) fn jobs_with(&self, tenant: &TenantId, document: &DocumentId) -> BTreeSet<JobId> {
        let requests = self.job_requests.iter().filter(|job_request| {
            job_request.tenant == *tenant && job_request.files.iter().any(|file| file.document == *document)
        });
        let is_started = |event: &Event| {
            event.document == Some(*document) && matches!(event.kind, EventKind::DocumentStarted { .. })
        };
        let events = self.events.iter();
        let started = events.filter(|(owner, event)| owner == tenant && is_started(event));
        let requested = requests.map(|job_request| job_request.job);
        requested.chain(started.map(|(_, event)| event.job)).collect()
    }

    /// Records that the document was erased, and returns the jobs that had it.
    pub(super) fn mark_jobs_with_erased_document(
        &mut self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> BTreeSet<JobId> {
        let jobs = self.jobs_with(tenant, document);
        let marks = jobs.iter().map(|job| (tenant.clone(), *job));
        self.jobs_with_erased_document.extend(marks);
        jobs
    }
}

impl FakeStore {
    /// Returns whether a document of the job was erased.
    pub(crate) fn job_has_erased_document(&self, tenant: &TenantId, job: &JobId) -> bool {
        let tables = self.0.lock();
        tables.jobs_with_erased_document.contains(&(tenant.clone(), *job))
    }
}

#[async_trait]
impl DocumentRemovalStore for FakeStore {
    async fn begin_document_removal(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<BeginRemovalOutcome, StorageError> {
        let mut tables = self.0.lock();
        let jobs = tables.jobs_with(tenant, document);
        let mut unfinished = tables.jobs.iter().filter(|job| !job.state.is_terminal());
        if unfinished.any(|job| job.tenant == *tenant && jobs.contains(&job.id)) {
            return Ok(BeginRemovalOutcome::UsedByActiveJob);
        }
        Ok(match tables.removals.insert((tenant.clone(), *document)) {
            true => BeginRemovalOutcome::Started,
            false => BeginRemovalOutcome::AlreadyInProgress,
        })
    }

    async fn end_document_removal(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        self.0.lock().removals.remove(&(tenant.clone(), *document));
        Ok(())
    }

    async fn list_unfinished_removals(&self) -> Result<Vec<(TenantId, DocumentId)>, StorageError> {
        Ok(self.0.lock().removals.iter().cloned().collect())
    }

    async fn list_jobs_with_document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<JobId>, StorageError> {
        let jobs = self.0.lock().jobs_with(tenant, document);
        Ok(jobs.into_iter().collect())
    }
}
