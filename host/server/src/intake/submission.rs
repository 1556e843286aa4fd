//! Receives a submission: writes its files to the disk, enforces the limits, and creates the job.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use futures::Stream;
use tokio::time::Instant;
use weir_control::pipelines::PipelineError;
use weir_control::staged_files::{IncomingFile, StagedFile};
use weir_control::submission::{AdmissionDecision, commit_job};
use weir_control::trace_context::current_traceparent;
use weir_control::{Control, UploadReservation};
use weir_core::JobId;
use weir_core::clock::unix_time_millis;
use weir_core::job_request::{IdempotencyKey, JobRequest, RequestedFile};
use weir_core::ledger::{JobRecord, JobState};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::Tenant;

use super::job_options::{JobOptions, ValidatedJobOptions, sanitize_file_name};
use super::multipart::{MultipartReader, PartHeaders};
use super::new_job::{DocumentSource, RemoteDocument, StoredDocument};
use crate::http_input::describe_json_error;
use crate::jobs::{job_accepted_response, repeated_request_response};
use crate::outbound_client::{OutboundClient, OutboundError, request_error, response_error};
use crate::problem::Problem;
use crate::state::AppState;

/// Maximum size of the `options` part.
const MAX_OPTIONS_BYTES: usize = 64 << 10;
/// Allowance in `Content-Length` for the parts of a form that are not file content.
const FORM_OVERHEAD_BYTES: u64 = 1 << 20;

/// A submission in progress.
pub(super) struct Submission {
    control: Arc<Control>,
    outbound_client: Arc<OutboundClient>,
    tenant: Tenant,
    decision: AdmissionDecision,
    job: JobId,
    /// Bytes that may still arrive.
    remaining_bytes: u64,
    max_bytes: u64,
    /// Whether the limit is a quota of the tenant and not the limit of the host.
    is_tenant_quota: bool,
    files: Vec<RequestedFile>,
    /// Must be dropped before the reservation of their bytes.
    staged_files: Vec<StagedFile>,
    reservation: UploadReservation,
}

impl Submission {
    pub(super) async fn new(
        app: AppState,
        tenant: Tenant,
        headers: &HeaderMap,
        admitted: AdmissionDecision,
    ) -> Result<Self, Problem> {
        let (host, quota) = (
            app.control.settings.server_max_upload_bytes,
            app.control.quota_limiter.tenant_limits(&tenant).upload_bytes,
        );
        let limit = quota.map_or(host, |quota| quota.min(host));
        let mut submission = Self {
            reservation: app.control.upload_reservations.start_reservation(tenant.clone()),
            remaining_bytes: limit,
            max_bytes: limit,
            is_tenant_quota: limit < host,
            decision: admitted,
            job: JobId::new(),
            files: Vec::new(),
            staged_files: Vec::new(),
            tenant,
            control: app.control,
            outbound_client: app.outbound_client,
        };
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let announced = announced.unwrap_or_default().saturating_sub(FORM_OVERHEAD_BYTES);
        if announced > limit {
            return Err(submission.too_large_problem());
        }
        submission.reserve_bytes(announced).await?;
        Ok(submission)
    }

    /// Whether the request repeats an earlier one. Its files are then hashed and not stored.
    const fn is_repeated_request(&self) -> bool {
        matches!(self.decision, AdmissionDecision::RepeatedRequest(_))
    }

    /// Extends the reservation of disk space and quota to the received bytes plus `more`.
    async fn reserve_bytes(&mut self, more: u64) -> Result<(), Problem> {
        if self.is_repeated_request() {
            return Ok(());
        }
        let came = self.max_bytes - self.remaining_bytes;
        Ok(self.reservation.grow_to(came.saturating_add(more)).await?)
    }

    fn too_large_problem(&self) -> Problem {
        let limit = self.max_bytes;
        if self.is_tenant_quota {
            self.control
                .quota_limiter
                .refuse_upload(&self.tenant.id, limit)
                .into()
        } else {
            Problem::too_large(format!("a submission may have at most {limit} bytes"))
        }
    }

    /// Checks received bytes against all limits and writes them.
    async fn write_bytes(&mut self, incoming: &mut IncomingFile, bytes: &[u8]) -> Result<(), Problem> {
        let count = bytes.len() as u64;
        self.remaining_bytes = self
            .remaining_bytes
            .checked_sub(count)
            .ok_or_else(|| self.too_large_problem())?;
        if self.max_bytes - self.remaining_bytes > self.reservation.reserved_bytes() {
            self.reserve_bytes(0).await?;
        }
        incoming.write_bytes(bytes).await?;
        self.reservation.mark_written(count);
        Ok(())
    }

