//! Applies a tenant's memory quota to a pipeline. It is used wherever the tenant's components run: in jobs, replays and shadows.

use std::sync::Arc;

use weir_core::manifest::ResolvedPipeline;
use weir_core::{StorageError, TenantId};

use crate::state::Control;

/// Reduces the memory limit of the pipeline's component instances to the tenant's quota. The processing fingerprint stays the
/// same, because less memory never changes a decision: a component that needs more memory fails.
pub(crate) async fn apply_instance_memory_quota(
    control: &Control,
    tenant: &TenantId,
    pipeline: Arc<ResolvedPipeline>,
) -> Result<Arc<ResolvedPipeline>, StorageError> {
    let Some(record) = control.tenant_store.find_tenant(tenant).await? else {
        return Ok(pipeline);
    };
    let default_limit = control.settings.policy_default_instance_memory_bytes;
    let requested_limit = pipeline.manifest.limits.max_memory_bytes.unwrap_or(default_limit);
    Ok(
        match control.quota_limiter.effective_limits(&record).guest_memory_bytes {
            Some(quota) if quota < requested_limit => {
                let mut pipeline = Arc::unwrap_or_clone(pipeline);
                pipeline.manifest.limits.max_memory_bytes = Some(quota);
                Arc::new(pipeline)
            }
            _ => pipeline,
        },
    )
}
