//! Receives a submission: writes its files to the disk, enforces the limits, and creates the job.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use futures::Stream;
use tokio::time::Instant;
use weir_control::pipelines::PipelineUnavailableError;
use weir_control::staged_files::{IncomingFile, StagedFile};
use weir_control::submission::{NewOrRepeatedSubmission, commit_and_enqueue_job};
use weir_control::trace_context::current_traceparent;
use weir_control::{Control, UploadReservation};
use weir_core::JobId;
use weir_core::clock::unix_time_millis;
use weir_core::job_request::{IdempotencyKey, JobRequest, RequestedFile};
use weir_core::ledger::{JobRecord, JobState};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::Tenant;

use super::job_options::{JobOptions, ValidatedJobOptions, sanitize_file_name};
use super::job_submission_body_types::{DocumentSource, RemoteDocument, StoredDocument};
use super::multipart::{MultipartReader, PartHeaders};
use crate::http_input::describe_json_error;
use crate::jobs::{job_accepted_response, repeated_request_response};
use crate::outbound_client::{OutboundClient, OutboundError, convert_reqwest_error, request_failed_error};
use crate::problem::Problem;
use crate::state::AppState;

/// Maximum size of the `options` part.
const MAX_OPTIONS_BYTES: usize = 64 << 10;
/// Allowance in `Content-Length` for the parts of a form that are not file content.
const FORM_OVERHEAD_BYTES: u64 = 1 << 20;

/// A submission in progress.
pub(super) struct SubmissionInProgress {
    control: Arc<Control>,
    outbound_client: Arc<OutboundClient>,
    tenant: Tenant,
    admitted: NewOrRepeatedSubmission,
    job: JobId,
    /// Bytes that may still be received before the limit is reached.
    remaining_bytes: u64,
    max_bytes: u64,
    /// Whether the limit is a quota of the tenant and not the limit of the host.
    is_tenant_quota: bool,
    files: Vec<RequestedFile>,
    /// Declared before `reservation`, because fields are dropped in order and the files must be removed before their bytes are
    /// released.
    staged_files: Vec<StagedFile>,
    reservation: UploadReservation,
}

impl SubmissionInProgress {
    pub(super) async fn new(
        app: AppState,
        tenant: Tenant,
        headers: &HeaderMap,
        admitted: NewOrRepeatedSubmission,
    ) -> Result<Self, Problem> {
        let (host, quota) = (
            app.control.settings.server_max_upload_bytes,
            app.control.quota_limiter.effective_limits(&tenant).upload_bytes,
        );
        let limit = quota.map_or(host, |quota| quota.min(host));
        let mut submission = Self {
            reservation: app
                .control
                .upload_reservations
                .create_empty_reservation(tenant.clone()),
            remaining_bytes: limit,
            max_bytes: limit,
            is_tenant_quota: limit < host,
            admitted,
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
            return Err(submission.submission_too_large_problem());
        }
        submission.reserve_more_bytes(announced).await?;
        Ok(submission)
    }

    /// Returns whether the request repeats an earlier one (same idempotency key). The files of such a request are only hashed, to
    /// compare them with those of the earlier request.
    const fn is_repeated_request(&self) -> bool {
        matches!(self.admitted, NewOrRepeatedSubmission::RepeatedRequest(_))
    }

    /// Extends the reservation of disk space and quota to the received bytes plus `more`.
    async fn reserve_more_bytes(&mut self, more: u64) -> Result<(), Problem> {
        if self.is_repeated_request() {
            return Ok(());
        }
        let received_bytes = self.max_bytes - self.remaining_bytes;
        Ok(self
            .reservation
            .grow_reservation(received_bytes.saturating_add(more))
            .await?)
    }

    fn submission_too_large_problem(&self) -> Problem {
        let limit = self.max_bytes;
        if self.is_tenant_quota {
            self.control
                .quota_limiter
                .refuse_oversized_upload(&self.tenant.id, limit)
                .into()
        } else {
            Problem::too_large(format!("a submission may have at most {limit} bytes"))
        }
    }

    /// Checks received bytes against all limits and writes them.
    async fn check_limits_and_write_bytes(
        &mut self,
        incoming: &mut IncomingFile,
        bytes: &[u8],
    ) -> Result<(), Problem> {
        let count = bytes.len() as u64;
        self.remaining_bytes = self
            .remaining_bytes
            .checked_sub(count)
            .ok_or_else(|| self.submission_too_large_problem())?;
        if self.max_bytes - self.remaining_bytes > self.reservation.reserved_bytes() {
            self.reserve_more_bytes(0).await?;
        }
        incoming.write_bytes(bytes).await?;
        self.reservation.mark_bytes_written(count);
        Ok(())
    }

