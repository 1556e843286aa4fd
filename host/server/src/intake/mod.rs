//! Jobs come in.
//!
//! ```text
//!  request ─► quotas, overload, a place in the queue ─► files to disk ─► ledger ─► admission
//! ```
//!
//! Everything that can refuse a submission is asked before its bytes are taken, and asked again where only the bytes can tell.
//! Files stream to the disk and are hashed on the way; nothing is held whole in memory. A submission that breaks off or is
//! refused leaves nothing. Once all is on the disk, a task of its own writes the job down and lets it wait: a client who
//! hangs up in that moment has a job or has none, never half of one.
//!
//! A request whose `Idempotency-Key` is known makes no job, so queue and quotas have no say in it: a request that is sent again
//! because its response was lost is answered, however many jobs wait. The body of a form is read all the same, because only its bytes
//! tell whether it is the same request, but it is only hashed and takes no space. Documents that are named by URLs are compared by
//! these, and nothing is fetched again.
//!
//! A file is not looked into here: one that is no PDF is accepted, and its document fails by name as the job runs, exactly
//! as with `weir run`. In a submission of thirty files, twenty-nine good ones should not wait for a corrected one.

mod multipart;
mod order;
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
use weir_core::ledger::JobRecord;
use weir_core::order::{Earlier, Idempotency, Order, Put};
use weir_core::tenancy::{Scope, Tenant};
use weir_core::usage::{Meter as _, Usage};
use weir_core::{DocumentId, JobId};

use crate::admission::{Place, Refusal};
use crate::app::App;
use crate::auth::Caller;
use crate::jobs::JobView;
use crate::problem::Problem;
use crate::wire::{Body, object};

use multipart::{Form, boundary};
pub(crate) use order::{JobOptions, LaneName, idempotency_key};
use submission::Submission;
pub(crate) use upload::{Arrived, recover};

/// When to try again where the host has too much to do.
const LATER: Duration = Duration::from_secs(10);
/// How long a submission waits while one of its documents is being deleted, and how often it looks whether that has ended.
pub(crate) const REMOVAL_WAIT: Duration = Duration::from_secs(10);
pub(crate) const REMOVAL_POLL: Duration = Duration::from_millis(20);
/// Says that the answer is that of an earlier request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Files to be ingested.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // only its description is used
pub(crate) struct JobForm {
    /// The files, one or more parts of this name. What is no PDF is accepted and fails by name.
    #[schema(min_items = 1, value_type = Vec<String>, format = Binary)]
    file: Vec<u8>,
    /// How the job is to be done, as JSON.
    options: Option<JobOptions>,
}

/// Documents to be ingested that the host has or can fetch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewJob {
    /// The documents.
    #[schema(min_items = 1, max_items = 1000)]
    documents: Vec<DocumentSource>,
    /// How the job is to be done.
    #[serde(default, deserialize_with = "object")]
    options: JobOptions,
}

/// Where a document is.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(
    untagged,
    expecting = "each of the documents is {\"document\": \"<its id>\"} or {\"url\": \"https://…\"}, with a name if you like"
)]
pub(crate) enum DocumentSource {
    /// Here, since an earlier job brought it.
    Known(KnownDocument),
    /// On the public internet.
    Remote(RemoteDocument),
}

/// A document that an earlier job brought.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownDocument {
    /// Its id: the SHA-256 of its bytes.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    document: DocumentId,
    /// What it is called in this job.
    name: Option<String>,
}

/// A document on the public internet.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoteDocument {
    /// Its address: `https` or `http`, without credentials.
    #[schema(format = "uri", max_length = 4096)]
    url: String,
    /// What it is called in this job; the end of the address if it is not given.
    name: Option<String>,
}

