//! The fake store of job requests.

use async_trait::async_trait;
use weir_core::job_request::{
    EarlierRequest, IdempotencyKey, JobFilter, JobRequest, JobRequestStore, PutRequestOutcome, RequestedFile,
};
use weir_core::ledger::JobRecord;
use weir_core::{JobId, StorageError, TenantId};

use super::FakeStore;

#[async_trait]
impl JobRequestStore for FakeStore {
    async fn put_job_request(
        &self,
        record: &JobRecord,
        order: &JobRequest,
        idempotency: Option<&IdempotencyKey>,
    ) -> Result<PutRequestOutcome, StorageError> {
        let mut kept = self.0.lock();
        let word = idempotency.map(|word| ((order.tenant.clone(), word.key.clone()), word.request_digest));
        if let Some((word, digest)) = &word {
            match kept.idempotency_keys.get(word) {
                Some((known, job)) if known == digest => return Ok(PutRequestOutcome::AlreadyCreated(*job)),
                Some(_) => return Ok(PutRequestOutcome::KeyConflict),
                None => {}
            }
        }
        let removed = |file: &&RequestedFile| kept.removals.contains(&(order.tenant.clone(), file.document));
        if let Some(file) = order.files.iter().find(removed) {
            return Ok(PutRequestOutcome::DocumentBeingRemoved(file.document));
        }
        if let Some((word, digest)) = word {
            kept.idempotency_keys.insert(word, (digest, order.job));
        }
        kept.jobs.push(record.clone());
        kept.job_requests.push(order.clone());
        if order.webhook.is_some() {
            kept.webhooks.insert((order.tenant.clone(), order.job), 0);
        }
        Ok(PutRequestOutcome::Created)
    }

    async fn find_earlier_request(
        &self,
        tenant: &TenantId,
        word: &str,
    ) -> Result<Option<EarlierRequest>, StorageError> {
        let word = (tenant.clone(), word.to_owned());
        let known = self.0.lock().idempotency_keys.get(&word).copied();
        Ok(known.map(|(digest, job)| EarlierRequest {
            request_digest: digest,
            job,
        }))
    }

    async fn find_job_request(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Option<JobRequest>, StorageError> {
        let kept = self.0.lock();
        let mut orders = kept.job_requests.iter();
        Ok(orders.find(|o| (&o.tenant, &o.job) == (tenant, job)).cloned())
    }

    async fn list_jobs(&self, tenant: &TenantId, filter: &JobFilter) -> Result<Vec<JobRecord>, StorageError> {
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

    async fn list_undelivered_webhooks(&self) -> Result<Vec<(TenantId, JobId, u32)>, StorageError> {
        let kept = self.0.lock();
        let owed = kept.webhooks.iter();
        Ok(owed
            .map(|((tenant, job), tries)| (tenant.clone(), *job, *tries))
            .collect())
    }

    async fn record_webhook_attempt(
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
                    .job_requests
                    .iter_mut()
                    .find(|o| (&o.tenant, &o.job) == (tenant, job));
                order.into_iter().for_each(|order| order.webhook = None);
            }
        }
        Ok(())
    }
}
