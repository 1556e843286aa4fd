//! Replays the recorded decisions of a job with another revision.

use weir_core::ports::Ledger as _;
use weir_core::replay::{ReplayError, ReplayReport};
use weir_core::rollout::{RevisionAssignment, RolloutArm};
use weir_core::{JobId, StorageError, TenantId};

use super::instance_memory_quota::apply_instance_memory_quota;
use super::tenant_pipeline_service::PipelineUnavailableError;
use crate::state::Control;

/// Why a job cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayJobError {
    /// The job does not exist.
    #[error("there is no job with this id")]
    JobNotFound,
    /// The pipeline of the job has no such revision.
    #[error("pipeline '{pipeline}' has no revision {revision}")]
    RevisionNotFound {
        /// The name of the pipeline.
        pipeline: String,
        /// The number of the revision.
        revision: u32,
    },
    /// The pipeline cannot be loaded.
    #[error(transparent)]
    Pipeline(#[from] PipelineUnavailableError),
    /// The decisions cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The records of the job cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Replays the decisions of a job with a revision of its pipeline; `None` means the revision that the job ran.
pub async fn replay_job_with_revision(
    control: &Control,
    tenant: &TenantId,
    job: &JobId,
    revision: Option<u32>,
) -> Result<ReplayReport, ReplayJobError> {
    let pipelines = &control.tenant_pipelines;
    let (record, job_request) = tokio::try_join!(
        control.ledger.find_job(tenant, job),
        control.job_requests.find_job_request(tenant, job)
    )?;
    let record = record.ok_or(ReplayJobError::JobNotFound)?;
    let options = job_request.map(|request| request.options).unwrap_or_default();
    let assignment = match revision {
        Some(revision) => {
            let known = pipelines
                .pipeline_store
                .find_revision(tenant, &record.pipeline, revision)
                .await?;
            if known.is_none() {
                let pipeline = record.pipeline;
                return Err(ReplayJobError::RevisionNotFound { pipeline, revision });
            }
            Some(RevisionAssignment {
                revision,
                arm: RolloutArm::Stable,
            })
        }
        None => {
            pipelines
                .pipeline_store
                .find_assigned_revision_of_job(tenant, job)
                .await?
        }
    };
    let pipeline = pipelines
        .load_revision_or_host_pipeline(tenant, &record.pipeline, &options, assignment)
        .await?;
    let pipeline = apply_instance_memory_quota(control, tenant, pipeline).await?;
    Ok(pipelines.job_replayer.replay_job(tenant, job, &pipeline).await?)
}
