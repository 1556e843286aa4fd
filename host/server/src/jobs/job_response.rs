//! The responses to requests that create a job.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use weir_control::Control;
use weir_control::submission::CommitJobError;
use weir_core::JobId;
use weir_core::job_request::{EarlierIdempotentRequest, IdempotencyKey};
use weir_core::tenancy::Tenant;

use super::view::JobView;
use crate::problem::Problem;

/// Response header that marks the response to an earlier request.
const IDEMPOTENCY_REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");

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
