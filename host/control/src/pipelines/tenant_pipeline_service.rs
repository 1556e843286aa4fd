//! Stores, loads and assigns the pipelines of tenants.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use weir_core::component::{ComponentStore, ComponentValidator};
use weir_core::job_request::JobRequestOptions;
use weir_core::manifest::{Manifest, ResolvedComponentFile, ResolvedPipeline, Role};
use weir_core::replay::JobReplayer;
use weir_core::revision::{PipelineRecord, PipelineStore, RevisionSpec};
use weir_core::rollout::RevisionAssignment;
use weir_core::shadow::ShadowStore;
use weir_core::{JobId, StorageError, TenantId};

use super::one_per_tenant_limiter::OnePerTenantLimiter;

/// The name of the host's pipeline, which every tenant has.
const HOST_PIPELINE_NAME: &str = "default";
/// The maximum number of concurrent comparisons with shadows on the host.
const MAX_CONCURRENT_COMPARISONS: usize = 4;

/// Builds a pipeline from a manifest and components, and fills the remaining roles with the default components of the host.
#[async_trait]
pub trait PipelineBuilder: Send + Sync {
    /// Builds a pipeline from a manifest and components. The error says what is wrong with the default components.
    async fn build_pipeline(
        &self,
        manifest: Manifest,
        components: BTreeMap<Role, ResolvedComponentFile>,
    ) -> Result<Arc<ResolvedPipeline>, String>;
}

/// Why a pipeline is not available.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PipelineUnavailableError {
    /// The tenant has no pipeline of this name.
    #[error("pipeline '{0}' does not exist")]
    Unknown(String),
    /// The pipeline has no active revision.
    #[error("no revision of pipeline '{0}' is active: activate one")]
    Inactive(String),
    /// The pipeline exists, but it cannot be loaded.
    #[error("pipeline '{name}' cannot be used: {reason}")]
    Unusable {
        /// The name of the pipeline.
        name: String,
        /// Why it cannot be loaded.
        reason: String,
    },
    /// The records of the pipeline cannot be read now.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why the pipeline of a revision cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildRevisionError {
    /// A component is missing, or the default components cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// A component cannot be read now.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Stores, loads and assigns the pipelines of tenants.
pub struct TenantPipelineService {
    /// Pipelines, revisions and rollouts.
    pub pipeline_store: Arc<dyn PipelineStore>,
    /// Component binaries.
    pub component_store: Arc<dyn ComponentStore>,
    /// Validates components.
    pub component_validator: Arc<dyn ComponentValidator>,
    /// Replays the decisions of jobs.
    pub job_replayer: Arc<dyn JobReplayer>,
    /// Results of shadow revisions.
    pub shadow_store: Arc<dyn ShadowStore>,
    pipeline_builder: Arc<dyn PipelineBuilder>,
    /// Allows one component validation at a time for each tenant.
    pub(crate) validation_permits: Arc<OnePerTenantLimiter>,
    /// Allows one comparison with a shadow at a time for each tenant.
    pub(crate) comparison_permits: Arc<OnePerTenantLimiter>,
}

impl TenantPipelineService {
    pub(crate) fn new(
        pipeline_store: Arc<dyn PipelineStore>,
        component_store: Arc<dyn ComponentStore>,
        component_validator: Arc<dyn ComponentValidator>,
        job_replayer: Arc<dyn JobReplayer>,
        shadow_store: Arc<dyn ShadowStore>,
        pipeline_builder: Arc<dyn PipelineBuilder>,
    ) -> Self {
        Self {
            pipeline_store,
            component_store,
            component_validator,
            job_replayer,
            shadow_store,
            pipeline_builder,
            validation_permits: OnePerTenantLimiter::new(usize::MAX),
            comparison_permits: OnePerTenantLimiter::new(MAX_CONCURRENT_COMPARISONS),
        }
    }

