//! Removes a tenant with all its data while the host runs.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::{TenantState, TenantUpdate};
use weir_core::{StorageError, TenantId};

use crate::state::Control;

/// Maximum time that the removal of a tenant waits for the tenant's jobs and uploads to end.
pub const TENANT_REMOVAL_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a tenant cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveTenantError {
    /// The tenant does not exist.
    #[error("the tenant does not exist")]
    NotFound,
    /// Its jobs or uploads have not ended within [`TENANT_REMOVAL_TIMEOUT`].
    #[error("jobs or uploads of the tenant have not ended yet: repeat the request")]
    StillActive,
    /// Its data cannot be removed completely. Removing it again continues the removal.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Time between two looks for jobs that other nodes still run.
const CANCEL_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Asks other nodes to cancel the jobs of a suspended tenant, and returns when none of them runs one.
async fn cancel_jobs_of_other_nodes(control: &Control, tenant: &TenantId) -> Result<(), StorageError> {
    loop {
        let mut is_active = false;
        for record in control.ledger.list_unfinished_jobs().await? {
            if record.tenant == *tenant {
                is_active |= control.claims.request_cancel(tenant, &record.id).await?;
            }
        }
        if !is_active {
            return Ok(());
        }
        sleep(CANCEL_POLL_INTERVAL).await;
    }
}

/// Removes a tenant: cancels its jobs, revokes its keys and deletes its data. If it is interrupted, the tenant stays suspended.
pub async fn remove_tenant(control: &Control, tenant: &TenantId) -> Result<(), RemoveTenantError> {
    let suspend = TenantUpdate {
        state: Some(TenantState::Suspended),
        ..TenantUpdate::default()
    };
    let suspended = control.tenant_store.update_tenant(tenant, &suspend).await?;
    suspended.ok_or(RemoveTenantError::NotFound)?;
    let lockout = timeout(TENANT_REMOVAL_TIMEOUT, control.admission.drain_tenant(tenant)).await;
    let _lockout = lockout.map_err(|_late| RemoveTenantError::StillActive)?;
    if control.shares_ledger() {
        let canceled = timeout(
            TENANT_REMOVAL_TIMEOUT,
            cancel_jobs_of_other_nodes(control, tenant),
        )
        .await;
        canceled.map_err(|_late| RemoveTenantError::StillActive)??;
    }
    // From here on a component push in progress is refused, and the push removes its own file.
    control
        .tenant_store
        .suspend_tenant_and_remove_keys(tenant)
        .await?;
    let ports = control.engine.port_implementations();
    // The ledger is cleared last: if the removal is interrupted, the tenant is still listed and the removal can be repeated.
    ports.vectors.remove_tenant_points(tenant).await?;
    ports.vectors.flush_points().await?;
    ports.blobs.delete_blobs_with_prefix(tenant, "").await?;
    ports.blobs.flush_blobs().await?;
    control.upload_store.remove_all_uploads_of_tenant(tenant).await?;
    control
        .tenant_pipelines
        .component_store
        .remove_all_components_of_tenant(tenant)
        .await?;
    control
        .tenant_pipelines
        .job_replayer
        .remove_tenant_recordings(tenant)
        .await?;
    if let Some(model) = &ports.language_model {
        model.clear_tenant_cache(tenant).await?;
    }
    control.tenant_store.remove_tenant(tenant).await?;
    control.usage_recorder.drop_tenant_usage(tenant);
    Ok(())
}
