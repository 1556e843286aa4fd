//! The trial of a canary: it collects job metrics of the canary and the stable revision, and applies the canary analysis.
//!
//! Each ended job with an assigned revision stores its metrics. If the job ran a canary, the canary is evaluated at once, by the
//! rules in its own manifest. A promotion or rollback is an ordinary change of the rollout, based on the version that was
//! evaluated. So it never overrides a change that was made in the meantime.

use weir_core::canary_analysis::{CanaryAction, CanaryEvidence, JobMetrics, sum_job_metrics};
use weir_core::clock::unix_time_millis;
use weir_core::ledger::JobState;
use weir_core::revision::{PipelineStore, RevisionJobOutcome};
use weir_core::rollout::{RevisionAssignment, Rollout, RolloutAction};
use weir_core::{JobId, StorageError, TenantId};
use weir_engine::{DocumentEndState, JobOutcome};

use super::tenant_pipeline_service::TenantPipelineService;

/// The author of the changes by the canary analysis in the audit log. Other authors are public parts of API keys.
const CANARY_ANALYSIS_AUTHOR: &str = "canary-analysis";

/// The trial of a canary against the stable revision.
pub struct EvaluatedCanaryTrial {
    /// The metrics of the canary so far.
    pub canary_metrics: JobMetrics,
    /// The metrics of the stable revision in the same time.
    pub stable_metrics: JobMetrics,
    /// The result of the analysis.
    pub action: CanaryAction,
    /// The metrics of the canary and the stable revision at the evaluation.
    evaluated_metrics: (JobMetrics, JobMetrics),
    automatic: bool,
}

impl EvaluatedCanaryTrial {
    /// Returns the result of the analysis and its reason.
    pub fn describe_action(&self) -> (&'static str, &str) {
        match &self.action {
            CanaryAction::Wait(reason) => ("wait", reason),
            CanaryAction::Promote(reason) => ("promote", reason),
            CanaryAction::RollBack(reason) => ("rollback", reason),
        }
    }
}

/// Loads the trial of a rollout's canary and evaluates it; `None` if the rollout has no canary.
pub async fn load_and_evaluate_trial(
    pipeline_store: &dyn PipelineStore,
    tenant: &TenantId,
    pipeline: &str,
    rollout: &Rollout,
) -> Result<Option<EvaluatedCanaryTrial>, StorageError> {
    let (Some(trial), Some(stable)) = (rollout.canary, rollout.stable) else {
        return Ok(None);
    };
    let Some(revision) = pipeline_store
        .find_revision(tenant, pipeline, trial.revision)
        .await?
    else {
        return Ok(None);
    };
    let (config, since) = (revision.spec.manifest.canary_analysis, trial.since_millis);
    let sample_jobs = async |revision, until, jobs| {
        pipeline_store
            .sample_ended_jobs(tenant, pipeline, revision, since..=until, jobs)
            .await
    };
    let max_jobs = config.max_evaluated_jobs();
    let canary = sample_jobs(trial.revision, u64::MAX, max_jobs).await?;
    let stable_metrics = sum_job_metrics(&sample_jobs(stable, u64::MAX, max_jobs).await?);
    let (action, evaluated_metrics) = match config.select_latest_due_evaluation(&canary) {
        Some(evaluation) => {
            let stable_jobs = sample_jobs(
                stable,
                evaluation.last_job_ended_at_millis(),
                evaluation.max_stable_jobs(),
            )
            .await?;
            (
                evaluation.decide_canary_action(&stable_jobs),
                (evaluation.canary_metrics(), sum_job_metrics(&stable_jobs)),
            )
        }
        None => (
            config.wait_action_before_first_evaluation(),
            (sum_job_metrics(&canary), stable_metrics),
        ),
    };
    Ok(Some(EvaluatedCanaryTrial {
        canary_metrics: sum_job_metrics(&canary),
        stable_metrics,
        action,
        evaluated_metrics,
        automatic: config.automatic,
    }))
}

/// An ended job with an assigned revision.
pub(crate) struct EndedJob<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) job: JobId,
    pub(crate) pipeline: &'a str,
    pub(crate) outcome: &'a JobOutcome,
    /// Its duration in milliseconds; `None` if it started in an earlier process, whose part is unknown.
    pub(crate) millis: Option<u64>,
}

