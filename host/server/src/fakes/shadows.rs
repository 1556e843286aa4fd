//! Comparisons with shadows in memory.

use async_trait::async_trait;
use weir_core::shadow::{ShadowBook, ShadowRun};
use weir_core::{StorageError, TenantId};

use super::Memory;

#[async_trait]
impl ShadowBook for Memory {
    async fn put_shadow_run(&self, run: &ShadowRun) -> Result<(), StorageError> {
        self.pipelines().shadow_runs.push(run.clone());
        Ok(())
    }

    async fn shadow_runs(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        revision: u32,
        since_millis: u64,
    ) -> Result<Vec<ShadowRun>, StorageError> {
        let kept = self.pipelines();
        let runs = kept.shadow_runs.iter().rev().filter(|run| {
            (&run.tenant, run.pipeline.as_str(), run.revision) == (tenant, pipeline, revision)
                && run.at_millis >= since_millis
        });
        Ok(runs.cloned().collect())
    }
}
