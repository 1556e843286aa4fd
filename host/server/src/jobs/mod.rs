//! Jobs after they were put in: looked at, cancelled, tried again, diagnosed; what their components said.

mod book;
mod diagnosis;
mod log;
mod page;
mod progress;
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
use weir_core::ledger::{JobRecord, JobState};
use weir_core::order::{Idempotency, JobFilter, Order};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::Scope;

use crate::admission::{Cancelled, conclude};
use crate::app::{App, now_millis};
use crate::auth::Caller;
use crate::intake::{Admitted, Arrived, accept, accepted, admit, again, idempotency_key};
use crate::problem::Problem;
use crate::requests;
use crate::wire::{Params, Route};

pub(crate) use book::ProgressBook;
use diagnosis::{Diagnosis, diagnose};
pub(crate) use log::{__path_job_log, job_log};
pub(crate) use page::{__path_job_page, job_page};
pub(crate) use view::JobView;
use view::{JobStateName, JobSummary, find};

/// Jobs of one answer, where nothing else is asked for, and at most.
const USUAL: usize = 50;
const MOST: usize = 200;

/// Which jobs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobQuery {
    /// Only those in this state.
    #[param(value_type = Option<JobStateName>)]
    state: Option<JobState>,
    /// Only those made before this one: `next` of the answer before.
    #[param(value_type = Option<String>, format = Uuid)]
    before: Option<JobId>,
    /// At most so many; 50 if it is not given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
}

/// Some of a tenant's jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobList {
    /// The newest first.
    jobs: Vec<JobSummary>,
    /// Give this as `before` to get the next ones; null if there are none.
    #[schema(value_type = Option<String>, format = Uuid)]
    next: Option<JobId>,
}

/// The tenant's jobs, newest first.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(JobQuery), responses(
    (status = 200, description = "the jobs", body = JobList),
    (status = 400, description = "not understood", body = Problem, content_type = "application/problem+json"),
    (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn jobs(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(query): Params<JobQuery>,
) -> Result<Json<JobList>, Problem> {
    caller.may(Scope::Read)?;
    let limit = query.limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Err(Problem::invalid(format!("limit is from 1 to {MOST}")));
    }
    let filter = JobFilter {
        state: query.state,
        before: query.before,
        limit: limit + 1,
    };
    let mut jobs = app.orders.jobs(caller.id(), &filter).await?;
    let more = jobs.len() > limit;
    jobs.truncate(limit);
    Ok(Json(JobList {
        next: jobs.last().map(|job| job.id).filter(|_| more),
        jobs: jobs.into_iter().map(JobSummary::from).collect(),
    }))
}

/// A job, with how far each of its documents has come.
#[utoipa::path(get, path = "/v1/jobs/{job}", tag = "jobs",
    params(("job" = String, Path, description = "its id", format = Uuid)),
    responses(
        (status = 200, description = "the job", body = JobView),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such job", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn job(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(job): Route<JobId>,
) -> Result<Json<JobView>, Problem> {
    caller.may(Scope::Read)?;
    Ok(Json(JobView::find(&app, caller.id(), &job).await?))
}

/// Cancels a job.
///
/// One that waits has ended with the answer; one in work takes no further pages, and ends when those in flight have, which the
/// events tell. What is done stays. Cancelling a job that has ended changes nothing.
#[utoipa::path(delete, path = "/v1/jobs/{job}", tag = "jobs",
    params(("job" = String, Path, description = "its id", format = Uuid)),
    responses(
        (status = 200, description = "the job has ended", body = JobView),
        (status = 202, description = "the job has been told to stop", body = JobView),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such job", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "stopping", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "no space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(job): Route<JobId>,
) -> Result<(StatusCode, Json<JobView>), Problem> {
    caller.may(Scope::Ingest)?;
    let (record, order) = find(&app, caller.id(), &job).await?;
    if record.state.is_ended() {
        return Ok((StatusCode::OK, Json(JobView::of(&app, record, order).await?)));
    }
    let (status, record) = match app.admission.cancel(caller.id(), job) {
        Cancelled::Waiting(waiting) => {
            let (ours, order) = (Arc::clone(&app), order.clone());
            let ending = async move {
                let ended = conclude(&ours, record, order.as_ref(), None).await;
                // What could not be written down has not happened: the job waits again.
                Ok(ended.inspect_err(|_| ours.admission.put(waiting))?)
            };
            (StatusCode::OK, app.to_the_end(ending).await?)
        }
        Cancelled::Running => (StatusCode::ACCEPTED, record),
        Cancelled::Unknown => match app.ledger.job(caller.id(), &job).await? {
            // It ended since it was looked at.
            Some(record) if record.state.is_ended() => (StatusCode::OK, record),
            _ => {
                return Err(Problem::stopping(
                    "the job is not in this host's hands just now: cancel it again",
                ));
            }
        },
    };
    Ok((status, Json(JobView::of(&app, record, order).await?)))
}