/// Puts a job in.
///
/// Files come as `multipart/form-data`, in any number of parts named `file` and at most one named `options`; documents that the
/// host has already, or can fetch, as JSON. The answer comes when everything is on the host's disk and the job is written
/// down: from then on it is not lost. With an `Idempotency-Key`, the same request sent twice is one job.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "a word for this request, 1 to 255 visible characters")),
    request_body(content((JobForm = "multipart/form-data"), (NewJob = "application/json"))),
    responses(
        (status = 202, description = "the job waits", body = JobView, headers(
            ("Location" = String, description = "path of the job"),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if an earlier request put the job in"),
        )),
        (status = 400, description = "not understood", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "no valid key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not with this key", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such document or pipeline", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "no revision of the pipeline is active", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "the body broke off", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "neither form nor JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "cannot be followed", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "a quota is reached", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "overloaded or stopping", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "no space left", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    caller.may(Scope::Ingest)?;
    let headers = request.headers().clone();
    let word = idempotency_key(&headers)?;
    let admitted = admit(&app, &caller.tenant, word.as_deref()).await?;
    let mut submission = Submission::new(Arc::clone(&app), caller.tenant, &headers, admitted).await?;
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if let Some(boundary) = boundary(content_type) {
        let body = request.into_body().into_data_stream();
        let wish = submission
            .read_form(Form::new(body, &boundary))
            .await?
            .understand(&app.outbound)?;
        submission.put_form_in(wish, &headers).await
    } else if content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/json")
    {
        let Body(job): Body<NewJob> = Body::from_request(request, &()).await?;
        let wish = job.options.understand(&app.outbound)?;
        submission.put_documents_in(job.documents, wish, &headers).await
    } else {
        Err(Problem::unsupported(
            "send files as multipart/form-data with a boundary, or documents as application/json",
        ))
    }
}

/// Why the bytes of a request are taken.
pub(crate) enum Admitted {
    /// A place in the queue is kept for its job.
    New(Place),
    /// Its word is that of an earlier request.
    Again(Earlier),
}

/// Asks everything that can refuse a job before its bytes are taken, and keeps it a place in the queue, unless `word` says that
/// it is there already.
pub(crate) async fn admit(app: &Arc<App>, tenant: &Tenant, word: Option<&str>) -> Result<Admitted, Problem> {
    if app.stopping.is_cancelled() {
        return Err(Problem::stopping(
            "the host is stopping: submit to another one, or again when it is back",
        )
        .after(LATER));
    }
    if let Some(word) = word
        && let Some(earlier) = app.orders.earlier(&tenant.id, word).await?
    {
        return Ok(Admitted::Again(earlier));
    }
    if let Some(why) = app.admission.overload() {
        return Err(Problem::overloaded(format!("{why}: submit again later")).after(LATER));
    }
    app.quotas.today(app, tenant).await?;
    let limit = app.quotas.limits(tenant).queued_jobs;
    let place = app.admission.reserve(&tenant.id, limit);
    place.map(Admitted::New).map_err(|refusal| match refusal {
        Refusal::Tenant => app.quotas.queue_is_full(app, tenant),
        Refusal::Host => {
            Problem::overloaded("as many jobs wait on this host as may: submit again later").after(LATER)
        }
        Refusal::Leaving => Problem::suspended("the tenant is being removed"),
    })
}

/// Writes a job down, gives its files their names and lets it wait. Answers with the job that stands for the request, and
/// whether that is an earlier one. `arrived` has each document of the order.
pub(crate) async fn accept(
    app: &App,
    order: &Order,
    record: &JobRecord,
    idempotency: Option<&Idempotency>,
    arrived: Vec<Arrived>,
    place: Place,
) -> Result<(JobId, bool), Problem> {
    let deadline = Instant::now() + REMOVAL_WAIT;
    loop {
        match app.orders.put(record, order, idempotency).await? {
            Put::New => break,
            Put::Before(job) => return Ok((job, true)),
            Put::Differs => return Err(reused()),
            Put::Removing(_) if Instant::now() < deadline => sleep(REMOVAL_POLL).await,
            Put::Removing(document) => {
                let why = format!("document {document} is being deleted: submit again later");
                return Err(Problem::overloaded(why).after(LATER));
            }
        }
    }
    let used = Usage {
        jobs: 1,
        upload_bytes: arrived.iter().map(|file| file.bytes).sum(),
        ..Usage::default()
    };
    app.metering.used(&order.tenant, &used);
    for file in arrived {
        if let Err(error) = file.keep().await {
            // The job is accepted; it fails by name, and the next start gives the file its name.
            tracing::error!(job = %order.job, %error, "a file of a job could not be given its name");
        }
    }
    place.fill(order);
    Ok((order.job, false))
}

/// The answer to a request under the word of an earlier one: that one's, if it asked for the same.
pub(crate) async fn again(
    app: &App,
    tenant: &Tenant,
    earlier: &Earlier,
    idempotency: Option<&Idempotency>,
) -> Result<Response, Problem> {
    if idempotency.is_none_or(|ours| ours.digest != earlier.digest) {
        return Err(reused());
    }
    accepted(app, tenant, earlier.job, true).await
}

fn reused() -> Problem {
    Problem::reused("this Idempotency-Key was sent with another request: use a new one")
}

/// The answer to a job that was put in.
pub(crate) async fn accepted(
    app: &App,
    tenant: &Tenant,
    job: JobId,
    before: bool,
) -> Result<Response, Problem> {
    let view = JobView::find(app, &tenant.id, &job).await?;
    let mut response = (StatusCode::ACCEPTED, Json(view)).into_response();
    let location =
        HeaderValue::from_str(&format!("/v1/jobs/{job}")).map_err(|e| Problem::internal(e.to_string()))?;
    response.headers_mut().insert(header::LOCATION, location);
    if before {
        response
            .headers_mut()
            .insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}