    async fn begin_file(&self) -> Result<IncomingFile, Problem> {
        if self.is_repeated_request() {
            return Ok(IncomingFile::create_hash_only());
        }
        Ok(IncomingFile::create_stored(&self.control.upload_store).await?)
    }

    fn check_file_count(&self) -> Result<(), Problem> {
        let most = self.control.settings.server_max_upload_files as usize;
        if self.files.len() >= most {
            return Err(Problem::too_large(format!(
                "a submission may have at most {most} files"
            )));
        }
        Ok(())
    }

    async fn finish_file(&mut self, name: Option<&str>, incoming: IncomingFile) -> Result<(), Problem> {
        let (document, bytes, arrived) = incoming.finish_and_stage(&self.tenant.id, &self.job).await?;
        self.files.push(RequestedFile {
            name: sanitize_file_name(name, self.files.len() + 1),
            document,
            bytes,
            password: None,
        });
        self.staged_files.extend(arrived);
        Ok(())
    }

    pub(super) async fn read_form<S>(&mut self, mut form: MultipartReader<S>) -> Result<JobOptions, Problem>
    where
        S: Stream<Item = Result<Bytes, axum::Error>> + Unpin,
    {
        let mut options = None;
        while let Some(head) = form.next_part().await? {
            match head.field_name.as_str() {
                "file" => self.receive_file(&head, &mut form).await?,
                "options" if options.is_none() => options = Some(read_options_part(&mut form).await?),
                "options" => return Err(Problem::unprocessable("options is given twice")),
                _ => {
                    return Err(Problem::unprocessable(
                        "a form may only have parts named `file` and `options`",
                    ));
                }
            }
        }
        Ok(options.unwrap_or_default())
    }

    async fn receive_file<S>(
        &mut self,
        head: &PartHeaders,
        form: &mut MultipartReader<S>,
    ) -> Result<(), Problem>
    where
        S: Stream<Item = Result<Bytes, axum::Error>> + Unpin,
    {
        self.check_file_count()?;
        let mut incoming = self.begin_file().await?;
        while let Some(chunk) = form.next_chunk().await? {
            self.write_bytes(&mut incoming, &chunk).await?;
        }
        self.finish_file(head.file_name.as_deref(), incoming).await
    }

    /// Stages the stored documents and fetches the remote ones.
    async fn collect_documents(&mut self, documents: Vec<DocumentSource>) -> Result<(), Problem> {
        let end =
            Instant::now() + Duration::from_secs(self.control.settings.server_fetch_timeout_seconds.into());
        for source in documents {
            self.check_file_count()?;
            match source {
                DocumentSource::Stored(known) => self.stage_stored_document(known).await?,
                DocumentSource::Remote(remote) => {
                    let fetched = tokio::time::timeout_at(end, self.fetch_remote_document(remote)).await;
                    fetched
                        .map_err(|_late| Problem::unprocessable("the URLs could not be fetched in time"))??;
                }
            }
        }
        Ok(())
    }

    async fn stage_stored_document(&mut self, known: StoredDocument) -> Result<(), Problem> {
        let (tenant, document) = (&self.tenant.id, known.document);
        let unknown = || {
            Problem::not_found(format!(
                "document {document} is not stored on this host: send the file"
            ))
        };
        let (arrived, bytes) =
            StagedFile::stage_stored_document(&self.control.upload_store, tenant, &self.job, &document)
                .await?
                .ok_or_else(unknown)?;
        let name = match known.name {
            Some(name) => Some(name),
            None => self
                .control
                .ledger
                .find_document(tenant, &document)
                .await?
                .map(|record| record.name),
        };
        self.files.push(RequestedFile {
            name: sanitize_file_name(name.as_deref(), self.files.len() + 1),
            document,
            bytes,
            password: None,
        });
        self.staged_files.push(arrived);
        Ok(())
    }

