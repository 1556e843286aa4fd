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
//! A file is not looked into here: one that is no PDF is accepted, and its document fails by name as the job runs, exactly
//! as with `weir run`. In a submission of thirty files, twenty-nine good ones should not wait for a corrected one.

mod multipart;
mod order;
#[cfg(test)]
mod tests;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::Stream;
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::ToSchema;
use weir_core::ledger::{JobRecord, JobState};
use weir_core::order::{Idempotency, Order, OrderedFile, Put};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::{Scope, Tenant};
use weir_core::usage::{Meter as _, Usage};
use weir_core::{DocumentId, JobId};

use crate::admission::{Place, Refusal};
use crate::app::{App, PipelineError, now_millis};
use crate::auth::Caller;
use crate::jobs::JobView;
use crate::outbound::{OutboundError, answered, failed};
use crate::problem::Problem;
use crate::quota::QuotaDesk;
use crate::wire::{Body, object};

use multipart::{Form, FormError, Head, boundary};
pub(crate) use order::{JobOptions, LaneName, idempotency_key};
use order::{Wish, file_name};
use upload::Incoming;
pub(crate) use upload::{Arrived, recover, size};

/// Most bytes of the options, and of what surrounds files in a form.
const OPTION_BYTES: usize = 64 << 10;
const FORM_BYTES: u64 = 1 << 20;
/// When to try again where the host has too much to do.
const LATER: Duration = Duration::from_secs(10);
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
#[derive(Debug, Deserialize, ToSchema)]
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
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownDocument {
    /// Its id: the SHA-256 of its bytes.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    document: DocumentId,
    /// What it is called in this job.
    name: Option<String>,
}

/// A document on the public internet.
#[derive(Debug, Deserialize, ToSchema)]
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
    idempotency_key(&headers)?;
    let place = admit(&app, &caller.tenant).await?;
    let mut intake = Intake::new(Arc::clone(&app), caller.tenant, &headers).await?;
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let options = if let Some(boundary) = boundary(content_type) {
        let body = request.into_body().into_data_stream();
        intake.read_form(Form::new(body, &boundary)).await?
    } else if content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/json")
    {
        let Body(job): Body<NewJob> = Body::from_request(request, &()).await?;
        intake.gather(job.documents).await?;
        job.options
    } else {
        return Err(Problem::unsupported(
            "send files as multipart/form-data with a boundary, or documents as application/json",
        ));
    };
    let wish = options.understand(&app.outbound)?;
    intake.put_in(wish, &headers, place).await
}

/// Asks everything that can refuse a job before its bytes are taken, and keeps it a place in the queue.
pub(crate) async fn admit(app: &Arc<App>, tenant: &Tenant) -> Result<Place, Problem> {
    if app.stopping.is_cancelled() {
        return Err(Problem::stopping(
            "the host is stopping: submit to another one, or again when it is back",
        )
        .after(LATER));
    }
    if let Some(why) = app.admission.overload() {
        return Err(Problem::overloaded(format!("{why}: submit again later")).after(LATER));
    }
    app.quotas.today(app, tenant).await?;
    let limit = app.quotas.limits(tenant).queued_jobs;
    app.admission
        .reserve(&tenant.id, limit)
        .map_err(|refusal| match refusal {
            Refusal::Tenant => app.quotas.queue_is_full(app, tenant),
            Refusal::Host => {
                Problem::overloaded("as many jobs wait on this host as may: submit again later").after(LATER)
            }
            Refusal::Leaving => Problem::suspended("the tenant is being removed"),
        })
}

