//! Compares the decisions of ended jobs with those of a shadow revision.
//!
//! One job of each tenant is compared at a time, and a few on the whole host. A job that ends meanwhile is not compared. So
//! comparisons never queue: under load they become a sample of the jobs instead of falling behind.

use weir_core::clock::unix_time_millis;
use weir_core::job_request::JobRequestOptions;
use weir_core::replay::ReplayReport;
use weir_core::rollout::{RevisionAssignment, RolloutArm};
use weir_core::shadow::{MAX_DIFFERENCES_PER_RUN, ShadowRevision, ShadowRun};
use weir_core::{JobId, StorageError, TenantId};

use super::instance_memory_quota::apply_instance_memory_quota;
use crate::state::Control;

/// An ended job to compare.
pub(crate) struct JobToCompare<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) job: JobId,
    pub(crate) pipeline: &'a str,
    pub(crate) options: &'a JobRequestOptions,
}

/// Replays the decisions of a job with the shadow of its pipeline, if it has one, and stores the differences.
pub(crate) async fn compare_with_shadow(
    control: &Control,
    assignment: RevisionAssignment,
    job_to_compare: JobToCompare<'_>,
) {
    if let Err(error) = try_compare_with_shadow(control, assignment, &job_to_compare).await {
        tracing::warn!(job = %job_to_compare.job, %error, "cannot compare a job with the shadow");
    }
}

async fn try_compare_with_shadow(
    control: &Control,
    assignment: RevisionAssignment,
    job_to_compare: &JobToCompare<'_>,
) -> Result<(), StorageError> {
    let pipelines = &control.tenant_pipelines;
    let record = pipelines
        .pipeline_store
        .find_pipeline(job_to_compare.tenant, job_to_compare.pipeline)
        .await?;
    let shadow = record.and_then(|record| record.rollout.shadow);
    let Some(shadow) = shadow.filter(|shadow| shadow.revision != assignment.revision) else {
        return Ok(());
    };
    let Some(_permit) = pipelines.comparison_permits.try_acquire(job_to_compare.tenant) else {
        return Ok(());
    };
    pipelines
        .shadow_store
        .put_shadow_run(&ShadowRun {
            tenant: job_to_compare.tenant.clone(),
            pipeline: job_to_compare.pipeline.to_owned(),
            revision: shadow.revision,
            job: job_to_compare.job,
            compared_at_millis: unix_time_millis(),
            report: replay_with_shadow(control, shadow, job_to_compare).await,
        })
        .await
}

async fn replay_with_shadow(
    control: &Control,
    shadow: ShadowRevision,
    job_to_compare: &JobToCompare<'_>,
) -> Result<ReplayReport, String> {
    let assignment = Some(RevisionAssignment {
        revision: shadow.revision,
        arm: RolloutArm::Stable,
    });
    let pipeline = control
        .tenant_pipelines
        .load_revision_or_host_pipeline(
            job_to_compare.tenant,
            job_to_compare.pipeline,
            job_to_compare.options,
            assignment,
        )
        .await;
    let pipeline = pipeline.map_err(|error| error.to_string())?;
    let pipeline = apply_instance_memory_quota(control, job_to_compare.tenant, pipeline).await;
    let pipeline = pipeline.map_err(|error| error.to_string())?;
    let report = control
        .tenant_pipelines
        .job_replayer
        .replay_job(job_to_compare.tenant, &job_to_compare.job, &pipeline)
        .await;
    let mut report = report.map_err(|error| error.to_string())?;
    report.differences.truncate(MAX_DIFFERENCES_PER_RUN);
    Ok(report)
}
