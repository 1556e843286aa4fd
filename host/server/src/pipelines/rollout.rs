//! The API for rollouts: view and change which revisions new jobs get.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_control::Control;
use weir_core::canary_analysis::JobMetrics;
use weir_core::clock::unix_time_millis;
use weir_core::rollout::{Rollout, RolloutAction};
use weir_core::tenancy::KeyScope;

use super::find_pipeline;
use super::shadow_view::{ShadowView, load_shadow_view};
use crate::auth::Caller;
use crate::http_input::{JsonBody, PathParams};
use crate::problem::Problem;

/// Which revisions new jobs get.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct RolloutView {
    /// The revision of new jobs that do not get the canary; null before a revision is activated.
    stable: Option<u32>,
    /// The revision that a share of the new jobs gets.
    canary: Option<CanaryView>,
    /// The revision whose decisions are compared after each job, without effect.
    shadow: Option<u32>,
    /// The previous stable revision.
    previous: Option<u32>,
    /// Whether changes are refused until the rollout is unpinned.
    pinned: bool,
    /// A number that grows with each change.
    version: u64,
}

/// A canary.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct CanaryView {
    /// The number of the revision.
    revision: u32,
    /// The share of new jobs that get it, in percent.
    percent: u32,
    /// When it became the canary, in milliseconds since 1970.
    since_millis: u64,
}

impl From<Rollout> for RolloutView {
    fn from(rollout: Rollout) -> Self {
        Self {
            stable: rollout.stable,
            canary: rollout.canary.map(|canary| CanaryView {
                revision: canary.revision,
                percent: canary.percent,
                since_millis: canary.since_millis,
            }),
            shadow: rollout.shadow.map(|shadow| shadow.revision),
            previous: rollout.previous,
            pinned: rollout.pinned,
            version: rollout.version,
        }
    }
}

/// The metrics of the jobs of a revision.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct JobMetricsView {
    /// The number of ended jobs.
    jobs: u64,
    /// The number of failed jobs.
    failed_jobs: u64,
    /// The number of finished, skipped and failed pages.
    pages: u64,
    /// The number of skipped and failed pages.
    failed_pages: u64,
    /// The number of component calls.
    calls: u64,
    /// The number of calls that trapped or returned an invalid decision.
    traps: u64,
    /// The number of calls that timed out.
    timeouts: u64,
    /// The total duration of the jobs in milliseconds.
    millis: u64,
}

impl From<JobMetrics> for JobMetricsView {
    fn from(metrics: JobMetrics) -> Self {
        Self {
            jobs: metrics.jobs,
            failed_jobs: metrics.failed_jobs,
            pages: metrics.pages,
            failed_pages: metrics.failed_pages,
            calls: metrics.calls,
            traps: metrics.traps,
            timeouts: metrics.timeouts,
            millis: metrics.millis,
        }
    }
}

/// A rollout with the results of its canary and its shadow.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RolloutStatusView {
    /// Which revisions new jobs get.
    rollout: RolloutView,
    /// The canary analysis; null without a canary.
    trial: Option<CanaryTrialView>,
    /// The comparison with the shadow; null without a shadow.
    shadow: Option<ShadowView>,
}

/// The trial of a canary against the stable revision.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CanaryTrialView {
    /// The metrics of the canary's jobs since the trial began.
    canary: JobMetricsView,
    /// The metrics of the stable revision's jobs in the same time. If there are very many jobs, this is an even sample of them.
    stable: JobMetricsView,
    /// The result of the canary analysis: `wait`, `promote` or `rollback`.
    action: String,
    /// The reason for the result. For `wait`, it says what is undecided and when the next evaluation is.
    reason: String,
}

/// An action that changes a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RolloutActionName {
    /// New jobs get the revision.
    Activate,
    /// `percent` percent of new jobs get the revision.
    Canary,
    /// The canary becomes the stable revision.
    Promote,
    /// The canary ends. Without a canary, the previous stable revision becomes stable again.
    Rollback,
    /// New jobs get the revision, and other changes are refused until the rollout is unpinned.
    Pin,
    /// Changes are allowed again.
    Unpin,
    /// The decisions of the revision are compared with those of each job, without effect.
    Shadow,
    /// The shadow ends.
    Unshadow,
}

/// A change of a rollout.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RolloutChange {
    /// The action.
    action: RolloutActionName,
    /// The revision, for `activate`, `canary`, `pin` and `shadow`.
    #[schema(minimum = 1)]
    revision: Option<u32>,
    /// The share of new jobs in percent, for `canary`.
    #[schema(minimum = 1, maximum = 99)]
    percent: Option<u32>,
    /// The version of the rollout that the change is based on. The change is refused if the rollout has another version by now.
    version: Option<u64>,
}

