//! The API for submitted jobs: list, view, cancel, retry, diagnose, and read the component log.

mod component_log;
mod diagnosis;
mod document_page;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::{IntoParams, ToSchema};
use weir_control::Control;
use weir_control::jobs::JobCancelOutcome;
use weir_control::retention::ExpiredRecordRemover;
use weir_control::submission::{CommitJobError, NewOrRepeatedSubmission, admit_submission};
use weir_core::JobId;
use weir_core::job_request::{EarlierIdempotentRequest, IdempotencyKey, JobFilter};
use weir_core::ledger::JobState;
use weir_core::tenancy::{KeyScope, Tenant};

use crate::auth::Caller;
use crate::http_input::{PathParams, QueryParams};
use crate::intake::parse_idempotency_key;
use crate::problem::Problem;

pub(crate) use component_log::{__path_get_job_log, get_job_log};
use diagnosis::DiagnosisView;
pub(crate) use document_page::{__path_get_job_page, get_job_page};
pub(crate) use view::JobView;
use view::{JobStateName, JobSummary, load_job_and_request};

/// The default and the maximum number of jobs in one response.
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

/// Response header that marks the response to an earlier request.
const IDEMPOTENCY_REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The query parameters of the list of jobs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobListQuery {
    /// Return only jobs in this state.
    #[param(value_type = Option<JobStateName>)]
    state: Option<JobState>,
    /// Return only jobs created before this one: `next` of the previous response.
    #[param(value_type = Option<String>, format = Uuid)]
    before: Option<JobId>,
    /// The maximum number of jobs; the default is 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
}

/// A part of a tenant's jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobList {
    /// The jobs, newest first.
    jobs: Vec<JobSummary>,
    /// The value of `before` for the next jobs; null if there are none.
    #[schema(value_type = Option<String>, format = Uuid)]
    next: Option<JobId>,
}

/// List the tenant's jobs, newest first.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(JobListQuery), responses(
    (status = 200, description = "The jobs", body = JobList),
    (status = 400, description = "The request is malformed", body = Problem, content_type = "application/problem+json"),
    (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn list_jobs(
    State(control): State<Arc<Control>>,
    caller: Caller,
    QueryParams(query): QueryParams<JobListQuery>,
) -> Result<Json<JobList>, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::invalid_request(format!(
            "limit must be from 1 to {MAX_LIMIT}"
        )));
    }
    let filter = JobFilter {
        state: query.state,
        before: query.before,
        limit: limit + 1,
    };
    let mut jobs = control
        .job_requests
        .list_jobs(caller.tenant_id(), &filter)
        .await?;
    let more = jobs.len() > limit;
    jobs.truncate(limit);
    Ok(Json(JobList {
        next: jobs.last().map(|job| job.id).filter(|_| more),
        jobs: jobs.into_iter().map(JobSummary::from).collect(),
    }))
}