    async fn fetch_remote_document(&mut self, remote: RemoteDocument) -> Result<(), Problem> {
        if !self.control.settings.server_allow_url_fetch {
            return Err(Problem::forbidden("this host does not fetch URLs: send the file"));
        }
        let refused = |error: OutboundError| match error {
            OutboundError::NoCertificateVerifier(_) => Problem::forbidden(format!("{error}: send the file")),
            OutboundError::NotPublic { .. } => Problem::forbidden(error.to_string()),
            OutboundError::RequestFailed { .. } => Problem::not_found(error.to_string()),
            _ => Problem::unprocessable(error.to_string()),
        };
        let url = self.outbound_client.parse_url(&remote.url).map_err(refused)?;
        let mut answer = self.outbound_client.fetch(&url).await.map_err(refused)?;
        let announced = answer.content_length().unwrap_or(0);
        if announced > self.remaining_bytes {
            return Err(self.too_large_problem());
        }
        self.reserve_bytes(announced).await?;
        let mut incoming = self.begin_file().await?;
        let mut bytes = 0_u64;
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| refused(request_error(&url, &error)))?
        {
            bytes += chunk.len() as u64;
            self.write_bytes(&mut incoming, &chunk).await?;
        }
        if bytes == 0 {
            return Err(refused(response_error(&url, "returned an empty response".into())));
        }
        let name = remote
            .name
            .or_else(|| Some(url.path_segments()?.next_back()?.to_owned()));
        self.finish_file(name.as_deref(), incoming).await
    }

    /// Creates a job from the uploaded files.
    pub(super) async fn create_job_from_form(
        mut self,
        wish: ValidatedJobOptions,
        headers: &HeaderMap,
    ) -> Result<Response, Problem> {
        self.check_files_and_assign_passwords(&wish)?;
        let idempotency = wish.build_idempotency_key(headers, &self.files)?;
        self.create_job(wish, idempotency).await
    }

    /// Creates a job from stored and remote documents. If the request repeats an earlier one, nothing is fetched.
    pub(super) async fn create_job_from_documents(
        mut self,
        documents: Vec<DocumentSource>,
        wish: ValidatedJobOptions,
        headers: &HeaderMap,
    ) -> Result<Response, Problem> {
        let idempotency = wish.build_idempotency_key(headers, &documents)?;
        if !self.is_repeated_request() {
            self.collect_documents(documents).await?;
            self.check_files_and_assign_passwords(&wish)?;
        }
        self.create_job(wish, idempotency).await
    }

    /// Checks that there is at least one file, and assigns the passwords.
    fn check_files_and_assign_passwords(&mut self, wish: &ValidatedJobOptions) -> Result<(), Problem> {
        if self.files.is_empty() {
            return Err(Problem::unprocessable(
                "the submission has no file: send at least one",
            ));
        }
        wish.assign_passwords(&mut self.files)
    }

    /// Creates the job, or returns the response to the earlier request.
    async fn create_job(
        self,
        wish: ValidatedJobOptions,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Response, Problem> {
        let place = match self.decision {
            AdmissionDecision::NewRequest(place) => place,
            AdmissionDecision::RepeatedRequest(earlier) => {
                return repeated_request_response(
                    &self.control,
                    &self.tenant,
                    &earlier,
                    idempotency.as_ref(),
                )
                .await;
            }
        };
        let resolved = self
            .control
            .tenant_pipelines
            .preview_pipeline(&self.tenant.id, &wish.pipeline, &wish.options, &self.job)
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
            created_millis: unix_time_millis(),
        };
        let order = JobRequest {
            job: self.job,
            tenant: self.tenant.id.clone(),
            lane: wish.lane,
            files: self.files,
            options: wish.options,
            webhook: wish.webhook,
            traceparent: current_traceparent(),
        };
        let (control, arrived, reservation) =
            (Arc::clone(&self.control), self.staged_files, self.reservation);
        let accepting = async move {
            // Hold the reservation until the files count as stored.
            let _reservation = reservation;
            Ok::<_, Problem>(
                commit_job(&control, &order, &record, idempotency.as_ref(), arrived, place).await?,
            )
        };
        let (job, before) = self.control.run_to_completion(accepting).await?;
        job_accepted_response(&self.control, &self.tenant, job, before).await
    }
}

async fn read_options_part<S>(form: &mut MultipartReader<S>) -> Result<JobOptions, Problem>
where
    S: Stream<Item = Result<Bytes, axum::Error>> + Unpin,
{
    let mut json = Vec::new();
    while let Some(chunk) = form.next_chunk().await? {
        if json.len() + chunk.len() > MAX_OPTIONS_BYTES {
            return Err(Problem::too_large(format!(
                "options may have at most {MAX_OPTIONS_BYTES} bytes"
            )));
        }
        json.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&json).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            Problem::unprocessable(format!("options: {}", describe_json_error(&error)))
        }
        _ => Problem::invalid_request(format!("options is not valid JSON: {error}")),
    })
}
