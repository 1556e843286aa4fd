//! Stores, loads and assigns the pipelines of tenants.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use weir_core::component::{ComponentStore, ComponentValidator};
use weir_core::job_request::JobRequestOptions;
use weir_core::manifest::{ComponentFile, Manifest, Pipeline, Role};
use weir_core::replay::JobReplayer;
use weir_core::revision::{PipelineRecord, PipelineStore, RevisionSpec};
use weir_core::rollout::RevisionAssignment;
use weir_core::shadow::ShadowStore;
use weir_core::{JobId, StorageError, TenantId};

use super::tenant_permits::TenantPermits;

/// The name of the host's pipeline, which every tenant has.
const HOST_PIPELINE_NAME: &str = "default";
/// The maximum number of concurrent comparisons with shadows on the host.
const MAX_CONCURRENT_COMPARISONS: usize = 4;

/// Builds pipelines and supplies the default components of the host.
#[async_trait]
pub trait DefaultComponents: Send + Sync {
    /// Builds a pipeline from a manifest and components. The default components take the remaining roles. The error says what is
    /// wrong with the default components.
    async fn build_pipeline(
        &self,
        manifest: Manifest,
        components: BTreeMap<Role, ComponentFile>,
    ) -> Result<Arc<Pipeline>, String>;
}

/// Why a pipeline is not available.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PipelineError {
    /// The tenant has no pipeline of this name.
    #[error("there is no pipeline '{0}'")]
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

/// Stores, loads and assigns the pipelines of tenants.
pub struct TenantPipelines {
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
    default_components: Arc<dyn DefaultComponents>,
    /// Allows one component validation at a time for each tenant.
    pub(crate) validation_permits: Arc<TenantPermits>,
    /// Allows one comparison with a shadow at a time for each tenant.
    pub(crate) comparison_permits: Arc<TenantPermits>,
}

impl TenantPipelines {
    pub(crate) fn new(
        book: Arc<dyn PipelineStore>,
        store: Arc<dyn ComponentStore>,
        gate: Arc<dyn ComponentValidator>,
        replays: Arc<dyn JobReplayer>,
        shadows: Arc<dyn ShadowStore>,
        defaults: Arc<dyn DefaultComponents>,
    ) -> Self {
        Self {
            pipeline_store: book,
            component_store: store,
            component_validator: gate,
            job_replayer: replays,
            shadow_store: shadows,
            default_components: defaults,
            validation_permits: TenantPermits::new(usize::MAX),
            comparison_permits: TenantPermits::new(MAX_CONCURRENT_COMPARISONS),
        }
    }

    /// Returns the pipeline that a job would run if it started now.
    pub async fn preview_pipeline(
        &self,
        tenant: &TenantId,
        name: &str,
        options: &JobRequestOptions,
        job: &JobId,
    ) -> Result<Arc<Pipeline>, PipelineError> {
        let given = self.find_active_pipeline(tenant, name).await?;
        let given = given.and_then(|record| record.rollout.assign_job(job));
        self.load_pipeline(tenant, name, options, given).await
    }

    /// Returns the pipeline of a job that starts or resumes now, and stores the assigned revision.
    pub async fn assign_pipeline(
        &self,
        tenant: &TenantId,
        name: &str,
        options: &JobRequestOptions,
        job: &JobId,
    ) -> Result<(Arc<Pipeline>, Option<RevisionAssignment>), PipelineError> {
        let given = match self.find_active_pipeline(tenant, name).await? {
            Some(_) => self.pipeline_store.assign_revision(tenant, name, job).await?,
            None => None,
        };
        Ok((self.load_pipeline(tenant, name, options, given).await?, given))
    }

    /// Returns the tenant's pipeline of this name, if it has an active revision; `None` means the pipeline of the host.
    async fn find_active_pipeline(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Option<PipelineRecord>, PipelineError> {
        match self.pipeline_store.find_pipeline(tenant, name).await? {
            Some(record) if record.rollout.stable.is_some() => Ok(Some(record)),
            _ if name == HOST_PIPELINE_NAME => Ok(None),
            Some(_) => Err(PipelineError::Inactive(name.to_owned())),
            None => Err(PipelineError::Unknown(name.to_owned())),
        }
    }

    /// Returns the pipeline of a revision with the options of a job; `None` means the pipeline of the host.
    pub(crate) async fn load_pipeline(
        &self,
        tenant: &TenantId,
        name: &str,
        options: &JobRequestOptions,
        given: Option<RevisionAssignment>,
    ) -> Result<Arc<Pipeline>, PipelineError> {
        let unusable = |reason: String| PipelineError::Unusable {
            name: name.to_owned(),
            reason,
        };
        let recipe = match given {
            Some(given) => {
                let revision = self
                    .pipeline_store
                    .find_revision(tenant, name, given.revision)
                    .await?;
                let missing = || unusable(format!("its revision {} does not exist", given.revision));
                revision.ok_or_else(missing)?.spec
            }
            None => RevisionSpec {
                manifest: Manifest::default_pipeline(),
                components: BTreeMap::new(),
            },
        };
        let mut built = recipe;
        built
            .manifest
            .apply_job_options(options.dpi, options.ocr.as_deref(), options.vision.as_deref());
        self.build_pipeline(tenant, built).await.map_err(unusable)
    }

    /// Builds a pipeline from a revision and the files of its components.
    pub(crate) async fn build_pipeline(
        &self,
        tenant: &TenantId,
        recipe: RevisionSpec,
    ) -> Result<Arc<Pipeline>, String> {
        let mut files = BTreeMap::new();
        for (role, digest) in &recipe.components {
            let record = self.pipeline_store.find_component(tenant, digest).await;
            let record = record.map_err(|error| error.to_string())?;
            let name = record.map_or_else(|| role.name().to_owned(), |record| record.name);
            let file = ComponentFile {
                name,
                path: self.component_store.component_path(tenant, digest),
                digest: digest.0,
            };
            files.insert(*role, file);
        }
        self.default_components
            .build_pipeline(recipe.manifest, files)
            .await
    }
}
