//! Validates and adds revisions of pipelines.

use std::collections::BTreeMap;

use weir_core::clock::unix_time_millis;
use weir_core::component::ComponentDigest;
use weir_core::manifest::{Manifest, Role};
use weir_core::revision::{Revision, RevisionSpec};
use weir_core::{PolicyError, StorageError, TenantId};

use super::tenant_pipeline_service::BuildRevisionError;
use crate::state::Control;

/// The maximum number of characters of a component's name in an error message.
const MAX_REPORTED_NAME_CHARS: usize = 80;

/// Why a revision cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum PushRevisionError {
    /// The manifest or the pipeline that it describes is invalid.
    #[error("{0}")]
    Invalid(String),
    /// The tenant has no component with this name or digest.
    #[error("there is no component '{0}': push it first")]
    UnknownComponent(String),
    /// A component was removed meanwhile.
    #[error("there is no component {0}: push it first")]
    ComponentRemoved(ComponentDigest),
    /// A component did not pass the test calls.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The revision cannot be stored.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Adds a revision to the pipeline that the manifest names, after its components have passed a test call in each role.
///
/// `components` has the digest or the name of a component for each role; a name means the newest component of that name. Returns the
/// revision, and whether it equals the newest one, so that nothing was added. `pushed_by_key` is the public part of the key.
pub async fn push_revision(
    control: &Control,
    tenant: &TenantId,
    pushed_by_key: &str,
    manifest: Manifest,
    components: BTreeMap<Role, String>,
) -> Result<(Revision, bool), PushRevisionError> {
    manifest.validate().map_err(PushRevisionError::Invalid)?;
    let pipelines = &control.tenant_pipelines;
    let name = manifest.name.clone();
    let components = resolve_component_digests(control, tenant, components).await?;
    let spec = RevisionSpec { manifest, components };
    let built = pipelines.build_revision_pipeline(tenant, spec.clone()).await;
    let built = built.map_err(|error| match error {
        BuildRevisionError::Unusable(reason) => PushRevisionError::Invalid(reason),
        BuildRevisionError::Storage(error) => error.into(),
    })?;
    pipelines
        .component_validator
        .dry_run_pipeline(tenant, &built)
        .await?;
    let before = pipelines
        .pipeline_store
        .list_revisions(tenant, &name, None, 1)
        .await?;
    let added = pipelines
        .pipeline_store
        .add_revision_if_changed(tenant, &name, &spec, pushed_by_key, unix_time_millis())
        .await?;
    let revision = added.map_err(PushRevisionError::ComponentRemoved)?;
    let is_old = before
        .first()
        .is_some_and(|newest| newest.number == revision.number);
    Ok((revision, is_old))
}

async fn resolve_component_digests(
    control: &Control,
    tenant: &TenantId,
    components: BTreeMap<Role, String>,
) -> Result<BTreeMap<Role, ComponentDigest>, PushRevisionError> {
    let store = &control.tenant_pipelines.pipeline_store;
    let mut resolved = BTreeMap::new();
    let mut all = None;
    for (role, named) in components {
        let digest = match named.parse::<ComponentDigest>() {
            Ok(digest) => store
                .find_component(tenant, &digest)
                .await?
                .map(|record| record.digest),
            Err(_) => {
                if all.is_none() {
                    all = Some(store.list_components(tenant).await?);
                }
                let newest = all.iter().flatten().find(|record| record.name == named);
                newest.map(|record| record.digest)
            }
        };
        let missing =
            || PushRevisionError::UnknownComponent(named.chars().take(MAX_REPORTED_NAME_CHARS).collect());
        resolved.insert(role, digest.ok_or_else(missing)?);
    }
    Ok(resolved)
}