    /// Returns the pipeline that a job would run if it started now.
    pub async fn load_pipeline_without_assigning(
        &self,
        tenant: &TenantId,
        name: &str,
        options: &JobRequestOptions,
        job: &JobId,
    ) -> Result<Arc<ResolvedPipeline>, PipelineUnavailableError> {
        let active_record = self.find_active_pipeline(tenant, name).await?;
        let assignment = active_record.and_then(|record| record.rollout.assign_job(job));
        self.load_revision_or_host_pipeline(tenant, name, options, assignment)
            .await
    }

    /// Returns the pipeline of a job that starts or resumes now, and stores the assigned revision.
    pub async fn assign_and_load_pipeline(
        &self,
        tenant: &TenantId,
        name: &str,
        options: &JobRequestOptions,
        job: &JobId,
    ) -> Result<(Arc<ResolvedPipeline>, Option<RevisionAssignment>), PipelineUnavailableError> {
        let assignment = match self.find_active_pipeline(tenant, name).await? {
            Some(_) => {
                self.pipeline_store
                    .assign_revision_to_job(tenant, name, job)
                    .await?
            }
            None => None,
        };
        Ok((
            self.load_revision_or_host_pipeline(tenant, name, options, assignment)
                .await?,
            assignment,
        ))
    }

    /// Returns the tenant's pipeline of this name, if it has an active revision; `None` means the pipeline of the host.
    async fn find_active_pipeline(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Option<PipelineRecord>, PipelineUnavailableError> {
        match self.pipeline_store.find_pipeline(tenant, name).await? {
            Some(record) if record.rollout.stable.is_some() => Ok(Some(record)),
            _ if name == HOST_PIPELINE_NAME => Ok(None),
            Some(_) => Err(PipelineUnavailableError::Inactive(name.to_owned())),
            None => Err(PipelineUnavailableError::Unknown(name.to_owned())),
        }
    }

    /// Returns the pipeline of a revision with the options of a job; `None` means the pipeline of the host.
    pub(crate) async fn load_revision_or_host_pipeline(
        &self,
        tenant: &TenantId,
        name: &str,
        options: &JobRequestOptions,
        assignment: Option<RevisionAssignment>,
    ) -> Result<Arc<ResolvedPipeline>, PipelineUnavailableError> {
        let unusable = |reason: String| PipelineUnavailableError::Unusable {
            name: name.to_owned(),
            reason,
        };
        let revision_spec = match assignment {
            Some(assignment) => {
                let revision = self
                    .pipeline_store
                    .find_revision(tenant, name, assignment.revision)
                    .await?;
                let missing = || unusable(format!("its revision {} does not exist", assignment.revision));
                revision.ok_or_else(missing)?.spec
            }
            None => RevisionSpec {
                manifest: Manifest::default_pipeline_manifest(),
                components: BTreeMap::new(),
            },
        };
        let mut revision_spec = revision_spec;
        revision_spec.manifest.apply_job_options(
            options.dpi,
            options.ocr.as_deref(),
            options.vision.as_deref(),
        );
        self.build_revision_pipeline(tenant, revision_spec)
            .await
            .map_err(|error| match error {
                BuildRevisionError::Unusable(reason) => unusable(reason),
                BuildRevisionError::Storage(error) => error.into(),
            })
    }

    /// Builds a pipeline from a revision and the files of its components.
    pub(crate) async fn build_revision_pipeline(
        &self,
        tenant: &TenantId,
        revision_spec: RevisionSpec,
    ) -> Result<Arc<ResolvedPipeline>, BuildRevisionError> {
        let mut files = BTreeMap::new();
        for (role, digest) in &revision_spec.components {
            let record = self.pipeline_store.find_component(tenant, digest).await?;
            let name = record.map_or_else(|| role.name().to_owned(), |record| record.name);
            let opened = self.component_store.open_component(tenant, digest).await?;
            let missing = || BuildRevisionError::Unusable(format!("component {name} is not stored"));
            let file = ResolvedComponentFile {
                file: opened.ok_or_else(missing)?,
                name,
                digest: digest.0,
            };
            files.insert(*role, file);
        }
        self.pipeline_builder
            .build_pipeline(revision_spec.manifest, files)
            .await
            .map_err(BuildRevisionError::Unusable)
    }
}
