//! The API for submitted jobs: list, view, cancel, retry, diagnose, and read the component log.

mod component_log;
mod diagnosis;
mod job_page;
mod progress;
mod progress_cache;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::{IntoParams, ToSchema};
use weir_core::JobId;
use weir_core::clock::unix_time_millis;
use weir_core::job_request::{IdempotencyKey, JobFilter, JobRequest};
use weir_core::ledger::{JobRecord, JobState};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::KeyScope;

use crate::admission::{CancelOutcome, finish_job};
use crate::app::AppState;
use crate::auth::Caller;
use crate::http_input::{PathParams, QueryParams};
use crate::intake::{
    AdmissionDecision, StagedFile, check_and_reserve, commit_job, job_accepted_response,
    parse_idempotency_key, repeated_request_response,
};
use crate::problem::Problem;
use crate::request_middleware;

pub(crate) use component_log::{__path_get_job_log, get_job_log};
use diagnosis::{Diagnosis, diagnose_job};
pub(crate) use job_page::{__path_get_job_page, get_job_page};
pub(crate) use progress_cache::ProgressCache;
pub(crate) use view::JobView;
use view::{JobStateName, JobSummary, find};

/// The default and the maximum number of jobs in one response.
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

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
    State(app): State<Arc<AppState>>,
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
    let mut jobs = app.job_requests.list_jobs(caller.tenant_id(), &filter).await?;
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
    State(app): State<Arc<AppState>>,
    caller: Caller,
    PathParams(job): PathParams<JobId>,
) -> Result<Json<JobView>, Problem> {
    caller.require_scope(KeyScope::Read)?;
    Ok(Json(JobView::load(&app, caller.tenant_id(), &job).await?))
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
    State(app): State<Arc<AppState>>,
    caller: Caller,
    PathParams(job): PathParams<JobId>,
) -> Result<(StatusCode, Json<JobView>), Problem> {
    caller.require_scope(KeyScope::Ingest)?;
    let (record, order) = find(&app, caller.tenant_id(), &job).await?;
    if record.state.is_terminal() {
        return Ok((StatusCode::OK, Json(JobView::build(&app, record, order).await?)));
    }
    let (status, record) = match app.admission.cancel_job(caller.tenant_id(), job) {
        CancelOutcome::RemovedFromQueue(waiting) => {
            let (ours, order) = (Arc::clone(&app), order.clone());
            let ending = async move {
                let ended = finish_job(&ours, record, order.as_ref(), None).await;
                // If the end could not be committed, the job is queued again.
                Ok(ended.inspect_err(|_| ours.admission.enqueue(waiting))?)
            };
            (StatusCode::OK, app.run_to_completion(ending).await?)
        }
        CancelOutcome::StopRequested => (StatusCode::ACCEPTED, record),
        CancelOutcome::NotFound => match app.ledger.find_job(caller.tenant_id(), &job).await? {
            // It has ended since it was read above.
            Some(record) if record.state.is_terminal() => (StatusCode::OK, record),
            _ => {
                return Err(Problem::stopping(
                    "this host does not run the job at the moment: cancel it again later",
                ));
            }
        },
    };
    Ok((status, Json(JobView::build(&app, record, order).await?)))
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
    State(app): State<Arc<AppState>>,
    caller: Caller,
    PathParams(job): PathParams<JobId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require_scope(KeyScope::Ingest)?;
    let key = parse_idempotency_key(&headers)?;
    let (past, order) = find(&app, caller.tenant_id(), &job).await?;
    let order = order
        .ok_or_else(|| Problem::conflict("the job was not submitted over HTTP: run its command again"))?;
    if !matches!(past.state, JobState::Failed | JobState::Cancelled) {
        return Err(Problem::conflict(
            "only a job that failed or was cancelled can be retried",
        ));
    }
    let idempotency = key.map(|key| IdempotencyKey {
        key,
        request_digest: Sha256::digest(format!("retry {job}")).into(),
    });
    let word = idempotency.as_ref().map(|ours| ours.key.as_str());
    let place = match check_and_reserve(&app, &caller.tenant, word).await? {
        AdmissionDecision::NewRequest(place) => place,
        AdmissionDecision::RepeatedRequest(earlier) => {
            return repeated_request_response(&app, &caller.tenant, &earlier, idempotency.as_ref()).await;
        }
    };
    let order = JobRequest {
        job: JobId::new(),
        traceparent: request_middleware::current_traceparent(),
        ..order
    };
    let mut arrived = Vec::with_capacity(order.files.len());
    for file in &order.files {
        let again = StagedFile::stage_stored_document(
            &app.upload_store,
            caller.tenant_id(),
            &order.job,
            &file.document,
        )
        .await?;
        let Some((again, _)) = again else {
            return Err(Problem::conflict(format!(
                "document {} does not exist any more: send the file",
                file.document
            )));
        };
        arrived.push(again);
    }
    let record = JobRecord {
        id: order.job,
        state: JobState::Queued,
        created_millis: unix_time_millis(),
        ..past
    };
    let ours = Arc::clone(&app);
    let accepting =
        async move { commit_job(&ours, &order, &record, idempotency.as_ref(), arrived, place).await };
    let (job, before) = app.run_to_completion(accepting).await?;
    job_accepted_response(&app, &caller.tenant, job, before).await
}

/// Diagnose which stage is the bottleneck of a job.
#[utoipa::path(get, path = "/v1/jobs/{job}/diagnosis", tag = "jobs",
    params(("job" = String, Path, description = "Id of the job", format = Uuid)),
    responses(
        (status = 200, description = "The diagnosis", body = Diagnosis),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The job does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant's request rate is exceeded", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_job_diagnosis(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    PathParams(job): PathParams<JobId>,
) -> Result<Json<Diagnosis>, Problem> {
    caller.require_scope(KeyScope::Read)?;
    let (record, _) = find(&app, caller.tenant_id(), &job).await?;
    // Read before the events: if the job ends in between, both report the same work.
    let live = app.engine.active_job(&job);
    let progress = app
        .progress_cache
        .load_progress(app.ledger.as_ref(), caller.tenant_id(), &job)
        .await?;
    let now = unix_time_millis();
    let (work, until) = match live.filter(|_| !progress.ended) {
        Some(live) => (live.stage_work(), now.saturating_sub(record.created_millis)),
        None => (progress.stage_totals.clone(), progress.last_event_millis),
    };
    let millis = until.saturating_sub(progress.resumed_millis);
    Ok(Json(diagnose_job(&progress, &work, millis, now)))
}