/// Stores the metrics of an ended job. If the job ran a canary, it also evaluates the canary.
pub(crate) async fn record_job_and_evaluate_canary(
    pipelines: &TenantPipelineService,
    assignment: RevisionAssignment,
    ended_job: EndedJob<'_>,
) {
    if let Err(error) = try_record_and_evaluate(pipelines, assignment, &ended_job).await {
        tracing::warn!(job = %ended_job.job, %error, "cannot record the metrics of a job or evaluate its canary");
    }
}

async fn try_record_and_evaluate(
    pipelines: &TenantPipelineService,
    assignment: RevisionAssignment,
    ended_job: &EndedJob<'_>,
) -> Result<(), StorageError> {
    let (pipeline_store, tenant, pipeline) = (
        pipelines.pipeline_store.as_ref(),
        ended_job.tenant,
        ended_job.pipeline,
    );
    pipeline_store
        .record_job_outcome(&RevisionJobOutcome {
            tenant: tenant.clone(),
            job: ended_job.job,
            state: ended_job.outcome.state,
            ended_at_millis: unix_time_millis(),
            metrics: job_metrics_from_outcome(ended_job.outcome, ended_job.millis),
        })
        .await?;
    let Some(record) = pipeline_store.find_pipeline(tenant, pipeline).await? else {
        return Ok(());
    };
    let rollout = record.rollout;
    // Only a job of the canary can lead to a new evaluation.
    if rollout.canary.map(|canary| canary.revision) != Some(assignment.revision) {
        return Ok(());
    }
    let Some(trial) = load_and_evaluate_trial(pipeline_store, tenant, pipeline, &rollout).await? else {
        return Ok(());
    };
    if !trial.automatic {
        return Ok(());
    }
    let (change, reason) = match trial.action {
        CanaryAction::Wait(_) => return Ok(()),
        CanaryAction::Promote(reason) => (RolloutAction::Promote, reason),
        CanaryAction::RollBack(reason) => (RolloutAction::RollBack, reason),
    };
    let (canary, stable) = trial.evaluated_metrics;
    let evidence = CanaryEvidence {
        canary,
        stable,
        reason: reason.clone(),
    };
    let changed = pipeline_store
        .change_rollout(
            tenant,
            pipeline,
            Some(rollout.version),
            &change,
            CANARY_ANALYSIS_AUTHOR,
            Some(evidence),
            unix_time_millis(),
        )
        .await?;
    match changed {
        Ok(_) => {
            tracing::info!(%tenant, pipeline, action = change.name(), reason, "the canary analysis changed a rollout")
        }
        // The rollout was changed in the meantime.
        Err(refused) => {
            tracing::debug!(%tenant, pipeline, %refused, "the canary analysis did not change the rollout")
        }
    }
    Ok(())
}

fn job_metrics_from_outcome(outcome: &JobOutcome, millis: Option<u64>) -> JobMetrics {
    let (mut pages, mut failed_pages) = (0, 0);
    for document in &outcome.documents {
        match &document.end {
            DocumentEndState::Done {
                pages: requested_pages,
                skipped,
                failed,
                ..
            } => {
                // Pages that an earlier job had finished do not count for this job.
                pages += u64::from(requested_pages.saturating_sub(*skipped));
                failed_pages += failed.len() as u64;
            }
            DocumentEndState::Failed { done, .. } | DocumentEndState::Cancelled { done } => {
                pages += u64::from(*done)
            }
            DocumentEndState::Suspended { .. } => {}
        }
    }
    let cancelled = outcome.state == JobState::Cancelled;
    JobMetrics {
        jobs: u64::from(!cancelled),
        failed_jobs: u64::from(outcome.state == JobState::Failed),
        // Pages without a known duration would make the revision look fast.
        pages: if millis.is_some() && !cancelled { pages } else { 0 },
        failed_pages: if millis.is_some() && !cancelled {
            failed_pages
        } else {
            0
        },
        calls: outcome.policy.calls,
        traps: outcome.policy.traps,
        timeouts: outcome.policy.timeouts,
        millis: millis.filter(|_| !cancelled && pages > 0).unwrap_or(0),
    }
}