impl RolloutChange {
    fn to_rollout_action(&self) -> Result<RolloutAction, Problem> {
        let require = |what: Option<u32>, name: &str| {
            what.ok_or_else(|| Problem::unprocessable(format!("this action needs a {name}")))
        };
        let revision = || require(self.revision, "revision");
        let takes_revision = matches!(
            self.action,
            RolloutActionName::Activate
                | RolloutActionName::Canary
                | RolloutActionName::Pin
                | RolloutActionName::Shadow
        );
        if self.revision.is_some() && !takes_revision {
            return Err(Problem::unprocessable("this action takes no revision"));
        }
        if self.percent.is_some() && self.action != RolloutActionName::Canary {
            return Err(Problem::unprocessable("only a canary has a percent"));
        }
        Ok(match self.action {
            RolloutActionName::Activate => RolloutAction::Activate {
                revision: revision()?,
            },
            RolloutActionName::Canary => RolloutAction::Canary {
                revision: revision()?,
                percent: require(self.percent, "percent")?,
            },
            RolloutActionName::Promote => RolloutAction::Promote,
            RolloutActionName::Rollback => RolloutAction::RollBack,
            RolloutActionName::Pin => RolloutAction::Pin {
                revision: revision()?,
            },
            RolloutActionName::Unpin => RolloutAction::Unpin,
            RolloutActionName::Shadow => RolloutAction::Shadow {
                revision: revision()?,
            },
            RolloutActionName::Unshadow => RolloutAction::Unshadow,
        })
    }
}

/// Get a rollout: which revisions new jobs get, and the results of the canary and the shadow.
#[utoipa::path(get, path = "/v1/pipelines/{name}/rollout", tag = "pipelines",
    params(("name" = String, Path, description = "Name of the pipeline")),
    responses(
        (status = 200, description = "The rollout", body = RolloutStatusView),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The pipeline does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_rollout(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(name): PathParams<String>,
) -> Result<Json<RolloutStatusView>, Problem> {
    caller.require_scope(KeyScope::Components)?;
    let record = find_pipeline(&control, &caller, &name).await?;
    let trial = weir_control::pipelines::load_and_evaluate_trial(
        control.tenant_pipelines.pipeline_store.as_ref(),
        caller.tenant_id(),
        &name,
        &record.rollout,
    )
    .await?;
    let trial = trial.map(|trial| {
        let (action, reason) = trial.describe_action();
        CanaryTrialView {
            action: action.to_owned(),
            reason: reason.to_owned(),
            canary: trial.canary_metrics.into(),
            stable: trial.stable_metrics.into(),
        }
    });
    let shadows = control.tenant_pipelines.shadow_store.as_ref();
    Ok(Json(RolloutStatusView {
        shadow: load_shadow_view(shadows, caller.tenant_id(), &name, &record.rollout).await?,
        rollout: record.rollout.into(),
        trial,
    }))
}

/// Change which revisions new jobs get.
///
/// The change applies to jobs that start after the response. Running jobs keep their revision.
#[utoipa::path(post, path = "/v1/pipelines/{name}/rollout", tag = "pipelines", request_body = RolloutChange,
    params(("name" = String, Path, description = "Name of the pipeline")),
    responses(
        (status = 200, description = "The new rollout", body = RolloutView),
        (status = 400, description = "The body is not valid JSON", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The pipeline or revision does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body is incomplete", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The current rollout does not allow this change", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The content type is not application/json", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The change is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The host has no disk space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn change_rollout(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(name): PathParams<String>,
    JsonBody(requested): JsonBody<RolloutChange>,
) -> Result<Json<RolloutView>, Problem> {
    caller.require_scope(KeyScope::Components)?;
    find_pipeline(&control, &caller, &name).await?;
    let change = requested.to_rollout_action()?;
    if let Some(number) = change.target_revision()
        && control
            .tenant_pipelines
            .pipeline_store
            .find_revision(caller.tenant_id(), &name, number)
            .await?
            .is_none()
    {
        return Err(Problem::not_found(format!(
            "pipeline '{name}' has no revision {number}"
        )));
    }
    let changed = control
        .tenant_pipelines
        .pipeline_store
        .change_rollout(
            caller.tenant_id(),
            &name,
            requested.version,
            &change,
            &caller.key_id,
            None,
            unix_time_millis(),
        )
        .await?;
    match changed {
        Ok(rollout) => Ok(Json(rollout.into())),
        Err(refused) => Err(Problem::conflict(refused.to_string())),
    }
}
