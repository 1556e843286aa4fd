//! The API to replay a job: it compares the recorded decisions of the job with those of another revision.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_control::Control;
use weir_core::JobId;
use weir_core::replay::{DecidedActionCounts, DecisionDifference, ReplayReport};
use weir_core::tenancy::KeyScope;

use crate::auth::Caller;
use crate::http_input::{JsonBody, PathParams};
use crate::problem::Problem;

/// The revision to replay a job with.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ReplayRequest {
    /// A revision of the job's pipeline; the default is the revision that the job ran.
    #[schema(minimum = 1)]
    revision: Option<u32>,
}

/// The result of a replay.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplayView {
    /// The number of replayed decisions.
    decisions: u64,
    /// The number of decisions that differ.
    differing: u64,
    /// The first decisions that differ.
    differences: Vec<DifferenceView>,
    /// The number of calls to capabilities that the job had not made and that therefore had no recorded response.
    missed: u64,
    /// The totals of the recorded decisions.
    before: DecisionTotalsView,
    /// The totals of the replayed decisions.
    after: DecisionTotalsView,
    /// Why the recording is incomplete; null if it is complete.
    incomplete: Option<String>,
}

/// A decision that differs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DifferenceView {
    /// The role and the function.
    function: String,
    /// The subject of the decision, such as a page.
    about: String,
    /// The recorded decision, or its error.
    before: String,
    /// The replayed decision, or its error.
    after: String,
}

impl From<DecisionDifference> for DifferenceView {
    fn from(difference: DecisionDifference) -> Self {
        Self {
            function: difference.function,
            about: difference.subject,
            before: difference.before,
            after: difference.after,
        }
    }
}

/// The totals of the decisions of a job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DecisionTotalsView {
    /// The number of batches.
    batches: u64,
    /// The number of pages requested by batches.
    batch_pages: u64,
    /// The number of pages whose text layer is read.
    text_layer: u64,
    /// The number of pages that are read by OCR.
    ocr: u64,
    /// The number of pages that are read by a vision-language model.
    vision_model: u64,
    /// The number of pages that are not read.
    not_read: u64,
    /// The number of passages that become searchable.
    passages: u64,
    /// The number of requests to a language model.
    model_calls: u64,
    /// The number of failures after which a page is retried.
    retries: u64,
    /// The number of failures after which a page is skipped or its document fails.
    given_up: u64,
    /// The number of progress updates for the user.
    updates: u64,
    /// The number of failed decisions.
    errors: u64,
}

impl From<DecidedActionCounts> for DecisionTotalsView {
    fn from(totals: DecidedActionCounts) -> Self {
        Self {
            batches: totals.batches,
            batch_pages: totals.batch_pages,
            text_layer: totals.text_layer,
            ocr: totals.ocr,
            vision_model: totals.vision_model,
            not_read: totals.not_read,
            passages: totals.passages,
            model_calls: totals.model_calls,
            retries: totals.retries,
            given_up: totals.given_up,
            updates: totals.updates,
            errors: totals.errors,
        }
    }
}

impl From<ReplayReport> for ReplayView {
    fn from(report: ReplayReport) -> Self {
        Self {
            decisions: report.decisions,
            differing: report.differing,
            differences: report.differences.into_iter().map(DifferenceView::from).collect(),
            missed: report.missing_capability_responses,
            before: report.before.into(),
            after: report.after.into(),
            incomplete: report.incomplete_reason,
        }
    }
}

/// Replay the recorded decisions of a job with a revision, and return the decisions that differ.
///
/// The replay changes nothing. With the revision that the job ran, no decision differs.
#[utoipa::path(post, path = "/v1/jobs/{id}/replay", tag = "pipelines", request_body = ReplayRequest,
    params(("id" = String, Path, format = Uuid, description = "Id of the job")),
    responses(
        (status = 200, description = "The differences", body = ReplayView),
        (status = 400, description = "The body is not valid JSON", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The job or revision does not exist, or the calls of the job were not recorded", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body is incomplete", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The content type is not application/json", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The job cannot be replayed; `detail` says why", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn replay_job(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(job): PathParams<JobId>,
    JsonBody(request): JsonBody<ReplayRequest>,
) -> Result<Json<ReplayView>, Problem> {
    caller.require_scope(KeyScope::Components)?;
    let tenant = caller.tenant_id();
    let report =
        weir_control::pipelines::replay_job_with_revision(&control, tenant, &job, request.revision).await?;
    Ok(Json(report.into()))
}
