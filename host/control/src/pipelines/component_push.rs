//! Receives, validates and stores the components of tenants.
//!
//! A pushed component is written to a file and hashed while it arrives. It is stored only after it passed validation. Each tenant can
//! have one component in validation at a time, because compiling is expensive: a tenant that pushes many components delays only
//! itself.

use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use weir_core::clock::unix_time_millis;
use weir_core::component::{ComponentDigest, ComponentInterface, ComponentRecord};
use weir_core::manifest::ResolvedComponentFile;
use weir_core::tenancy::Tenant;
use weir_core::{PolicyError, StorageError};

use super::one_per_tenant_limiter::OnePerTenantPermit;
use crate::state::{Control, TaskPanicked};
use crate::upload_reservations::{UploadReservation, UploadReservationError};

/// The maximum size of a component in bytes.
const MAX_COMPONENT_BYTES: u64 = 64 << 20;

/// Why a component cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum PushComponentError {
    /// The tenant has another component in validation.
    #[error("another component of this tenant is being validated: push components one after the other")]
    AnotherPushInProgress,
    /// The component is too large.
    #[error("a component may have at most {MAX_COMPONENT_BYTES} bytes")]
    TooLarge,
    /// Its bytes exceed a limit of the tenant or the disk.
    #[error(transparent)]
    Upload(#[from] UploadReservationError),
    /// It did not pass validation.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The tenant has been removed meanwhile.
    #[error("the tenant has been removed")]
    TenantRemoved,
    /// It cannot be stored.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The host has a bug.
    #[error(transparent)]
    TaskPanicked(#[from] TaskPanicked),
}

/// A component that is being received. Dropping it removes its temporary file.
pub struct ComponentPush {
    tenant: Tenant,
    file: TemporaryComponentFile,
    writer: File,
    hash: Sha256,
    _permit: OnePerTenantPermit,
}

/// The temporary file of a component. Dropping it removes the file.
struct TemporaryComponentFile {
    path: PathBuf,
    bytes: u64,
    /// The reservation of its bytes, released after the file is removed or stored.
    reservation: UploadReservation,
}

impl Drop for TemporaryComponentFile {
    fn drop(&mut self) {
        // It fails if the file was stored. Any other file is removed at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn component_io_error(error: std::io::Error) -> StorageError {
    StorageError::from_io_error("an uploaded component", &error)
}

impl ComponentPush {
    /// Starts a push with an empty temporary file. Fails with [`PushComponentError::AnotherPushInProgress`] if another push of the
    /// tenant is in progress.
    pub async fn start_push(control: &Control, tenant: &Tenant) -> Result<Self, PushComponentError> {
        let pipelines = &control.tenant_pipelines;
        let permit = pipelines.validation_permits.try_acquire(&tenant.id);
        let permit = permit.ok_or(PushComponentError::AnotherPushInProgress)?;
        let file = TemporaryComponentFile {
            reservation: control
                .upload_reservations
                .create_empty_reservation(tenant.clone()),
            path: pipelines.component_store.new_temporary_path(),
            bytes: 0,
        };
        Ok(Self {
            tenant: tenant.clone(),
            writer: File::create_new(&file.path).await.map_err(component_io_error)?,
            file,
            hash: Sha256::new(),
            _permit: permit,
        })
    }

    /// Appends bytes.
    pub async fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), PushComponentError> {
        let count = bytes.len() as u64;
        self.file.bytes += count;
        if self.file.bytes > MAX_COMPONENT_BYTES {
            return Err(PushComponentError::TooLarge);
        }
        self.hash.update(bytes);
        self.file.reservation.grow_reservation(self.file.bytes).await?;
        self.writer.write_all(bytes).await.map_err(component_io_error)?;
        self.file.reservation.mark_bytes_written(count);
        Ok(())
    }

    /// Completes the component, validates and stores it. Returns its record, and whether the tenant had it before.
    ///
    /// `pushed_by_key` is the public part of the key of the push. The work completes even if the caller is dropped.
    pub async fn validate_and_store(
        self,
        control: &Arc<Control>,
        name: String,
        pushed_by_key: String,
    ) -> Result<(ComponentRecord, bool), PushComponentError> {
        let Self {
            tenant,
            file,
            mut writer,
            hash,
            _permit: permit,
        } = self;
        writer.flush().await.map_err(component_io_error)?;
        // On this descriptor, because it reports every failed write; a descriptor that is opened later may not.
        writer.sync_all().await.map_err(component_io_error)?;
        let digest = ComponentDigest(hash.finalize().into());
        let existing_record = control
            .tenant_pipelines
            .pipeline_store
            .find_component(&tenant.id, &digest)
            .await?;
        let was_known = existing_record.is_some();
        let task_control = Arc::clone(control);
        let storing = async move {
            let _permit = permit;
            let record = match existing_record {
                Some(known) => ComponentRecord { name, ..known },
                None => {
                    let interface =
                        inspect_and_store_component_file(&task_control, &tenant, &name, &file, digest)
                            .await?;
                    ComponentRecord {
                        tenant: tenant.id.clone(),
                        digest,
                        name,
                        bytes: file.bytes,
                        interface,
                        created_millis: unix_time_millis(),
                        pushed_by_key,
                    }
                }
            };
            put_component_record(&task_control, &record).await?;
            Ok::<_, PushComponentError>(record)
        };
        Ok((control.run_to_completion(storing).await?, was_known))
    }
}

async fn inspect_and_store_component_file(
    control: &Control,
    tenant: &Tenant,
    name: &str,
    file: &TemporaryComponentFile,
    digest: ComponentDigest,
) -> Result<ComponentInterface, PushComponentError> {
    let pipelines = &control.tenant_pipelines;
    let component = ResolvedComponentFile {
        name: name.to_owned(),
        file: file.path.clone().into(),
        digest: digest.0,
    };
    let interface = pipelines
        .component_validator
        .inspect_component(&tenant.id, &component)
        .await?;
    pipelines
        .component_store
        .commit_component(&tenant.id, &file.path, &digest)
        .await?;
    Ok(interface)
}

async fn put_component_record(control: &Control, record: &ComponentRecord) -> Result<(), PushComponentError> {
    let pipelines = &control.tenant_pipelines;
    let Err(error) = pipelines.pipeline_store.put_component_record(record).await else {
        return Ok(());
    };
    // The tenant was removed meanwhile. Remove the file, so that a later tenant with the same name does not get it.
    if pipelines
        .pipeline_store
        .find_component(&record.tenant, &record.digest)
        .await?
        .is_none()
    {
        pipelines
            .component_store
            .remove_component(&record.tenant, &record.digest)
            .await?;
    }
    Err(match error {
        StorageError::NotFound { .. } => PushComponentError::TenantRemoved,
        error => error.into(),
    })
}
