//! Tenants' pipelines: what a job runs, and how that is changed while jobs run.
//!
//! A pipeline that a tenant has pushed stands over the host's own of that name, from the moment one of its revisions is
//! active. Which revision a job gets is decided when it begins, not when it is put in: a queue of jobs does not go on with
//! logic that was taken back an hour ago. The choice is written down before the engine hears of the job, so a job that is
//! taken up after a restart runs what it ran.

mod components;
mod history;
mod memory;
mod recipe;
mod replay;
mod revisions;
mod rollout;
mod shadow;
#[cfg(test)]
mod tests;
mod trial;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use weir_core::component::{ComponentStore, Gate};
use weir_core::manifest::{ComponentFile, Manifest, Pipeline, Role};
use weir_core::order::OrderOptions;
use weir_core::replay::Replays;
use weir_core::revision::{PipelineBook, PipelineRecord, Recipe};
use weir_core::rollout::Assignment;
use weir_core::shadow::ShadowBook;
use weir_core::{JobId, StorageError, TenantId};

pub(crate) use components::{
    __path_component, __path_components, __path_push_component, __path_remove_component, component,
    components, push_component, remove_component,
};
pub(crate) use history::{__path_history, history};
pub(crate) use memory::within;
pub(crate) use replay::{__path_replay, replay};
pub(crate) use revisions::{
    __path_pipeline, __path_pipelines, __path_push_revision, __path_revision, __path_revisions, pipeline,
    pipelines, push_revision, revision, revisions,
};
pub(crate) use rollout::{__path_change_rollout, __path_rollout, change_rollout, rollout};
pub(crate) use shadow::{Compared, compare};
pub(crate) use trial::{Ended, ended};
use turns::Turns;

/// The pipeline that every tenant has.
const OWN: &str = "default";

/// The host's own components.
#[async_trait]
pub trait Defaults: Send + Sync {
    /// A pipeline of this manifest and these components, with the host's own in the roles that are left; the error says what is
    /// wrong with those.
    async fn pipeline(
        &self,
        manifest: Manifest,
        components: BTreeMap<Role, ComponentFile>,
    ) -> Result<Arc<Pipeline>, String>;
}

/// A pipeline that cannot be had.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum PipelineError {
    /// The tenant has none of that name.
    #[error("there is no pipeline '{0}'")]
    Unknown(String),
    /// It has no active revision.
    #[error("no revision of pipeline '{0}' is active: activate one")]
    Inactive(String),
    /// It exists and cannot be loaded.
    #[error("pipeline '{name}' cannot be used: {reason}")]
    Unusable {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// What is written down of it cannot be read now.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Where tenants' pipelines are kept.
pub(crate) struct Shelf {
    pub(crate) book: Arc<dyn PipelineBook>,
    pub(crate) store: Arc<dyn ComponentStore>,
    pub(crate) gate: Arc<dyn Gate>,
    pub(crate) replays: Arc<dyn Replays>,
    shadows: Arc<dyn ShadowBook>,
    defaults: Arc<dyn Defaults>,
    /// Tenants one of whose components is being looked at.
    pushing: Arc<Turns>,
    /// Tenants one of whose jobs is being compared with a shadow.
    comparing: Arc<Turns>,
}

impl Shelf {
    pub(crate) fn new(
        book: Arc<dyn PipelineBook>,
        store: Arc<dyn ComponentStore>,
        gate: Arc<dyn Gate>,
        replays: Arc<dyn Replays>,
        shadows: Arc<dyn ShadowBook>,
        defaults: Arc<dyn Defaults>,
    ) -> Self {
        Self {
            book,
            store,
            gate,
            replays,
            shadows,
            defaults,
            pushing: Turns::new(usize::MAX),
            comparing: Turns::new(shadow::AT_ONCE),
        }
    }

    /// What a job would run if it began now.
    pub(crate) async fn preview(
        &self,
        tenant: &TenantId,
        name: &str,
        options: &OrderOptions,
        job: &JobId,
    ) -> Result<Arc<Pipeline>, PipelineError> {
        let given = self.active(tenant, name).await?;
        let given = given.and_then(|record| record.rollout.assign(job));
        self.load(tenant, name, options, given).await
    }

    /// What a job runs that begins now or goes on, written down.
    pub(crate) async fn give(
        &self,
        tenant: &TenantId,
        name: &str,
        options: &OrderOptions,
        job: &JobId,
    ) -> Result<(Arc<Pipeline>, Option<Assignment>), PipelineError> {
        let given = match self.active(tenant, name).await? {
            Some(_) => self.book.assign(tenant, name, job).await?,
            None => None,
        };
        Ok((self.load(tenant, name, options, given).await?, given))
    }

    /// The tenant's pipeline of this name, if a revision of it is active. `None` is the host's own.
    async fn active(&self, tenant: &TenantId, name: &str) -> Result<Option<PipelineRecord>, PipelineError> {
        match self.book.pipeline(tenant, name).await? {
            Some(record) if record.rollout.stable.is_some() => Ok(Some(record)),
            _ if name == OWN => Ok(None),
            Some(_) => Err(PipelineError::Inactive(name.to_owned())),
            None => Err(PipelineError::Unknown(name.to_owned())),
        }
    }

    async fn load(
        &self,
        tenant: &TenantId,
        name: &str,
        options: &OrderOptions,
        given: Option<Assignment>,
    ) -> Result<Arc<Pipeline>, PipelineError> {
        let unusable = |reason: String| PipelineError::Unusable {
            name: name.to_owned(),
            reason,
        };
        let recipe = match given {
            Some(given) => {
                let revision = self.book.revision(tenant, name, given.revision).await?;
                let missing = || unusable(format!("its revision {} is gone", given.revision));
                revision.ok_or_else(missing)?.recipe
            }
            None => Recipe {
                manifest: Manifest::embedded(),
                components: BTreeMap::new(),
            },
        };
        let mut built = recipe;
        built
            .manifest
            .with_options(options.dpi, options.ocr.as_deref(), options.vision.as_deref());
        self.build(tenant, built).await.map_err(unusable)
    }

    /// A recipe with its files.
    async fn build(&self, tenant: &TenantId, recipe: Recipe) -> Result<Arc<Pipeline>, String> {
        let mut files = BTreeMap::new();
        for (role, digest) in &recipe.components {
            let record = self.book.component(tenant, digest).await;
            let record = record.map_err(|error| error.to_string())?;
            let name = record.map_or_else(|| role.name().to_owned(), |record| record.name);
            let file = ComponentFile {
                name,
                path: self.store.path(tenant, digest),
                digest: digest.0,
            };
            files.insert(*role, file);
        }
        self.defaults.pipeline(recipe.manifest, files).await
    }
}