    async fn begin_incoming_file(&self) -> Result<IncomingFile, Problem> {
        if self.is_repeated_request() {
            return Ok(IncomingFile::create_file_to_hash_only());
        }
        Ok(IncomingFile::create_file_to_store(&self.control.upload_store).await?)
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

    async fn finish_and_stage_incoming_file(
        &mut self,
        name: Option<&str>,
        incoming: IncomingFile,
    ) -> Result<(), Problem> {
        let (document, bytes, staged_file) =
            incoming.finish_and_stage_file(&self.tenant.id, &self.job).await?;
        self.files.push(RequestedFile {
            name: sanitize_file_name(name, self.files.len() + 1),
            document,
            bytes,
            password: None,
        });
        self.staged_files.extend(staged_file);
        Ok(())
    }

    pub(super) async fn receive_files_and_options<S>(
        &mut self,
        mut form: MultipartReader<S>,
    ) -> Result<JobOptions, Problem>
    where
        S: Stream<Item = Result<Bytes, axum::Error>> + Unpin,
    {
        let mut options = None;
        while let Some(head) = form.next_part().await? {
            match head.field_name.as_str() {
                "file" => self.receive_file(&head, &mut form).await?,
                "options" if options.is_none() => options = Some(read_options_part(&mut form).await?),
                "options" => {
                    return Err(Problem::unprocessable(
                        "the form has two parts named `options`: send one",
                    ));
                }
                name => {
                    let name: String = name.chars().take(100).collect();
                    return Err(Problem::unprocessable(format!(
                        "unknown form part '{name}': only `file` and `options` are allowed"
                    )));
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
        let mut incoming = self.begin_incoming_file().await?;
        while let Some(chunk) = form.next_chunk().await? {
            self.check_limits_and_write_bytes(&mut incoming, &chunk).await?;
        }
        self.finish_and_stage_incoming_file(head.file_name.as_deref(), incoming)
            .await
    }

    /// Stages the stored documents and fetches the remote ones.
    async fn stage_and_fetch_documents(&mut self, documents: Vec<DocumentSource>) -> Result<(), Problem> {
        let timeout_seconds = self.control.settings.server_fetch_timeout_seconds;
        let deadline = Instant::now() + Duration::from_secs(timeout_seconds.into());
        let late = || {
            Problem::unprocessable(format!(
                "the URLs were not fetched within {timeout_seconds} s (`server.fetch_timeout_seconds`): send the files, or fewer URLs \
                 in one request"
            ))
        };
        for source in documents {
            self.check_file_count()?;
            match source {
                DocumentSource::Stored(stored) => self.stage_stored_document(stored).await?,
                DocumentSource::Remote(remote) => {
                    let fetched = tokio::time::timeout_at(deadline, self.fetch_remote_document(remote)).await;
                    fetched.map_err(|_elapsed| late())??;
                }
            }
        }
        Ok(())
    }

    async fn stage_stored_document(&mut self, stored: StoredDocument) -> Result<(), Problem> {
        let (tenant, document) = (&self.tenant.id, stored.document);
        let unknown = || {
            Problem::not_found(format!(
                "document {document} is not stored on this host: send the file"
            ))
        };
        let (staged_file, bytes) =
            StagedFile::stage_stored_document(&self.control.upload_store, tenant, &self.job, &document)
                .await?
                .ok_or_else(unknown)?;
        let name = match stored.name {
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
        self.staged_files.push(staged_file);
        Ok(())
    }

    async fn fetch_remote_document(&mut self, remote: RemoteDocument) -> Result<(), Problem> {
        if !self.control.settings.server_allow_url_fetch {
            return Err(Problem::forbidden(
                "this host does not fetch URLs (`server.allow_url_fetch` is off): send the file",
            ));
        }
        let refused = |error: OutboundError| match error {
            OutboundError::NoCertificateVerifier(_) => Problem::forbidden(format!("{error}: send the file")),
            OutboundError::NotPublic { .. } => Problem::forbidden(error.to_string()),
            OutboundError::RequestFailed { .. } => Problem::not_found(error.to_string()),
            _ => Problem::unprocessable(error.to_string()),
        };
        let url = self
            .outbound_client
            .parse_allowed_url(&remote.url)
            .map_err(refused)?;
        let mut response = self.outbound_client.fetch_url(&url).await.map_err(refused)?;
        let announced_bytes = response.content_length().unwrap_or(0);
        if announced_bytes > self.remaining_bytes {
            return Err(self.submission_too_large_problem());
        }
        self.reserve_more_bytes(announced_bytes).await?;
        let mut incoming = self.begin_incoming_file().await?;
        let mut bytes = 0_u64;
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| refused(convert_reqwest_error(&url, &error)))?
        {
            bytes += chunk.len() as u64;
            self.check_limits_and_write_bytes(&mut incoming, &chunk).await?;
        }
        if bytes == 0 {
            return Err(refused(request_failed_error(
                &url,
                "returned an empty response".into(),
            )));
        }
        let name = remote
            .name
            .or_else(|| Some(url.path_segments()?.next_back()?.to_owned()));
        self.finish_and_stage_incoming_file(name.as_deref(), incoming)
            .await
    }

    /// Creates a job from the uploaded files.
    pub(super) async fn create_job_from_form(
        mut self,
        validated_options: ValidatedJobOptions,
        headers: &HeaderMap,
    ) -> Result<Response, Problem> {
        self.require_files_and_assign_passwords(&validated_options)?;
        let idempotency = validated_options.build_idempotency_key(headers, &self.files)?;
        self.create_job_or_repeat_response(validated_options, idempotency)
            .await
    }

    /// Creates a job from stored and remote documents. If the request repeats an earlier one, nothing is fetched.
    pub(super) async fn create_job_from_documents(
        mut self,
        documents: Vec<DocumentSource>,
        validated_options: ValidatedJobOptions,
        headers: &HeaderMap,
    ) -> Result<Response, Problem> {
        let idempotency = validated_options.build_idempotency_key(headers, &documents)?;
        if !self.is_repeated_request() {
            self.stage_and_fetch_documents(documents).await?;
            self.require_files_and_assign_passwords(&validated_options)?;
        }
        self.create_job_or_repeat_response(validated_options, idempotency)
            .await
    }

    /// Checks that there is at least one file, and assigns the passwords.
    fn require_files_and_assign_passwords(
        &mut self,
        validated_options: &ValidatedJobOptions,
    ) -> Result<(), Problem> {
        if self.files.is_empty() {
            return Err(Problem::unprocessable(
                "the submission has no file: send at least one",
            ));
        }
        validated_options.assign_passwords(&mut self.files)
    }

    /// Creates the job, or returns the response to the earlier request.
    async fn create_job_or_repeat_response(
        self,
        validated_options: ValidatedJobOptions,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Response, Problem> {
        let queue_reservation = match self.admitted {
            NewOrRepeatedSubmission::NewRequest(queue_reservation) => queue_reservation,
            NewOrRepeatedSubmission::RepeatedRequest(earlier) => {
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
            .load_pipeline_without_assigning(
                &self.tenant.id,
                &validated_options.pipeline,
                &validated_options.options,
                &self.job,
            )
            .await;
        let pipeline = resolved.map_err(|error| match error {
            PipelineUnavailableError::Unknown(_) => Problem::not_found(error.to_string()),
            PipelineUnavailableError::Inactive(_) => Problem::conflict(error.to_string()),
            PipelineUnavailableError::Unusable { .. } => Problem::unprocessable(error.to_string()),
            PipelineUnavailableError::Storage(error) => error.into(),
        })?;
        let record = JobRecord {
            id: self.job,
            tenant: self.tenant.id.clone(),
            pipeline: validated_options.pipeline,
            revision: pipeline.revision,
            state: JobState::Queued,
            created_millis: unix_time_millis(),
        };
        let job_request = JobRequest {
            job: self.job,
            tenant: self.tenant.id.clone(),
            lane: validated_options.lane,
            files: self.files,
            options: validated_options.options,
            webhook: validated_options.webhook,
            traceparent: current_traceparent(),
        };
        let (control, staged_files, reservation) =
            (Arc::clone(&self.control), self.staged_files, self.reservation);
        let accepting = async move {
            // Hold the reservation until the files count as stored.
            let _reservation = reservation;
            Ok::<_, Problem>(
                commit_and_enqueue_job(
                    &control,
                    &job_request,
                    &record,
                    idempotency.as_ref(),
                    staged_files,
                    queue_reservation,
                )
                .await?,
            )
        };
        let (job, was_created_before) = self.control.run_to_completion(accepting).await?;
        job_accepted_response(&self.control, &self.tenant, job, was_created_before).await
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
        _ => Problem::invalid_request(format!("the form part `options` is not valid JSON: {error}")),
    })
}
