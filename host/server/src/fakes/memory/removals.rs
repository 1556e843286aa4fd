//! Documents that are being removed.

use async_trait::async_trait;
use weir_core::removal::{Begin, Removals};
use weir_core::{DocumentId, JobId, StorageError, TenantId};

use super::{Kept, Memory};

impl Kept {
    fn jobs_with(&self, tenant: &TenantId, document: &DocumentId) -> Vec<JobId> {
        let with = self.orders.iter().filter(|order| {
            order.tenant == *tenant && order.files.iter().any(|file| file.document == *document)
        });
        with.map(|order| order.job).collect()
    }
}

#[async_trait]
impl Removals for Memory {
    async fn begin(&self, tenant: &TenantId, document: &DocumentId) -> Result<Begin, StorageError> {
        let mut kept = self.0.lock();
        let jobs = kept.jobs_with(tenant, document);
        let mut unfinished = kept.jobs.iter().filter(|job| !job.state.is_ended());
        if unfinished.any(|job| jobs.contains(&job.id)) {
            return Ok(Begin::InWork);
        }
        Ok(match kept.removals.insert((tenant.clone(), *document)) {
            true => Begin::Begun,
            false => Begin::Removing,
        })
    }

    async fn end(&self, tenant: &TenantId, document: &DocumentId) -> Result<(), StorageError> {
        self.0.lock().removals.remove(&(tenant.clone(), *document));
        Ok(())
    }

    async fn unended(&self) -> Result<Vec<(TenantId, DocumentId)>, StorageError> {
        Ok(self.0.lock().removals.iter().cloned().collect())
    }

    async fn jobs_with(&self, tenant: &TenantId, document: &DocumentId) -> Result<Vec<JobId>, StorageError> {
        Ok(self.0.lock().jobs_with(tenant, document))
    }
}
