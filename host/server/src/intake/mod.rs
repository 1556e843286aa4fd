//! Job submissions.
//!
//! ```text
//!  request ─► quotas, overload, queue reservation ─► files to disk ─► ledger ─► admission
//! ```
//!
//! All checks that can refuse a submission run before its body is received. Checks that depend on the content run again while
//! the body arrives. Files stream to the disk and are hashed on the way, so no file is held in memory as a whole. A submission
//! that is incomplete or refused leaves no files. When all files are on the disk, a separate task commits the job and queues
//! it, so a client that disconnects at that moment has either the complete job or none.
//!
//! A request with a known `Idempotency-Key` creates no job, so the queue limit and the quotas do not apply to it: a request that
//! is repeated because its response was lost always gets its response. The body of a form is received, since only its content
//! shows whether it is the same request. It is hashed and not stored. Documents given as URLs are compared by URL and not
//! fetched again.
//!
//! The content of files is not checked here. A file that is not a PDF is accepted, and its document fails with an error kind
//! when the job runs, as with `weir run`. So one invalid file does not hold up the other files of a submission.

mod job_options;
mod multipart;
mod submission;
#[cfg(test)]
mod tests;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;
use weir_core::job_request::{EarlierRequest, IdempotencyKey, JobRequest, PutRequestOutcome};
use weir_core::ledger::JobRecord;
use weir_core::tenancy::{KeyScope, Tenant};
use weir_core::usage::{Usage, UsageMeter as _};
use weir_core::{DocumentId, JobId};

use crate::admission::{AdmissionRefusal, QueueReservation};
use crate::app::AppState;
use crate::auth::Caller;
use crate::http_input::{JsonBody, deserialize_object};
use crate::jobs::JobView;
use crate::problem::Problem;

pub(crate) use job_options::{JobOptions, LaneName, parse_idempotency_key};
use multipart::{MultipartReader, parse_boundary};
use submission::Submission;
pub(crate) use upload::{StagedFile, recover_staged_files};

/// `Retry-After` if the host is overloaded or stopping.
const OVERLOAD_RETRY_AFTER: Duration = Duration::from_secs(10);
/// Maximum time that a submission waits for a removal of one of its documents to end.
pub(crate) const REMOVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval at which it checks whether the removal has ended.
pub(crate) const REMOVAL_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Response header that marks the response to an earlier request.
const IDEMPOTENCY_REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A job with uploaded files.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // only for the OpenAPI description
pub(crate) struct JobForm {
    /// Files, in one or more parts with this name. A file that is not a PDF is accepted, and its document fails.
    #[schema(min_items = 1, value_type = Vec<String>, format = Binary)]
    file: Vec<u8>,
    /// Options of the job, as JSON.
    options: Option<JobOptions>,
}

/// A job with documents that are stored on the host or fetched from a URL.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewJob {
    /// Documents.
    #[schema(min_items = 1, max_items = 1000)]
    documents: Vec<DocumentSource>,
    /// Options of the job.
    #[serde(default, deserialize_with = "deserialize_object")]
    options: JobOptions,
}

/// The source of a document: a stored document or a URL.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(
    untagged,
    expecting = "each document must be {\"document\": \"<id>\"} or {\"url\": \"https://…\"}, with an optional name"
)]
pub(crate) enum DocumentSource {
    /// A document that is stored on the host.
    Stored(StoredDocument),
    /// A document at a URL.
    Remote(RemoteDocument),
}

/// A document that an earlier job has stored.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredDocument {
    /// Id: the SHA-256 hash of the file.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    document: DocumentId,
    /// Name in this job.
    name: Option<String>,
}

/// A document at a public URL.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoteDocument {
    /// URL with the scheme `https` or `http`, without credentials.
    #[schema(format = "uri", max_length = 4096)]
    url: String,
    /// Name in this job. The default is the last segment of the path.
    name: Option<String>,
}