/// Puts a job that failed or was cancelled in again.
///
/// It is a new job with the same files and options; pages that are done are not done again. Passwords were forgotten when the
/// job ended: encrypted documents are put in again by their ids, with their passwords. A webhook was forgotten when it was
/// delivered or given up: the new job has the webhook only if it was not yet.
#[utoipa::path(post, path = "/v1/jobs/{job}/retry", tag = "jobs",
    params(
        ("job" = String, Path, description = "its id", format = Uuid),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "a word for this request, 1 to 255 visible characters"),
    ),
    responses(
        (status = 202, description = "the new job waits", body = JobView, headers(
            ("Location" = String, description = "path of the new job"),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if an earlier request put the job in"),
        )),
        (status = 400, description = "not understood", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "it neither failed nor was cancelled, or its files are gone", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the key belongs to another request", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "a quota is reached", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "overloaded or stopping", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "no space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn retry(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(job): Route<JobId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may(Scope::Ingest)?;
    let key = idempotency_key(&headers)?;
    let (past, order) = find(&app, caller.id(), &job).await?;
    let order = order
        .ok_or_else(|| Problem::conflict("the job was not put in over HTTP: run it again as it was run"))?;
    if !matches!(past.state, JobState::Failed | JobState::Cancelled) {
        return Err(Problem::conflict(
            "only a job that failed or was cancelled is tried again",
        ));
    }
    let idempotency = key.map(|key| Idempotency {
        key,
        digest: Sha256::digest(format!("retry {job}")).into(),
    });
    let word = idempotency.as_ref().map(|ours| ours.key.as_str());
    let place = match admit(&app, &caller.tenant, word).await? {
        Admitted::New(place) => place,
        Admitted::Again(earlier) => {
            return again(&app, &caller.tenant, &earlier, idempotency.as_ref()).await;
        }
    };
    let order = Order {
        job: JobId::new(),
        trace: requests::here(),
        ..order
    };
    let mut arrived = Vec::with_capacity(order.files.len());
    for file in &order.files {
        let again = Arrived::again(&app.originals, caller.id(), &order.job, &file.document).await?;
        let Some((again, _)) = again else {
            return Err(Problem::conflict(format!(
                "document {} is not here any more: send the file",
                file.document
            )));
        };
        arrived.push(again);
    }
    let record = JobRecord {
        id: order.job,
        state: JobState::Queued,
        created_millis: now_millis(),
        ..past
    };
    let ours = Arc::clone(&app);
    let accepting = async move { accept(&ours, &order, &record, idempotency.as_ref(), arrived, place).await };
    let (job, before) = app.to_the_end(accepting).await?;
    accepted(&app, &caller.tenant, job, before).await
}

/// Which stage holds the job up, in a sentence.
#[utoipa::path(get, path = "/v1/jobs/{job}/diagnosis", tag = "jobs",
    params(("job" = String, Path, description = "its id", format = Uuid)),
    responses(
        (status = 200, description = "the diagnosis", body = Diagnosis),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such job", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "too many requests", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn job_diagnosis(
    State(app): State<Arc<App>>,
    caller: Caller,
    Route(job): Route<JobId>,
) -> Result<Json<Diagnosis>, Problem> {
    caller.may(Scope::Read)?;
    let (record, _) = find(&app, caller.id(), &job).await?;
    // Asked before its events: should it end between the two, they say the same.
    let live = app.engine.job(&job);
    let progress = app.progress.of(app.ledger.as_ref(), caller.id(), &job).await?;
    let now = now_millis();
    let (work, until) = match live.filter(|_| !progress.ended) {
        Some(live) => (live.work(), now.saturating_sub(record.created_millis)),
        None => (progress.work.clone(), progress.at_millis),
    };
    let millis = until.saturating_sub(progress.taken_up_millis);
    Ok(Json(diagnose(&progress, &work, millis, now)))
}
