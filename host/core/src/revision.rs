//! Revisions of pipelines, and the book they are kept in.
//!
//! A revision is a manifest with the components it names by digest. It is numbered from 1 within its pipeline and never
//! changes. What changes is the rollout ([`crate::rollout`]). Which revision a job was given is written down with it, and so is how
//! the job went, which is what a canary is judged by.

use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::component::{ComponentDigest, ComponentRecord, ComponentsByRole};
use crate::error::StorageError;
use crate::id::{JobId, TenantId};
use crate::judge::{Evidence, Showing, Shown};
use crate::ledger::JobState;
use crate::manifest::Manifest;
use crate::rollout::{Assignment, Change, ChangeError, Rollout};

/// What a revision is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Settings, rights, limits; its paths are empty, since components are named by digest.
    pub manifest: Manifest,
    /// The roles that are not left to the default components.
    pub components: ComponentsByRole,
}

/// A revision of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// Whose it is.
    pub tenant: TenantId,
    /// The pipeline.
    pub pipeline: String,
    /// Its number, from 1.
    pub number: u32,
    /// What it is made of.
    pub recipe: Recipe,
    /// When it was pushed, in milliseconds since 1970.
    pub created_millis: u64,
    /// Public part of the key it was pushed with.
    pub by: String,
}

/// An entry of a pipeline's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// Its place, from 1.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub at_millis: u64,
    /// Public part of the key of whoever made it; `judge` if nobody did.
    pub by: String,
    /// What was done.
    pub what: History,
    /// What it was done for, if a canary was judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// What a pipeline's history tells of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum History {
    /// A revision was pushed.
    Pushed {
        /// Its number.
        revision: u32,
    },
    /// The rollout was changed.
    Changed {
        /// How.
        change: Change,
        /// From.
        from: Rollout,
        /// To.
        to: Rollout,
    },
}

/// How a job of a revision ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobShowing {
    /// Whose it was.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// The state it ended in.
    pub state: JobState,
    /// When, in milliseconds since 1970.
    pub at_millis: u64,
    /// What it showed.
    pub showing: Showing,
}

/// How long showings are kept.
pub const SHOWINGS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A pipeline and its rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineRecord {
    /// Its name.
    pub name: String,
    /// Revisions it has.
    pub revisions: u32,
    /// Who gets which.
    pub rollout: Rollout,
}

/// Keeps components' records, revisions, rollouts and how they did. Every call is a tenant's own.
#[async_trait]
pub trait PipelineBook: Send + Sync {
    /// Writes a component's record; one that is there already stays as it is, but for its name. As every change by a key,
    /// [`StorageError::Missing`] if the key is not known any more: it went with its tenant.
    async fn put_component(&self, record: &ComponentRecord) -> Result<(), StorageError>;

    /// A component's record.
    async fn component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<Option<ComponentRecord>, StorageError>;

    /// A tenant's components, newest first.
    async fn components(&self, tenant: &TenantId) -> Result<Vec<ComponentRecord>, StorageError>;

    /// Forgets a component that no revision names; `Err` with the pipeline and number of one that does.
    async fn forget_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<Result<bool, (String, u32)>, StorageError>;

    /// Adds a revision under the next number, with its entry in the history. The same recipe as the newest one's is that one
    /// again: pushing twice is pushing once. `Err` names a component that is not here.
    async fn add_revision(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        recipe: &Recipe,
        by: &str,
        now_millis: u64,
    ) -> Result<Result<Revision, ComponentDigest>, StorageError>;

    /// A revision.
    async fn revision(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        number: u32,
    ) -> Result<Option<Revision>, StorageError>;

    /// A pipeline's revisions before a number, newest first, at most `limit`.
    async fn revisions(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        before: Option<u32>,
        limit: usize,
    ) -> Result<Vec<Revision>, StorageError>;

    /// A tenant's pipelines, by name.
    async fn pipelines(&self, tenant: &TenantId) -> Result<Vec<PipelineRecord>, StorageError>;

    /// A pipeline; `None` if nothing was ever pushed under that name.
    async fn pipeline(&self, tenant: &TenantId, name: &str) -> Result<Option<PipelineRecord>, StorageError>;

    /// Changes a rollout, if it is at `version` where one is given, and writes its history, all or nothing; durable when it
    /// returns, with the rollout as it is then. `Err` says why the change cannot be.
    #[allow(clippy::too_many_arguments)] // what a line of the history is made of
    async fn change_rollout(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        version: Option<u64>,
        change: &Change,
        by: &str,
        evidence: Option<Evidence>,
        now_millis: u64,
    ) -> Result<Result<Rollout, ChangeError>, StorageError>;

    /// A pipeline's history before a place, newest first, at most `limit`.
    async fn history(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<ChangeRecord>, StorageError>;

    /// What a job was given; if it has been given nothing, what the rollout gives it now, written down before this returns.
    /// `None` if nothing is active.
    async fn assign(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        job: &JobId,
    ) -> Result<Option<Assignment>, StorageError>;

    /// What a job was given, if it was.
    async fn assignment(&self, tenant: &TenantId, job: &JobId) -> Result<Option<Assignment>, StorageError>;

    /// Writes down how a job went that was given a revision; once, however often it is told.
    async fn show(&self, showing: &JobShowing) -> Result<(), StorageError>;

    /// What jobs of a revision showed that ended within these milliseconds since 1970, in the order of their ends; of more than
    /// `jobs` as many, spread evenly over them.
    async fn shown(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        revision: u32,
        within_millis: RangeInclusive<u64>,
        jobs: u32,
    ) -> Result<Vec<Shown>, StorageError>;
}
