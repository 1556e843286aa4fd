//! What a component may have of memory: what its pipeline asks for, as far as its tenant may use it. Wherever a tenant's
//! components run, be it in a job, a replay or as a shadow.

use std::sync::Arc;

use weir_core::manifest::Pipeline;
use weir_core::{StorageError, TenantId};

use crate::app::App;

/// The pipeline with at most as much for an instance as the tenant's quota says. Its revision stays: a component decides the same
/// in less memory, or does not decide.
pub(crate) async fn within(
    app: &App,
    tenant: &TenantId,
    pipeline: Arc<Pipeline>,
) -> Result<Arc<Pipeline>, StorageError> {
    let Some(record) = app.registry.tenant(tenant).await? else {
        return Ok(pipeline);
    };
    let usual = app.settings.policy_memory_bytes;
    let asked = pipeline.manifest.limits.memory_bytes.unwrap_or(usual);
    Ok(match app.quotas.limits(&record).guest_memory_bytes {
        Some(quota) if quota < asked => {
            let mut pipeline = Arc::unwrap_or_clone(pipeline);
            pipeline.manifest.limits.memory_bytes = Some(quota);
            Arc::new(pipeline)
        }
        _ => pipeline,
    })
}
