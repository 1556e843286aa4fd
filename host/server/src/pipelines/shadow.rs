//! Compares the decisions of ended jobs with those of a shadow revision.
//!
//! One job of each tenant is compared at a time, and a few on the whole host. A job that ends meanwhile is not compared. So
//! comparisons never queue: under load they become a sample of the jobs instead of falling behind.

use serde::Serialize;
use utoipa::ToSchema;
use weir_core::clock::unix_time_millis;
use weir_core::job_request::JobRequestOptions;
use weir_core::replay::ReplayReport;
use weir_core::rollout::{RevisionAssignment, Rollout, RolloutArm};
use weir_core::shadow::{MAX_DIFFERENCES_PER_RUN, ShadowRevision, ShadowRun, ShadowStore, ShadowTotals};
use weir_core::{JobId, StorageError, TenantId};

use super::memory_quota::apply_memory_quota;
use super::replay::{DecisionTotalsView, DifferenceView};
use crate::app::AppState;

/// The maximum number of concurrent comparisons on the host.
pub(super) const MAX_CONCURRENT_COMPARISONS: usize = 4;

/// An ended job to compare.
pub(crate) struct ComparedJob<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) job: JobId,
    pub(crate) pipeline: &'a str,
    pub(crate) options: &'a JobRequestOptions,
}

/// Replays the decisions of a job with the shadow of its pipeline, if it has one, and stores the differences.
pub(crate) async fn compare_with_shadow(app: &AppState, given: RevisionAssignment, ended: ComparedJob<'_>) {
    if let Err(error) = try_compare_with_shadow(app, given, &ended).await {
        tracing::warn!(job = %ended.job, %error, "cannot compare a job with the shadow");
    }
}

async fn try_compare_with_shadow(
    app: &AppState,
    given: RevisionAssignment,
    ended: &ComparedJob<'_>,
) -> Result<(), StorageError> {
    let shelf = &app.tenant_pipelines;
    let record = shelf
        .pipeline_store
        .find_pipeline(ended.tenant, ended.pipeline)
        .await?;
    let shadow = record.and_then(|record| record.rollout.shadow);
    let Some(shadow) = shadow.filter(|shadow| shadow.revision != given.revision) else {
        return Ok(());
    };
    let Some(_turn) = shelf.comparison_permits.try_acquire(ended.tenant) else {
        return Ok(());
    };
    shelf
        .shadow_store
        .put_shadow_run(&ShadowRun {
            tenant: ended.tenant.clone(),
            pipeline: ended.pipeline.to_owned(),
            revision: shadow.revision,
            job: ended.job,
            compared_at_millis: unix_time_millis(),
            report: replay_with_shadow(app, shadow, ended).await,
        })
        .await
}

async fn replay_with_shadow(
    app: &AppState,
    shadow: ShadowRevision,
    ended: &ComparedJob<'_>,
) -> Result<ReplayReport, String> {
    let given = Some(RevisionAssignment {
        revision: shadow.revision,
        arm: RolloutArm::Stable,
    });
    let pipeline = app
        .tenant_pipelines
        .load_pipeline(ended.tenant, ended.pipeline, ended.options, given)
        .await;
    let pipeline = pipeline.map_err(|error| error.to_string())?;
    let pipeline = apply_memory_quota(app, ended.tenant, pipeline).await;
    let pipeline = pipeline.map_err(|error| error.to_string())?;
    let report = app
        .tenant_pipelines
        .job_replayer
        .replay_job(ended.tenant, &ended.job, &pipeline)
        .await;
    let mut report = report.map_err(|error| error.to_string())?;
    report.differences.truncate(MAX_DIFFERENCES_PER_RUN);
    Ok(report)
}

/// The comparison of a shadow with the real decisions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShadowView {
    /// The revision of the shadow.
    revision: u32,
    /// When it became the shadow, in milliseconds since 1970.
    since_millis: u64,
    /// The number of compared jobs, up to the last 200.
    jobs: u64,
    /// The number of jobs with a decision that differs.
    differing_jobs: u64,
    /// The number of compared decisions.
    decisions: u64,
    /// The number of decisions that differ.
    differing: u64,
    /// The number of calls to capabilities that the job had not made and that therefore had no recorded response.
    missed: u64,
    /// The totals of the real decisions.
    before: DecisionTotalsView,
    /// The totals of the shadow's decisions.
    after: DecisionTotalsView,
    /// The latest decisions that differ.
    examples: Vec<DifferenceExampleView>,
    /// The number of jobs whose comparison failed.
    uncompared: u64,
    /// The reason of the latest failed comparison.
    reason: Option<String>,
}

/// A decision that differs, with its job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DifferenceExampleView {
    /// The id of the job.
    #[schema(value_type = String, format = Uuid)]
    job: JobId,
    /// The decision.
    difference: DifferenceView,
}

/// Returns the comparison of a rollout's shadow; `None` if the rollout has no shadow.
pub(super) async fn load_shadow_view(
    book: &dyn ShadowStore,
    tenant: &TenantId,
    pipeline: &str,
    rollout: &Rollout,
) -> Result<Option<ShadowView>, StorageError> {
    let Some(shadow) = rollout.shadow else {
        return Ok(None);
    };
    let runs = book
        .list_shadow_runs(tenant, pipeline, shadow.revision, shadow.since_millis)
        .await?;
    let showing = ShadowTotals::from_runs(runs);
    let examples = showing.examples.into_iter();
    Ok(Some(ShadowView {
        revision: shadow.revision,
        since_millis: shadow.since_millis,
        jobs: showing.compared_jobs,
        differing_jobs: showing.differing_jobs,
        decisions: showing.decisions,
        differing: showing.differing_decisions,
        missed: showing.missing_capability_responses,
        before: showing.recorded_totals.into(),
        after: showing.shadow_totals.into(),
        examples: examples
            .map(|(job, difference)| DifferenceExampleView {
                job,
                difference: difference.into(),
            })
            .collect(),
        uncompared: showing.failed_comparisons,
        reason: showing.latest_failure,
    }))
}
