//! A submission while it comes in: files to the disk, counted against what its tenant may send, until they make a job.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use futures::Stream;
use tokio::time::Instant;
use weir_core::JobId;
use weir_core::ledger::{JobRecord, JobState};
use weir_core::order::{Idempotency, Order, OrderedFile};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::Tenant;

use super::multipart::{Form, FormError, Head};
use super::order::{JobOptions, Wish, file_name};
use super::upload::{Arrived, Incoming};
use super::{Admitted, DocumentSource, KnownDocument, RemoteDocument, accept, accepted, again};
use crate::app::{App, now_millis};
use crate::outbound::{OutboundError, answered, failed};
use crate::pipelines::PipelineError;
use crate::problem::Problem;
use crate::quota::QuotaDesk;
use crate::requests;
use crate::uploads::Reservation;

/// Most bytes of the options, and of what surrounds files in a form.
const OPTION_BYTES: usize = 64 << 10;
const FORM_BYTES: u64 = 1 << 20;

/// A submission that comes in.
pub(super) struct Submission {
    app: Arc<App>,
    tenant: Tenant,
    admitted: Admitted,
    job: JobId,
    /// Bytes that may still come, and whether the tenant's own quota says so.
    left: u64,
    limit: u64,
    own: bool,
    files: Vec<OrderedFile>,
    /// Dropped before the reservation of their bytes.
    arrived: Vec<Arrived>,
    reservation: Reservation,
}

impl Submission {
    pub(super) async fn new(
        app: Arc<App>,
        tenant: Tenant,
        headers: &HeaderMap,
        admitted: Admitted,
    ) -> Result<Self, Problem> {
        let (host, quota) = (
            app.settings.server_upload_bytes,
            app.quotas.limits(&tenant).upload_bytes,
        );
        let limit = quota.map_or(host, |quota| quota.min(host));
        let mut submission = Self {
            reservation: Reservation::new(Arc::clone(&app), tenant.clone()),
            left: limit,
            limit,
            own: limit < host,
            admitted,
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
            return Err(submission.too_large());
        }
        submission.reserve(announced).await?;
        Ok(submission)
    }

    /// Whether the request is known, so that its files are compared and not kept.
    const fn is_known(&self) -> bool {
        matches!(self.admitted, Admitted::Again(_))
    }

    /// Reserves room for `more` bytes after those that have come.
    async fn reserve(&mut self, more: u64) -> Result<(), Problem> {
        if self.is_known() {
            return Ok(());
        }
        let came = self.limit - self.left;
        self.reservation.grow_to(came.saturating_add(more)).await
    }

    fn too_large(&self) -> Problem {
        QuotaDesk::too_large(&self.app, &self.tenant.id, self.limit, self.own)
    }

    /// Counts bytes that came against all limits, and writes them.
    async fn write(&mut self, incoming: &mut Incoming, bytes: &[u8]) -> Result<(), Problem> {
        let count = bytes.len() as u64;
        self.left = self.left.checked_sub(count).ok_or_else(|| self.too_large())?;
        if self.limit - self.left > self.reservation.bytes() {
            self.reserve(0).await?;
        }
        incoming.write(bytes).await?;
        self.reservation.count_written(count);
        Ok(())
    }

    async fn begin_file(&self) -> Result<Incoming, Problem> {
        if self.is_known() {
            return Ok(Incoming::compared());
        }
        Ok(Incoming::begin(&self.app.originals).await?)
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

    async fn finish_file(&mut self, name: Option<&str>, incoming: Incoming) -> Result<(), Problem> {
        let (document, bytes, arrived) = incoming.finish(&self.tenant.id, &self.job).await?;
        self.files.push(OrderedFile {
            name: file_name(name, self.files.len() + 1),
            document,
            bytes,
            password: None,
        });
        self.arrived.extend(arrived);
        Ok(())
    }

    pub(super) async fn read_form<S>(&mut self, mut form: Form<S>) -> Result<JobOptions, Problem>
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
        let mut incoming = self.begin_file().await?;
        while let Some(chunk) = form.chunk().await.map_err(broken)? {
            self.write(&mut incoming, &chunk).await?;
        }
        self.finish_file(head.file_name.as_deref(), incoming).await
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
        let (arrived, bytes) = Arrived::again(&self.app.originals, tenant, &self.job, &document)
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
        self.arrived.push(arrived);
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
        let announced = answer.content_length().unwrap_or(0);
        if announced > self.left {
            return Err(self.too_large());
        }
        self.reserve(announced).await?;
        let mut incoming = self.begin_file().await?;
        let mut bytes = 0_u64;
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| refused(failed(&url, &error)))?
        {
            bytes += chunk.len() as u64;
            self.write(&mut incoming, &chunk).await?;
        }
        if bytes == 0 {
            return Err(refused(answered(&url, "answered with nothing".into())));
        }
        let name = remote
            .name
            .or_else(|| Some(url.path_segments()?.next_back()?.to_owned()));
        self.finish_file(name.as_deref(), incoming).await
    }

    /// Puts in a job of the files that were sent.
    pub(super) async fn put_form_in(mut self, wish: Wish, headers: &HeaderMap) -> Result<Response, Problem> {
        self.complete(&wish)?;
        let idempotency = wish.idempotency(headers, &self.files)?;
        self.put_in(wish, idempotency).await
    }

    /// Puts in a job of documents that are here or fetched, unless it is known.
    pub(super) async fn put_documents_in(
        mut self,
        documents: Vec<DocumentSource>,
        wish: Wish,
        headers: &HeaderMap,
    ) -> Result<Response, Problem> {
        let idempotency = wish.idempotency(headers, &documents)?;
        if !self.is_known() {
            self.gather(documents).await?;
            self.complete(&wish)?;
        }
        self.put_in(wish, idempotency).await
    }

    /// All files are here: they get their passwords.
    fn complete(&mut self, wish: &Wish) -> Result<(), Problem> {
        if self.files.is_empty() {
            return Err(Problem::unprocessable("there is no file: send at least one"));
        }
        wish.unlock(&mut self.files)
    }

    /// Writes the job down.
    async fn put_in(self, wish: Wish, idempotency: Option<Idempotency>) -> Result<Response, Problem> {
        let place = match self.admitted {
            Admitted::New(place) => place,
            Admitted::Again(earlier) => {
                return again(&self.app, &self.tenant, &earlier, idempotency.as_ref()).await;
            }
        };
        let resolved = self
            .app
            .shelf
            .preview(&self.tenant.id, &wish.pipeline, &wish.options, &self.job)
            .await;
        let pipeline = resolved.map_err(|error| match error {
            PipelineError::Unknown(_) => Problem::not_found(error.to_string()),
            PipelineError::Inactive(_) => Problem::conflict(error.to_string()),
            PipelineError::Unusable { .. } => Problem::unprocessable(error.to_string()),
            PipelineError::Storage(error) => error.into(),
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
            trace: requests::here(),
        };
        let (app, arrived, reservation) = (Arc::clone(&self.app), self.arrived, self.reservation);
        let accepting = async move {
            // Until the files are counted as stored.
            let _reservation = reservation;
            accept(&app, &order, &record, idempotency.as_ref(), arrived, place).await
        };
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