/// Writes a job down, gives its files their names and lets it wait. Answers with the job that stands for the request, and
/// whether that is an earlier one.
pub(crate) async fn accept(
    app: &App,
    order: &Order,
    record: &JobRecord,
    idempotency: Option<&Idempotency>,
    arrived: Vec<Arrived>,
    place: Place,
) -> Result<(JobId, bool), Problem> {
    match app.orders.put(record, order, idempotency).await? {
        Put::New => {}
        Put::Before(job) => return Ok((job, true)),
        Put::Differs => {
            return Err(Problem::reused(
                "this Idempotency-Key was sent with another request: use a new one",
            ));
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

/// A submission that comes in.
struct Intake {
    app: Arc<App>,
    tenant: Tenant,
    job: JobId,
    /// Bytes that may still come, and whether the tenant's own quota says so.
    left: u64,
    limit: u64,
    own: bool,
    files: Vec<OrderedFile>,
    arrived: Vec<Arrived>,
}

impl Intake {
    async fn new(app: Arc<App>, tenant: Tenant, headers: &HeaderMap) -> Result<Self, Problem> {
        let (host, quota) = (
            app.settings.server_upload_bytes,
            app.quotas.limits(&tenant).upload_bytes,
        );
        let limit = quota.map_or(host, |quota| quota.min(host));
        let intake = Self {
            left: limit,
            limit,
            own: limit < host,
            job: JobId::new(),
            files: Vec::new(),
            arrived: Vec::new(),
            tenant,
            app,
        };
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let announced = announced.unwrap_or_default().saturating_sub(FORM_BYTES);
        if announced > limit {
            return Err(intake.too_large());
        }
        intake.room_for(announced).await?;
        Ok(intake)
    }

    /// Whether the tenant may keep `more` bytes, with those of its jobs that wait.
    async fn room_for(&self, more: u64) -> Result<(), Problem> {
        let waiting = self.app.admission.waiting_bytes(&self.tenant.id);
        self.app
            .quotas
            .storage(&self.app, &self.tenant, more.saturating_add(waiting))
            .await
    }

    fn too_large(&self) -> Problem {
        QuotaDesk::too_large(&self.app, &self.tenant.id, self.limit, self.own)
    }

    fn count(&mut self, bytes: usize) -> Result<(), Problem> {
        self.left = self
            .left
            .checked_sub(bytes as u64)
            .ok_or_else(|| self.too_large())?;
        Ok(())
    }

    fn one_more(&self) -> Result<(), Problem> {
        let most = self.app.settings.server_upload_files as usize;
        if self.files.len() >= most {
            return Err(Problem::too_large(format!(
                "a submission has at most {most} files"
            )));
        }
        Ok(())
    }

    fn add(&mut self, name: String, arrived: Arrived) {
        self.files.push(OrderedFile {
            name,
            document: arrived.document(),
            bytes: arrived.bytes,
            password: None,
        });
        self.arrived.push(arrived);
    }

    async fn read_form<S>(&mut self, mut form: Form<S>) -> Result<JobOptions, Problem>
    where
        S: Stream<Item = Result<Bytes, axum::Error>> + Unpin,
    {
        let mut options = None;
        while let Some(head) = form.next().await.map_err(broken)? {
            match head.name.as_str() {
                "file" => self.take(&head, &mut form).await?,
                "options" if options.is_none() => options = Some(read_options(&mut form).await?),
                "options" => return Err(Problem::unprocessable("options is given twice")),
                _ => {
                    return Err(Problem::unprocessable(
                        "a form has parts named `file` and `options`, and no others",
                    ));
                }
            }
        }
        Ok(options.unwrap_or_default())
    }

    async fn take<S>(&mut self, head: &Head, form: &mut Form<S>) -> Result<(), Problem>
    where
        S: Stream<Item = Result<Bytes, axum::Error>> + Unpin,
    {
        self.one_more()?;
        let mut incoming = Incoming::begin(&self.app.originals).await?;
        while let Some(chunk) = form.chunk().await.map_err(broken)? {
            self.count(chunk.len())?;
            incoming.write(&chunk).await?;
        }
        let name = file_name(head.file_name.as_deref(), self.files.len() + 1);
        self.add(name, incoming.finish(&self.tenant.id, &self.job).await?);
        Ok(())
    }

    /// Finds documents that are here and fetches those that are not.
    async fn gather(&mut self, documents: Vec<DocumentSource>) -> Result<(), Problem> {
        let end = Instant::now() + Duration::from_secs(self.app.settings.server_fetch_seconds.into());
        for source in documents {
            self.one_more()?;
            match source {
                DocumentSource::Known(known) => self.find(known).await?,
                DocumentSource::Remote(remote) => {
                    let fetched = tokio::time::timeout_at(end, self.fetch(remote)).await;
                    fetched
                        .map_err(|_late| Problem::unprocessable("the URLs could not be fetched in time"))??;
                }
            }
        }
        Ok(())
    }

    async fn find(&mut self, known: KnownDocument) -> Result<(), Problem> {
        let (tenant, document) = (&self.tenant.id, known.document);
        let unknown = || Problem::not_found(format!("document {document} is not here: send the file"));
        let bytes = size(self.app.originals.as_ref(), tenant, &document)
            .await?
            .ok_or_else(unknown)?;
        let name = match known.name {
            Some(name) => Some(name),
            None => self
                .app
                .ledger
                .document(tenant, &document)
                .await?
                .map(|record| record.name),
        };
        self.files.push(OrderedFile {
            name: file_name(name.as_deref(), self.files.len() + 1),
            document,
            bytes,
            password: None,
        });
        Ok(())
    }

    async fn fetch(&mut self, remote: RemoteDocument) -> Result<(), Problem> {
        if !self.app.settings.server_fetch {
            return Err(Problem::forbidden("this host fetches no URLs: send the file"));
        }
        let refused = |error: OutboundError| match error {
            OutboundError::Certificates(_) => Problem::forbidden(format!("{error}: send the file")),
            OutboundError::NotPublic { .. } => Problem::forbidden(error.to_string()),
            OutboundError::Answer { .. } => Problem::not_found(error.to_string()),
            _ => Problem::unprocessable(error.to_string()),
        };
        let url = self.app.outbound.url(&remote.url).map_err(refused)?;
        let mut answer = self.app.outbound.get(&url).await.map_err(refused)?;
        if answer.content_length().is_some_and(|length| length > self.left) {
            return Err(self.too_large());
        }
        let mut incoming = Incoming::begin(&self.app.originals).await?;
        let mut bytes = 0_u64;
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| refused(failed(&url, &error)))?
        {
            self.count(chunk.len())?;
            bytes += chunk.len() as u64;
            incoming.write(&chunk).await?;
        }
        if bytes == 0 {
            return Err(refused(answered(&url, "answered with nothing".into())));
        }
        let name = remote
            .name
            .or_else(|| Some(url.path_segments()?.next_back()?.to_owned()));
        let name = file_name(name.as_deref(), self.files.len() + 1);
        self.add(name, incoming.finish(&self.tenant.id, &self.job).await?);
        Ok(())
    }

    /// Everything is here: the job is written down.
    async fn put_in(mut self, wish: Wish, headers: &HeaderMap, place: Place) -> Result<Response, Problem> {
        if self.files.is_empty() {
            return Err(Problem::unprocessable("there is no file: send at least one"));
        }
        wish.unlock(&mut self.files)?;
        let idempotency = wish.idempotency(headers, &self.files)?;
        self.room_for(self.arrived.iter().map(|file| file.bytes).sum())
            .await?;
        let resolved = self
            .app
            .pipelines
            .resolve(&self.tenant.id, &wish.pipeline, &wish.options)
            .await;
        let pipeline = resolved.map_err(|error| match error {
            PipelineError::Unknown(_) => Problem::not_found(error.to_string()),
            PipelineError::Unusable { .. } => Problem::unprocessable(error.to_string()),
        })?;
        let record = JobRecord {
            id: self.job,
            tenant: self.tenant.id.clone(),
            pipeline: wish.pipeline,
            revision: pipeline.revision,
            state: JobState::Queued,
            created_millis: now_millis(),
        };
        let order = Order {
            job: self.job,
            tenant: self.tenant.id.clone(),
            lane: wish.lane,
            files: self.files,
            options: wish.options,
            webhook: wish.webhook,
        };
        let (app, arrived) = (Arc::clone(&self.app), self.arrived);
        let accepting =
            async move { accept(&app, &order, &record, idempotency.as_ref(), arrived, place).await };
        let (job, before) = self.app.to_the_end(accepting).await?;
        accepted(&self.app, &self.tenant, job, before).await
    }
}

async fn read_options<S>(form: &mut Form<S>) -> Result<JobOptions, Problem>
where
    S: Stream<Item = Result<Bytes, axum::Error>> + Unpin,
{
    let mut json = Vec::new();
    while let Some(chunk) = form.chunk().await.map_err(broken)? {
        if json.len() + chunk.len() > OPTION_BYTES {
            return Err(Problem::too_large(format!(
                "options has at most {OPTION_BYTES} bytes"
            )));
        }
        json.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&json).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Problem::unprocessable(format!("options: {error}")),
        _ => Problem::invalid(format!("options is no JSON: {error}")),
    })
}

fn broken(error: FormError<axum::Error>) -> Problem {
    match error {
        FormError::Body(error) => Problem::incomplete(format!("the body broke off ({error}): send it again")),
        FormError::Broken(_) => Problem::invalid(error.to_string()),
    }
}