/// Create a job.
///
/// Upload files as `multipart/form-data` with one or more parts named `file` and at most one part named `options`. Send JSON
/// for documents that are stored on the host or at a URL. The response is sent when all files and the job are durably stored.
/// Requests with the same `Idempotency-Key` create one job.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "Identifies this request: 1 to 255 visible ASCII characters")),
    request_body(content((JobForm = "multipart/form-data"), (NewJob = "application/json"))),
    responses(
        (status = 202, description = "The job is queued", body = JobView, headers(
            ("Location" = String, description = "Path of the job"),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if an earlier request with the same key created the job"),
        )),
        (status = 400, description = "The request is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The key is missing or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key does not have the required scope", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The document or pipeline does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The pipeline has no active revision", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body is incomplete", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The content type is neither multipart/form-data nor application/json", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The request is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "A quota is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The host is overloaded or stopping", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The host has no disk space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn create_job(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    caller.require_scope(KeyScope::Ingest)?;
    let headers = request.headers().clone();
    let word = parse_idempotency_key(&headers)?;
    let admitted = check_and_reserve(&app, &caller.tenant, word.as_deref()).await?;
    let mut submission = Submission::new(Arc::clone(&app), caller.tenant, &headers, admitted).await?;
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if let Some(boundary) = parse_boundary(content_type) {
        let body = request.into_body().into_data_stream();
        let wish = submission
            .read_form(MultipartReader::new(body, &boundary))
            .await?
            .validate(&app.outbound_client)?;
        submission.create_job_from_form(wish, &headers).await
    } else if content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/json")
    {
        let JsonBody(job): JsonBody<NewJob> = JsonBody::from_request(request, &()).await?;
        let wish = job.options.validate(&app.outbound_client)?;
        submission
            .create_job_from_documents(job.documents, wish, &headers)
            .await
    } else {
        Err(Problem::unsupported_media_type(
            "send files as multipart/form-data with a boundary, or documents as application/json",
        ))
    }
}

/// The result of the checks before the body of a submission is received.
pub(crate) enum AdmissionDecision {
    /// A new request, with a queue reservation for its job.
    NewRequest(QueueReservation),
    /// A request whose idempotency key belongs to an earlier request.
    RepeatedRequest(EarlierRequest),
}

/// Runs all checks that can refuse a job before its body is received, and reserves a place in the job queue. If `word` is the
/// idempotency key of an earlier request, returns that request instead.
pub(crate) async fn check_and_reserve(
    app: &Arc<AppState>,
    tenant: &Tenant,
    word: Option<&str>,
) -> Result<AdmissionDecision, Problem> {
    if app.stop_signal.is_cancelled() {
        return Err(
            Problem::stopping("the host is stopping: submit to another host, or again later")
                .with_retry_after(OVERLOAD_RETRY_AFTER),
        );
    }
    if let Some(word) = word
        && let Some(earlier) = app.job_requests.find_earlier_request(&tenant.id, word).await?
    {
        return Ok(AdmissionDecision::RepeatedRequest(earlier));
    }
    if let Some(why) = app.admission.overload_reason() {
        return Err(
            Problem::overloaded(format!("{why}: submit again later")).with_retry_after(OVERLOAD_RETRY_AFTER)
        );
    }
    app.quota_limiter.check_daily_quotas(app, tenant).await?;
    let limit = app.quota_limiter.tenant_limits(tenant).queued_jobs;
    let place = app.admission.reserve_queue_place(&tenant.id, limit);
    place
        .map(AdmissionDecision::NewRequest)
        .map_err(|refusal| match refusal {
            AdmissionRefusal::TenantQueueFull => app.quota_limiter.queue_full_problem(app, tenant),
            AdmissionRefusal::HostQueueFull => {
                Problem::overloaded("the job queue of this host is full: submit again later")
                    .with_retry_after(OVERLOAD_RETRY_AFTER)
            }
            AdmissionRefusal::TenantBeingRemoved => Problem::tenant_suspended("the tenant is being removed"),
        })
}

/// Commits a job with its files to the ledger and queues it.
///
/// Returns the id of the job, and whether an earlier request with the same idempotency key created it. `arrived` must contain
/// each document of the job request. Waits up to [`REMOVAL_TIMEOUT`] while a document of the job is being removed.
pub(crate) async fn commit_job(
    app: &AppState,
    order: &JobRequest,
    record: &JobRecord,
    idempotency: Option<&IdempotencyKey>,
    arrived: Vec<StagedFile>,
    place: QueueReservation,
) -> Result<(JobId, bool), Problem> {
    let deadline = Instant::now() + REMOVAL_TIMEOUT;
    loop {
        match app
            .job_requests
            .put_job_request(record, order, idempotency)
            .await?
        {
            PutRequestOutcome::Created => break,
            PutRequestOutcome::AlreadyCreated(job) => return Ok((job, true)),
            PutRequestOutcome::KeyConflict => return Err(idempotency_key_reused()),
            PutRequestOutcome::DocumentBeingRemoved(_) if Instant::now() < deadline => {
                sleep(REMOVAL_POLL_INTERVAL).await
            }
            PutRequestOutcome::DocumentBeingRemoved(document) => {
                let why = format!("document {document} is being deleted: submit again later");
                return Err(Problem::overloaded(why).with_retry_after(OVERLOAD_RETRY_AFTER));
            }
        }
    }
    let used = Usage {
        jobs: 1,
        upload_bytes: arrived.iter().map(|file| file.received_bytes).sum(),
        ..Usage::default()
    };
    app.usage_recorder.record_usage(&order.tenant, &used);
    for file in arrived {
        if let Err(error) = file.commit_file().await {
            // The job is accepted already. Its document fails, and the next start commits the file.
            tracing::error!(job = %order.job, %error, "cannot commit an uploaded file of a job");
        }
    }
    place.enqueue(order);
    Ok((order.job, false))
}

/// Returns the response to a request with the idempotency key of an earlier request. It is an error if the requests differ.
pub(crate) async fn repeated_request_response(
    app: &AppState,
    tenant: &Tenant,
    earlier: &EarlierRequest,
    idempotency: Option<&IdempotencyKey>,
) -> Result<Response, Problem> {
    if idempotency.is_none_or(|ours| ours.request_digest != earlier.request_digest) {
        return Err(idempotency_key_reused());
    }
    job_accepted_response(app, tenant, earlier.job, true).await
}

fn idempotency_key_reused() -> Problem {
    Problem::idempotency_key_reused("this Idempotency-Key was used for another request: use a new one")
}

/// Builds the response for an accepted job. `before` marks a job that an earlier request created.
pub(crate) async fn job_accepted_response(
    app: &AppState,
    tenant: &Tenant,
    job: JobId,
    before: bool,
) -> Result<Response, Problem> {
    let view = JobView::load(app, &tenant.id, &job).await?;
    let mut response = (StatusCode::ACCEPTED, Json(view)).into_response();
    let location = HeaderValue::from_str(&format!("/v1/jobs/{job}"))
        .map_err(|e| Problem::internal_error(e.to_string()))?;
    response.headers_mut().insert(header::LOCATION, location);
    if before {
        response
            .headers_mut()
            .insert(IDEMPOTENCY_REPLAYED_HEADER, HeaderValue::from_static("true"));
    }
    Ok(response)
}
