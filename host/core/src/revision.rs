//! Revisions of pipelines and the store that holds them.
//!
//! A revision is a manifest together with the digests of its components. Revisions are numbered from 1 within their
//! pipeline and never change. The rollout ([`crate::rollout`]) changes. The store also records which revision each
//! job was assigned and how the job ended. The canary analysis uses these outcomes.

use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::canary_analysis::{CanaryEvidence, JobMetrics, JobSample};
use crate::component::{ComponentDigest, ComponentRecord, ComponentsByRole};
use crate::error::StorageError;
use crate::id::{JobId, TenantId};
use crate::ledger::JobState;
use crate::manifest::Manifest;
use crate::rollout::{RevisionAssignment, Rollout, RolloutAction, RolloutError};

/// The content of a revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevisionSpec {
    /// Settings, capabilities and limits. Its component paths are empty, because components are named by digest.
    pub manifest: Manifest,
    /// The roles that do not use the default components.
    pub components: ComponentsByRole,
}

/// A revision of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// The pipeline.
    pub pipeline: String,
    /// Its number, from 1.
    pub number: u32,
    /// Content of the revision.
    pub spec: RevisionSpec,
    /// When it was pushed, in milliseconds since 1970.
    pub created_millis: u64,
    /// Public part of the API key that pushed it.
    pub pushed_by_key: String,
}

/// An entry of a pipeline's audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PipelineAuditRecord {
    /// Position in the log, from 1.
    pub seq: u64,
    /// Time in milliseconds since 1970.
    pub at_millis: u64,
    /// Public part of the API key that made the change; `canary-analysis` if the canary analysis made it.
    #[serde(rename = "by")]
    pub changed_by: String,
    /// The change.
    #[serde(rename = "what")]
    pub action: PipelineAuditAction,
    /// The evidence, if the canary analysis made the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<CanaryEvidence>,
}

/// A change in the audit log of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PipelineAuditAction {
    /// A revision was pushed.
    Pushed {
        /// Its number.
        revision: u32,
    },
    /// The rollout was changed.
    Changed {
        /// The action.
        change: RolloutAction,
        /// The rollout before.
        from: Rollout,
        /// The rollout after.
        to: Rollout,
    },
}

/// The outcome of a job that was assigned a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionJobOutcome {
    /// The tenant that owns the job.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// The state it ended in.
    pub state: JobState,
    /// When it ended, in milliseconds since 1970.
    pub ended_at_millis: u64,
    /// Metrics of the job.
    pub metrics: JobMetrics,
}

/// How long job outcomes are stored.
pub const JOB_OUTCOME_RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A pipeline and its rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineRecord {
    /// Its name.
    pub name: String,
    /// Number of revisions.
    pub revision_count: u32,
    /// Which jobs get which revision.
    pub rollout: Rollout,
}

/// Stores component records, revisions, rollouts and job outcomes. Every call concerns one tenant.
#[async_trait]
pub trait PipelineStore: Send + Sync {
    /// Writes the record of a component. An existing record changes only its name. Like every change that an API key
    /// makes, it returns [`StorageError::NotFound`] if the key does not exist, because it was removed together with its
    /// tenant.
    async fn put_component_record(&self, record: &ComponentRecord) -> Result<(), StorageError>;

    /// Returns the record of a component; `None` if it does not exist.
    async fn find_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<Option<ComponentRecord>, StorageError>;

    /// Returns a tenant's components, newest first. Components of the same creation time are in no particular order.
    async fn list_components(&self, tenant: &TenantId) -> Result<Vec<ComponentRecord>, StorageError>;

    /// Removes a component that no revision of the tenant uses. Returns whether it existed. `Err` returns the pipeline
    /// and number of a revision that uses it.
    async fn remove_unused_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<Result<bool, (String, u32)>, StorageError>;

    /// Adds a revision with the next number and its entry in the audit log. If the newest revision has the same
    /// content, returns that revision, so pushing twice has the effect of pushing once. `Err` returns the digest of a
    /// component that the tenant has not stored; then nothing is written.
    async fn add_revision_if_changed(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        spec: &RevisionSpec,
        changed_by: &str,
        now_millis: u64,
    ) -> Result<Result<Revision, ComponentDigest>, StorageError>;

    /// Returns a revision; `None` if it does not exist.
    async fn find_revision(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        number: u32,
    ) -> Result<Option<Revision>, StorageError>;

    /// Returns at most `limit` revisions of a pipeline below the number `before`, newest first.
    async fn list_revisions(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        before: Option<u32>,
        limit: usize,
    ) -> Result<Vec<Revision>, StorageError>;

    /// Returns a tenant's pipelines, sorted by name.
    async fn list_pipelines(&self, tenant: &TenantId) -> Result<Vec<PipelineRecord>, StorageError>;

    /// Returns a pipeline; `None` if no revision was ever pushed under this name.
    async fn find_pipeline(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Option<PipelineRecord>, StorageError>;

    /// Changes a rollout and writes the audit log in one transaction. If `version` is given, the rollout must be at
    /// it. The change is durable when this returns. Returns the new rollout, or why the change is not possible; then
    /// nothing is written. The caller must have checked that the pipeline and the revision exist. Canary analysis, which
    /// gives `evidence`, needs no API key.
    #[allow(clippy::too_many_arguments)] // the fields of one audit log entry
    async fn change_rollout(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        version: Option<u64>,
        change: &RolloutAction,
        changed_by: &str,
        evidence: Option<CanaryEvidence>,
        now_millis: u64,
    ) -> Result<Result<Rollout, RolloutError>, StorageError>;

    /// Returns at most `limit` entries of a pipeline's audit log before the position `before`, newest first.
    async fn list_audit_log(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PipelineAuditRecord>, StorageError>;

    /// Returns the revision that a job was assigned. If it has none, assigns one by the rollout and stores it before
    /// this returns. Returns `None` if no revision is active.
    async fn assign_revision_to_job(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        job: &JobId,
    ) -> Result<Option<RevisionAssignment>, StorageError>;

    /// Returns the revision that a job was assigned, if it has one.
    async fn find_assigned_revision_of_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Option<RevisionAssignment>, StorageError>;

    /// Records the outcome of a job that was assigned a revision. Further outcomes of the job, and outcomes of jobs that
    /// were not assigned a revision, have no effect.
    async fn record_job_outcome(&self, outcome: &RevisionJobOutcome) -> Result<(), StorageError>;

    /// Returns the metrics of a revision's jobs that ended within this range of milliseconds since 1970, in the order
    /// of their ends. If there are more than `jobs`, returns that many, spread evenly: the last job of each of `jobs`
    /// parts of equal size.
    async fn sample_ended_jobs(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        revision: u32,
        within_millis: RangeInclusive<u64>,
        jobs: u32,
    ) -> Result<Vec<JobSample>, StorageError>;
}
