//! The fake store of document removals in progress.

use async_trait::async_trait;
use weir_core::document_removal::{BeginRemovalOutcome, DocumentRemovalStore};
use weir_core::{DocumentId, JobId, StorageError, TenantId};

use super::{FakeStore, StoreTables};

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
