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
mod job_submission_body_types;
mod multipart;
mod submission_in_progress;
#[cfg(test)]
mod tests;

use axum::extract::{FromRequest as _, Request, State};
use axum::http::header;
use axum::response::Response;
use weir_control::submission::admit_submission;
use weir_core::tenancy::KeyScope;

use crate::auth::Caller;
use crate::http_input::JsonBody;
use crate::jobs::JobView;
use crate::problem::Problem;
use crate::state::AppState;

pub(crate) use job_options::{LaneName, parse_idempotency_key};
use job_submission_body_types::{JobForm, NewJob};
use multipart::{MultipartReader, parse_boundary};
use submission_in_progress::SubmissionInProgress;

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
    State(app): State<AppState>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    caller.require_scope(KeyScope::Ingest)?;
    let headers = request.headers().clone();
    let idempotency_key = parse_idempotency_key(&headers)?;
    let admitted = admit_submission(&app.control, &caller.tenant, idempotency_key.as_deref()).await?;
    let mut submission = SubmissionInProgress::new(app.clone(), caller.tenant, &headers, admitted).await?;
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if let Some(boundary) = parse_boundary(content_type) {
        let body = request.into_body().into_data_stream();
        let validated_options = submission
            .receive_files_and_options(MultipartReader::new(body, &boundary))
            .await?
            .validate_options(&app.outbound_client)?;
        submission.create_job_from_form(validated_options, &headers).await
    } else if content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/json")
    {
        let JsonBody(job): JsonBody<NewJob> = JsonBody::from_request(request, &()).await?;
        let validated_options = job.options.validate_options(&app.outbound_client)?;
        submission
            .create_job_from_documents(job.documents, validated_options, &headers)
            .await
    } else {
        Err(Problem::unsupported_media_type(
            "send files as multipart/form-data with a boundary, or documents as application/json",
        ))
    }
}
