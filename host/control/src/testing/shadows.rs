//! A fake store of comparisons with shadows.

use async_trait::async_trait;
use weir_core::shadow::{ShadowRun, ShadowStore};
use weir_core::{StorageError, TenantId};

use super::FakeStore;

#[async_trait]
impl ShadowStore for FakeStore {
    async fn put_shadow_run(&self, run: &ShadowRun) -> Result<(), StorageError> {
        self.lock_pipelines().shadow_runs.push(run.clone());
        Ok(())
    }

    async fn list_shadow_runs(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        revision: u32,
        since_millis: u64,
    ) -> Result<Vec<ShadowRun>, StorageError> {
        let kept = self.lock_pipelines();
        let runs = kept.shadow_runs.iter().rev().filter(|run| {
            (&run.tenant, run.pipeline.as_str(), run.revision) == (tenant, pipeline, revision)
                && run.compared_at_millis >= since_millis
        });
        Ok(runs.cloned().collect())
    }
}
