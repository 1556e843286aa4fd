//! The fake stores of job requests and of document removals in progress.

use async_trait::async_trait;
use weir_core::document_removal::{BeginRemovalOutcome, DocumentRemovalStore};
use weir_core::job_request::{
    EarlierIdempotentRequest, IdempotencyKey, JobFilter, JobRequest, JobRequestStore, PutRequestOutcome,
    RequestedFile,
};
use weir_core::ledger::JobRecord;
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
        if let Some((tenant_key, digest)) = tenant_key_and_digest {
            tables
                .idempotency_keys
                .insert(tenant_key, (digest, job_request.job));
        }
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
        let pending_webhooks = tables.webhooks.iter();
        Ok(pending_webhooks
            .map(|((tenant, job), attempts)| (tenant.clone(), *job, *attempts))
            .collect())
    }

    async fn record_webhook_attempts_or_end(
        &self,
        tenant: &TenantId,
        job: &JobId,
        tries: Option<u32>,
    ) -> Result<(), StorageError> {
        let (key, mut tables) = ((tenant.clone(), *job), self.0.lock());
        match tries {
            Some(tries) => drop(tables.webhooks.insert(key, tries)),
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
    fn jobs_with(&self, tenant: &TenantId, document: &DocumentId) -> Vec<JobId> {
        let with = self.job_requests.iter().filter(|job_request| {
            job_request.tenant == *tenant && job_request.files.iter().any(|file| file.document == *document)
        });
        with.map(|job_request| job_request.job).collect()
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
        if unfinished.any(|job| jobs.contains(&job.id)) {
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
        Ok(self.0.lock().jobs_with(tenant, document))
    }
}
