//! Removal of expired records of the fake store.

use async_trait::async_trait;
use weir_core::retention::{RecordKind, RetentionStore};
use weir_core::{DocumentId, JobId, StorageError, TenantId};

use super::FakeStore;

const MILLIS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

#[async_trait]
impl RetentionStore for FakeStore {
    async fn count_expired_records(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        before: u64,
    ) -> Result<u64, StorageError> {
        let expired = match kind {
            RecordKind::EndedJobs => return Ok(self.expired_jobs(tenant, before).len() as u64),
            RecordKind::Usage => self.expired_usage_days(tenant, before).len(),
            RecordKind::RevokedKeys => self.expired_keys(tenant, before).len(),
            RecordKind::AuditLog => self.remove_audit_entries(tenant, before, 0),
        };
        Ok(expired as u64)
    }

    async fn list_expired_jobs(
        &self,
        tenant: &TenantId,
        before: u64,
        limit: u32,
    ) -> Result<Vec<JobId>, StorageError> {
        let mut expired = self.expired_jobs(tenant, before);
        expired.truncate(limit as usize);
        Ok(expired)
    }

    async fn list_unread_documents_of_jobs(
        &self,
        tenant: &TenantId,
        jobs: &[JobId],
    ) -> Result<Vec<DocumentId>, StorageError> {
        let tables = self.0.lock();
        let requests = tables.job_requests.iter();
        let requested = requests
            .filter(|request| request.tenant == *tenant && jobs.contains(&request.job))
            .flat_map(|request| request.files.iter().map(|file| file.document));
        let is_read = |document: &DocumentId| {
            tables
                .documents
                .iter()
                .any(|d| d.tenant == *tenant && d.id == *document)
        };
        let mut unread: Vec<DocumentId> = requested
            .filter(|document| !is_read(document))
            .filter(|document| {
                let all_jobs = tables.jobs_with(tenant, document);
                all_jobs.iter().all(|job| jobs.contains(job))
            })
            .collect();
        unread.sort_unstable();
        unread.dedup();
        Ok(unread)
    }

    async fn remove_ended_jobs(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<u64, StorageError> {
        let mut tables = self.0.lock();
        let ended: Vec<JobId> = tables
            .jobs
            .iter()
            .filter(|job| job.tenant == *tenant && job.state.is_terminal() && jobs.contains(&job.id))
            .map(|job| job.id)
            .collect();
        let stays = |of: &TenantId, job: &JobId| of != tenant || !ended.contains(job);
        tables.jobs.retain(|job| stays(&job.tenant, &job.id));
        tables.events.retain(|(of, event)| stays(of, &event.job));
        tables.component_log.retain(|(of, job, _), _| stays(of, job));
        tables
            .job_requests
            .retain(|request| stays(&request.tenant, &request.job));
        tables.webhooks.retain(|(of, job), _| stays(of, job));
        tables.idempotency_keys.retain(|(of, _), (_, job)| stays(of, job));
        let mut pipelines = self.1.lock();
        pipelines.shadow_runs.retain(|run| stays(&run.tenant, &run.job));
        Ok(ended.len() as u64)
    }

    async fn remove_expired_records(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        before: u64,
        limit: u32,
    ) -> Result<u64, StorageError> {
        let limit = limit as usize;
        let removed = match kind {
            RecordKind::EndedJobs => 0,
            RecordKind::Usage => {
                let mut days = self.expired_usage_days(tenant, before);
                days.truncate(limit);
                let mut tables = self.0.lock();
                for day in &days {
                    tables.usage.remove(&(tenant.clone(), *day));
                }
                days.len()
            }
            RecordKind::RevokedKeys => {
                let mut keys = self.expired_keys(tenant, before);
                keys.truncate(limit);
                self.0.lock().keys.retain(|id, _| !keys.contains(id));
                keys.len()
            }
            RecordKind::AuditLog => self.remove_audit_entries(tenant, before, limit),
        };
        Ok(removed as u64)
    }
}

impl FakeStore {
    fn expired_jobs(&self, tenant: &TenantId, before: u64) -> Vec<JobId> {
        let tables = self.0.lock();
        let mut expired: Vec<_> = tables
            .jobs
            .iter()
            .filter(|job| job.tenant == *tenant && job.state.is_terminal())
            .filter(|job| !tables.webhooks.contains_key(&(tenant.clone(), job.id)))
            .map(|job| (tables.job_ends.get(&job.id).copied().unwrap_or_default(), job.id))
            .filter(|(ended, _)| *ended < before)
            .collect();
        expired.sort_unstable();
        expired.into_iter().map(|(_, id)| id).collect()
    }

    fn expired_usage_days(&self, tenant: &TenantId, before: u64) -> Vec<u32> {
        let tables = self.0.lock();
        let days = tables.usage.keys();
        days.filter(|(of, day)| of == tenant && u64::from(*day) < before / MILLIS_PER_DAY)
            .map(|(_, day)| *day)
            .collect()
    }

    fn expired_keys(&self, tenant: &TenantId, before: u64) -> Vec<String> {
        let tables = self.0.lock();
        let has_passed = |time: Option<u64>| time.is_some_and(|time| time < before);
        tables
            .keys
            .values()
            .filter(|key| key.tenant == *tenant)
            .filter(|key| has_passed(key.revoked_millis) || has_passed(key.expires_millis))
            .map(|key| key.id.clone())
            .collect()
    }

    /// Removes up to `limit` expired entries of each pipeline. Returns how many were removed; with a limit of 0, how many have expired.
    fn remove_audit_entries(&self, tenant: &TenantId, before: u64, limit: usize) -> usize {
        let mut pipelines = self.1.lock();
        let of_tenant = pipelines.audit_log.iter_mut().filter(|((of, _), _)| of == tenant);
        let mut removed = 0;
        for (_, log) in of_tenant {
            let all_but_last = log.iter().take(log.len().saturating_sub(1));
            let expired = all_but_last.take_while(|entry| entry.at_millis < before).count();
            if limit == 0 {
                removed += expired;
            } else {
                removed += log.drain(..expired.min(limit)).count();
            }
        }
        removed
    }
}