/// Get a job with the progress of its documents.
#[utoipa::path(get, path = "/v1/jobs/{job}", tag = "jobs",
    params(("job" = String, Path, description = "Id of the job", format = Uuid)),
    responses(
        (status = 200, description = "The job", body = JobView),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The job does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_job(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(job): PathParams<JobId>,
) -> Result<Json<JobView>, Problem> {
    caller.require_scope(KeyScope::Read)?;
    Ok(Json(
        JobView::load_job_view(&control, caller.tenant_id(), &job).await?,
    ))
}

/// Cancel a job.
///
/// A queued job has ended when the response arrives. A running job starts no more pages and ends when the pages in progress have
/// ended; its events report the end. Finished pages are kept. Canceling a job that has ended changes nothing.
#[utoipa::path(delete, path = "/v1/jobs/{job}", tag = "jobs",
    params(("job" = String, Path, description = "Id of the job", format = Uuid)),
    responses(
        (status = 200, description = "The job has ended", body = JobView),
        (status = 202, description = "The job is running and has been asked to stop", body = JobView),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The job does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The host is stopping", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The host has no disk space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn cancel_job(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(job): PathParams<JobId>,
) -> Result<(StatusCode, Json<JobView>), Problem> {
    caller.require_scope(KeyScope::Ingest)?;
    let (record, job_request) = load_job_and_request(&control, caller.tenant_id(), &job).await?;
    let status = match weir_control::jobs::cancel_job(&control, record, job_request).await? {
        JobCancelOutcome::Ended(_) => StatusCode::OK,
        JobCancelOutcome::StopRequested(_) => StatusCode::ACCEPTED,
    };
    let view = JobView::load_job_view(&control, caller.tenant_id(), &job).await?;
    Ok((status, Json(view)))
}

/// Remove an ended job.
///
/// Removes its events, request, component log and recording, and uploads that no job has read. Its documents stay. Jobs are removed by
/// themselves after the tenant's retention period.
#[utoipa::path(delete, path = "/v1/jobs/{job}/history", tag = "jobs",
    params(("job" = String, Path, description = "Id of the job", format = Uuid)),
    responses(
        (status = 204, description = "The job is removed"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The job does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The job has not ended, or another request is removing a file of it", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The host has no disk space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn remove_job_history(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(job): PathParams<JobId>,
) -> Result<StatusCode, Problem> {
    caller.require_scope(KeyScope::Ingest)?;
    let (record, _) = load_job_and_request(&control, caller.tenant_id(), &job).await?;
    if !record.state.is_terminal() {
        return Err(Problem::conflict(format!(
            "job {job} has not ended: cancel it first"
        )));
    }
    let task_control = Arc::clone(&control);
    let removed = control
        .run_to_completion(async move {
            let remover = ExpiredRecordRemover::of_host(&task_control);
            let removed = remover.remove_ended_jobs(&record.tenant, &[record.id]).await;
            Ok::<_, Problem>(removed?)
        })
        .await?;
    match removed {
        0 => Err(Problem::conflict(format!(
            "another request is removing job {job} or a file of it: try again later"
        ))),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// Retry a job that failed or was canceled.
///
/// The retry is a new job with the same files and options. Finished pages are not processed again. The passwords of documents are
/// deleted when a job ends: submit encrypted documents again by their ids, with their passwords. A webhook is deleted when it was
/// delivered or given up, so the new job has the webhook only if its delivery is still pending.
#[utoipa::path(post, path = "/v1/jobs/{job}/retry", tag = "jobs",
    params(
        ("job" = String, Path, description = "Id of the job", format = Uuid),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "Identifies this request: 1 to 255 visible ASCII characters"),
    ),
    responses(
        (status = 202, description = "The new job is queued", body = JobView, headers(
            ("Location" = String, description = "Path of the new job"),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if an earlier request with the same key created the job"),
        )),
        (status = 400, description = "The request is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The job does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The job has neither failed nor been canceled, or its files do not exist any more", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The idempotency key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "A quota is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The host is overloaded or stopping", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The host has no disk space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn retry_job(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(job): PathParams<JobId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require_scope(KeyScope::Ingest)?;
    let key = parse_idempotency_key(&headers)?;
    let (original_record, original_request) =
        load_job_and_request(&control, caller.tenant_id(), &job).await?;
    let original_request = original_request
        .ok_or_else(|| Problem::conflict("the job was not submitted over HTTP: run its command again"))?;
    if !matches!(original_record.state, JobState::Failed | JobState::Cancelled) {
        return Err(Problem::conflict(
            "only a job that failed or was cancelled can be retried",
        ));
    }
    let idempotency = key.map(|key| IdempotencyKey {
        key,
        request_digest: Sha256::digest(format!("retry {job}")).into(),
    });
    let idempotency_key = idempotency.as_ref().map(|idempotency| idempotency.key.as_str());
    let reservation = match admit_submission(&control, &caller.tenant, idempotency_key).await? {
        NewOrRepeatedSubmission::NewRequest(reservation) => reservation,
        NewOrRepeatedSubmission::RepeatedRequest(earlier) => {
            return repeated_request_response(&control, &caller.tenant, &earlier, idempotency.as_ref()).await;
        }
    };
    let (job, was_created_before) = weir_control::jobs::retry_job_as_new_job(
        &control,
        original_record,
        original_request,
        idempotency,
        reservation,
    )
    .await?;
    job_accepted_response(&control, &caller.tenant, job, was_created_before).await
}

/// Returns the response to a request with the idempotency key of an earlier request. It is an error if the requests differ.
pub(crate) async fn repeated_request_response(
    control: &Control,
    tenant: &Tenant,
    earlier: &EarlierIdempotentRequest,
    idempotency: Option<&IdempotencyKey>,
) -> Result<Response, Problem> {
    if idempotency.is_none_or(|idempotency_key| idempotency_key.request_digest != earlier.request_digest) {
        return Err(CommitJobError::IdempotencyKeyReused.into());
    }
    job_accepted_response(control, tenant, earlier.job, true).await
}

/// Builds the response for an accepted job. `was_created_before` is true for a job that an earlier request
/// created.
pub(crate) async fn job_accepted_response(
    control: &Control,
    tenant: &Tenant,
    job: JobId,
    was_created_before: bool,
) -> Result<Response, Problem> {
    let view = JobView::load_job_view(control, &tenant.id, &job).await?;
    let mut response = (StatusCode::ACCEPTED, Json(view)).into_response();
    let location = HeaderValue::from_str(&format!("/v1/jobs/{job}"))
        .map_err(|e| Problem::internal_error(e.to_string()))?;
    response.headers_mut().insert(header::LOCATION, location);
    if was_created_before {
        response
            .headers_mut()
            .insert(IDEMPOTENCY_REPLAYED_HEADER, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Diagnose which stage is the bottleneck of a job.
#[utoipa::path(get, path = "/v1/jobs/{job}/diagnosis", tag = "jobs",
    params(("job" = String, Path, description = "Id of the job", format = Uuid)),
    responses(
        (status = 200, description = "The diagnosis", body = DiagnosisView),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The job does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_job_diagnosis(
    State(control): State<Arc<Control>>,
    caller: Caller,
    PathParams(job): PathParams<JobId>,
) -> Result<Json<DiagnosisView>, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let (record, _) = load_job_and_request(&control, caller.tenant_id(), &job).await?;
    let diagnosis = weir_control::jobs::diagnose_job_bottleneck(&control, &record).await?;
    Ok(Json(diagnosis.into()))
}
