//! Who gets which revision, over HTTP: seen and changed.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_core::judge::Showing;
use weir_core::rollout::{Change, Rollout};
use weir_core::tenancy::Scope;

use super::revisions::known;
use super::shadow::{self, ShadowView};
use super::trial;
use crate::app::{App, now_millis};
use crate::auth::Caller;
use crate::problem::Problem;
use crate::wire::{Body, Route};

/// Which revision new jobs get.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct RolloutView {
    /// The revision of those that do not get the canary; null before one is activated.
    stable: Option<u32>,
    /// The revision that some get.
    canary: Option<CanaryView>,
    /// The revision that decides beside them, without effect.
    shadow: Option<u32>,
    /// What was stable before.
    previous: Option<u32>,
    /// Whether no change is taken until it is unpinned.
    pinned: bool,
    /// Grows with each change.
    version: u64,
}

/// A revision on trial.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct CanaryView {
    /// Its number.
    revision: u32,
    /// Of a hundred new jobs.
    percent: u32,
    /// Since when, in milliseconds since 1970.
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

/// What jobs of a revision showed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ShowingView {
    /// Jobs that ended.
    jobs: u64,
    /// Those that failed.
    failed_jobs: u64,
    /// Pages done, skipped or failed.
    pages: u64,
    /// Pages skipped or failed.
    failed_pages: u64,
    /// Calls of components.
    calls: u64,
    /// Those that trapped or answered nonsense.
    traps: u64,
    /// Those that passed their deadline.
    timeouts: u64,
    /// Milliseconds that jobs took, all together.
    millis: u64,
}

impl From<Showing> for ShowingView {
    fn from(showing: Showing) -> Self {
        Self {
            jobs: showing.jobs,
            failed_jobs: showing.failed_jobs,
            pages: showing.pages,
            failed_pages: showing.failed_pages,
            calls: showing.calls,
            traps: showing.traps,
            timeouts: showing.timeouts,
            millis: showing.millis,
        }
    }
}

/// A rollout, and how its canary does.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RolloutState {
    /// Which revision new jobs get.
    rollout: RolloutView,
    /// The canary beside the stable revision, if there is one.
    trial: Option<TrialView>,
    /// What the shadow would have decided, if there is one.
    shadow: Option<ShadowView>,
}

/// A canary beside the stable revision.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TrialView {
    /// What the canary showed since it began.
    canary: ShowingView,
    /// What the stable revision showed in that time: a sample, spread over it, of what are very many jobs.
    stable: ShowingView,
    /// What follows from it: `wait`, `promote` or `rollback`.
    judgement: String,
    /// Why, or what leaves it open and when it is looked at again.
    reason: String,
}

/// A change of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Action {
    /// New jobs get the revision.
    Activate,
    /// `percent` of a hundred new jobs get the revision.
    Canary,
    /// The canary becomes stable.
    Promote,
    /// The canary ends or, where there is none, what was stable before is again.
    Rollback,
    /// New jobs get the revision, and no other change is taken until it is unpinned.
    Pin,
    /// Changes are taken again.
    Unpin,
    /// The revision decides beside the real ones, without effect.
    Shadow,
    /// The shadow ends.
    Unshadow,
}

/// A change to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RolloutChange {
    /// What is to be done.
    action: Action,
    /// The revision, for `activate`, `canary`, `pin` and `shadow`.
    #[schema(minimum = 1)]
    revision: Option<u32>,
    /// Of a hundred new jobs, for `canary`.
    #[schema(minimum = 1, maximum = 99)]
    percent: Option<u32>,
    /// The version that the change is meant for; it is refused if there was another change since.
    version: Option<u64>,
}

impl RolloutChange {
    fn change(&self) -> Result<Change, Problem> {
        let of = |what: Option<u32>, name: &str| {
            what.ok_or_else(|| Problem::unprocessable(format!("this action needs a {name}")))
        };
        let revision = || of(self.revision, "revision");
        let takes_revision = matches!(
            self.action,
            Action::Activate | Action::Canary | Action::Pin | Action::Shadow
        );
        if self.revision.is_some() && !takes_revision {
            return Err(Problem::unprocessable("this action takes no revision"));
        }
        if self.percent.is_some() && self.action != Action::Canary {
            return Err(Problem::unprocessable("only a canary has a percent"));
        }
        Ok(match self.action {
            Action::Activate => Change::Activate {
                revision: revision()?,
            },
            Action::Canary => Change::Canary {
                revision: revision()?,
                percent: of(self.percent, "percent")?,
            },
            Action::Promote => Change::Promote,
            Action::Rollback => Change::RollBack,
            Action::Pin => Change::Pin {
                revision: revision()?,
            },
            Action::Unpin => Change::Unpin,
            Action::Shadow => Change::Shadow {
                revision: revision()?,
            },
            Action::Unshadow => Change::Unshadow,
        })
    }
}

/// Tells which revision new jobs get, and how a canary does.
#[utoipa::path(get, path = "/v1/pipelines/{name}/rollout", tag = "pipelines",
    params(("name" = String, Path, description = "the pipeline's name")),
    responses(
        (status = 200, description = "the rollout", body = RolloutState),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such pipeline", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn rollout(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(name): Route<String>,
) -> Result<Json<RolloutState>, Problem> {
    caller.may(Scope::Components)?;
    let record = known(&app, &caller, &name).await?;
    let trial = trial::of(app.shelf.book.as_ref(), caller.id(), &name, &record.rollout).await?;
    let trial = trial.map(|trial| {
        let (judgement, reason) = trial.said();
        TrialView {
            judgement: judgement.to_owned(),
            reason: reason.to_owned(),
            canary: trial.canary.into(),
            stable: trial.stable.into(),
        }
    });
    let shadows = app.shelf.shadows.as_ref();
    Ok(Json(RolloutState {
        shadow: shadow::of(shadows, caller.id(), &name, &record.rollout).await?,
        rollout: record.rollout.into(),
        trial,
    }))
}

/// Changes which revision new jobs get.
///
/// Jobs that begin after the answer get what it says; those in work keep what they have.
#[utoipa::path(post, path = "/v1/pipelines/{name}/rollout", tag = "pipelines", request_body = RolloutChange,
    params(("name" = String, Path, description = "the pipeline's name")),
    responses(
        (status = 200, description = "the rollout from now on", body = RolloutView),
        (status = 400, description = "no JSON", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such pipeline or revision", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "the body broke off", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "as things stand that cannot be", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "no JSON by its type", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "no such change", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "no space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn change_rollout(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(name): Route<String>,
    Body(wanted): Body<RolloutChange>,
) -> Result<Json<RolloutView>, Problem> {
    caller.may(Scope::Components)?;
    known(&app, &caller, &name).await?;
    let change = wanted.change()?;
    if let Some(number) = change.revision()
        && app
            .shelf
            .book
            .revision(caller.id(), &name, number)
            .await?
            .is_none()
    {
        return Err(Problem::not_found(format!(
            "pipeline '{name}' has no revision {number}"
        )));
    }
    let changed = app
        .shelf
        .book
        .change_rollout(
            caller.id(),
            &name,
            wanted.version,
            &change,
            &caller.key,
            None,
            now_millis(),
        )
        .await?;
    match changed {
        Ok(rollout) => Ok(Json(rollout.into())),
        Err(refused) => Err(Problem::conflict(refused.to_string())),
    }
}
