//! A job's decisions, had again by another revision before any job runs it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_core::JobId;
use weir_core::ports::Ledger as _;
use weir_core::replay::{Difference, Effect, ReplayError, ReplayReport};
use weir_core::rollout::{Arm, Assignment};
use weir_core::tenancy::Scope;

use super::PipelineError;
use super::components::refused;
use super::memory::within;
use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::wire::{Body, Route};

/// Which revision decides.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ReplayWith {
    /// A revision of the job's pipeline; the one that the job ran, if none is given.
    #[schema(minimum = 1)]
    revision: Option<u32>,
}

/// What came of putting a job's questions to components again.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplayView {
    /// Decisions that were had again.
    decisions: u64,
    /// Those that came out otherwise.
    differing: u64,
    /// The first of them.
    differences: Vec<DifferenceView>,
    /// Questions to capabilities that nobody had asked when the job ran, and that therefore had no answer.
    missed: u64,
    /// What the decisions came to when the job ran.
    before: EffectView,
    /// What they come to now.
    after: EffectView,
    /// Why the recording has not all of the job's decisions, if it has not.
    incomplete: Option<String>,
}

/// A decision that came out otherwise.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DifferenceView {
    /// Role and function.
    function: String,
    /// What was asked about.
    about: String,
    /// The answer when the job ran, or the error.
    before: String,
    /// The answer now, or the error.
    after: String,
}

impl From<Difference> for DifferenceView {
    fn from(difference: Difference) -> Self {
        Self {
            function: difference.function,
            about: difference.about,
            before: difference.before,
            after: difference.after,
        }
    }
}

/// What decisions come to, all together.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EffectView {
    /// Batches.
    batches: u64,
    /// Pages that batches ask for.
    batch_pages: u64,
    /// Pages whose text layer is read.
    text_layer: u64,
    /// Pages whose text is recognized.
    ocr: u64,
    /// Pages read by a vision-language model.
    vision_model: u64,
    /// Pages not read.
    not_read: u64,
    /// Passages that become searchable.
    passages: u64,
    /// Questions to a language model.
    model_calls: u64,
    /// Failures after which a page is tried again.
    retries: u64,
    /// Failures after which a page is skipped or its document fails.
    given_up: u64,
    /// Updates that users see.
    updates: u64,
    /// Decisions that were not made.
    errors: u64,
}

impl From<Effect> for EffectView {
    fn from(effect: Effect) -> Self {
        Self {
            batches: effect.batches,
            batch_pages: effect.batch_pages,
            text_layer: effect.text_layer,
            ocr: effect.ocr,
            vision_model: effect.vision_model,
            not_read: effect.not_read,
            passages: effect.passages,
            model_calls: effect.model_calls,
            retries: effect.retries,
            given_up: effect.given_up,
            updates: effect.updates,
            errors: effect.errors,
        }
    }
}

impl From<ReplayReport> for ReplayView {
    fn from(report: ReplayReport) -> Self {
        Self {
            decisions: report.decisions,
            differing: report.differing,
            differences: report.differences.into_iter().map(DifferenceView::from).collect(),
            missed: report.missed,
            before: report.before.into(),
            after: report.after.into(),
            incomplete: report.incomplete,
        }
    }
}

/// Puts a job's recorded questions to a revision's components, and tells what they decide otherwise.
///
/// Nothing of it has an effect. With the revision that the job ran nothing differs.
#[utoipa::path(post, path = "/v1/jobs/{id}/replay", tag = "pipelines", request_body = ReplayWith,
    params(("id" = String, Path, format = Uuid, description = "the job")),
    responses(
        (status = 200, description = "what differs", body = ReplayView),
        (status = 400, description = "no JSON", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such job or revision, or its calls were not recorded", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "the body broke off", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "no JSON by its type", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "it cannot be replayed, and why", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn replay(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(job): Route<JobId>,
    Body(with): Body<ReplayWith>,
) -> Result<Json<ReplayView>, Problem> {
    caller.may(Scope::Components)?;
    let tenant = caller.id();
    let (record, order) = tokio::try_join!(app.ledger.job(tenant, &job), app.orders.order(tenant, &job))?;
    let record = record.ok_or_else(|| Problem::not_found("there is no job of this id"))?;
    let options = order.map(|order| order.options).unwrap_or_default();
    let given = match with.revision {
        Some(revision) => {
            let known = app
                .shelf
                .book
                .revision(tenant, &record.pipeline, revision)
                .await?;
            let missing = format!("pipeline '{}' has no revision {revision}", record.pipeline);
            known.ok_or_else(|| Problem::not_found(missing))?;
            Some(Assignment {
                revision,
                arm: Arm::Stable,
            })
        }
        None => app.shelf.book.assignment(tenant, &job).await?,
    };
    let pipeline = app.shelf.load(tenant, &record.pipeline, &options, given).await;
    let pipeline = pipeline.map_err(|error| match error {
        PipelineError::Storage(error) => error.into(),
        other => Problem::unprocessable(other.to_string()),
    })?;
    let pipeline = within(&app, tenant, pipeline).await?;
    let report = app.shelf.replays.replay(tenant, &job, &pipeline).await;
    match report {
        Ok(report) => Ok(Json(report.into())),
        Err(error @ (ReplayError::NotRecorded(_) | ReplayError::NotKept(..))) => {
            Err(Problem::not_found(error.to_string()))
        }
        Err(ReplayError::Unreadable(reason)) => Err(Problem::internal(reason)),
        Err(ReplayError::Policy(error)) => Err(refused(error)),
    }
}
