//! Builds the HTTP request of a webhook: its payload and its signature.

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use sha2::Sha256;
use url::Url;
use weir_core::clock::unix_time_millis;
use weir_core::event::{ErrorInfo, EventKind};
use weir_core::job_request::JobRequestStore;
use weir_core::ledger::JobState;
use weir_core::ports::Ledger;
use weir_core::{DocumentId, JobId, StorageError, TenantId};

/// The number of events in one read.
const EVENTS_PER_READ: usize = 1000;

/// A webhook request, which reports the end of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRequest {
    /// The URL of the receiver.
    pub url: String,
    /// The header `Weir-Signature`.
    pub signature: String,
    /// The header `Weir-Delivery`: the id of the job, the same for every attempt.
    pub delivery_id: String,
    /// The body, as JSON.
    pub body: Vec<u8>,
}

/// The JSON body.
#[derive(Serialize)]
struct WebhookPayload {
    #[serde(rename = "type")]
    kind: &'static str,
    job: JobId,
    state: JobState,
    pipeline: String,
    created_millis: u64,
    documents: Vec<DocumentOutcome>,
    counts: DocumentAndPageCounts,
}

#[derive(Serialize)]
struct DocumentOutcome {
    document: Option<DocumentId>,
    name: String,
    state: &'static str,
    /// The number of finished pages.
    done: u32,
    /// The number of failed pages.
    failed: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorInfo>,
}

#[derive(Default, Serialize)]
struct DocumentAndPageCounts {
    documents: u64,
    documents_done: u64,
    pages_done: u64,
    pages_failed: u64,
}

/// The result of building a webhook request.
pub(crate) enum WebhookBuildOutcome {
    Ready(WebhookRequest),
    /// The job has not ended.
    JobNotEnded,
    /// The job has no webhook.
    NoWebhook,
}

impl WebhookRequest {
    /// Builds the request that reports the end of a job.
    pub(crate) async fn build_request(
        ledger: &dyn Ledger,
        job_requests: &dyn JobRequestStore,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<WebhookBuildOutcome, StorageError> {
        let (Some(job_request), Some(record)) = (
            job_requests.find_job_request(tenant, job).await?,
            ledger.find_job(tenant, job).await?,
        ) else {
            return Ok(WebhookBuildOutcome::NoWebhook);
        };
        let Some(webhook) = job_request.webhook else {
            return Ok(WebhookBuildOutcome::NoWebhook);
        };
        if !record.state.is_terminal() {
            return Ok(WebhookBuildOutcome::JobNotEnded);
        }
        let documents = load_document_outcomes(ledger, tenant, job).await?;
        let mut counts = DocumentAndPageCounts::default();
        for document in &documents {
            counts.documents += 1;
            counts.documents_done += u64::from(document.state == "done");
            counts.pages_done += u64::from(document.done);
            counts.pages_failed += u64::from(document.failed);
        }
        let payload = WebhookPayload {
            kind: "job-ended",
            job: *job,
            state: record.state,
            pipeline: record.pipeline,
            created_millis: record.created_millis,
            documents,
            counts,
        };
        let body = serde_json::to_vec(&payload).map_err(|e| StorageError::Failed {
            what: format!("the webhook of job {job}"),
            reason: e.to_string(),
        })?;
        Ok(WebhookBuildOutcome::Ready(Self {
            url: webhook.url,
            signature: sign_body(&webhook.secret, unix_time_millis() / 1000, &body),
            delivery_id: job.to_string(),
            body,
        }))
    }
}

/// Returns how the documents ended in the last run of the job.
async fn load_document_outcomes(
    ledger: &dyn Ledger,
    tenant: &TenantId,
    job: &JobId,
) -> Result<Vec<DocumentOutcome>, StorageError> {
    let (mut documents, mut last_seq, mut last_run_ended) = (Vec::new(), 0, false);
    loop {
        let events = ledger
            .list_job_events(tenant, job, last_seq, EVENTS_PER_READ)
            .await?;
        let is_last_read = events.len() < EVENTS_PER_READ;
        for event in events {
            last_seq = event.seq;
            if std::mem::take(&mut last_run_ended) {
                documents.clear();
            }
            let (name, state, done, failed, error) = match event.kind {
                EventKind::DocumentDone {
                    name, pages, failed, ..
                } => {
                    let failed = u32::try_from(failed.len()).unwrap_or(u32::MAX);
                    (name, "done", pages.saturating_sub(failed), failed, None)
                }
                EventKind::DocumentFailed { name, error, done } => (name, "failed", done, 0, Some(error)),
                EventKind::DocumentCancelled { name, done } => (name, "cancelled", done, 0, None),
                EventKind::JobEnded { .. } => {
                    last_run_ended = true;
                    continue;
                }
                _ => continue,
            };
            documents.push(DocumentOutcome {
                document: event.document,
                name,
                state,
                done,
                failed,
                error,
            });
        }
        if is_last_read {
            return Ok(documents);
        }
    }
}

/// Returns the signature `t=<seconds>,v1=<hex of HMAC-SHA256 over "<seconds>.<body>">`.
pub(crate) fn sign_body(secret: &str, seconds: u64, body: &[u8]) -> String {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap_or_else(|_| unreachable!());
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body);
    let digest = HEXLOWER.encode(&mac.finalize().into_bytes());
    format!("t={seconds},v1={digest}")
}

/// Returns the host and port that receive the webhook of a job; `None` while the job has not ended. Deliveries to the same receiver
/// share a concurrency limit.
pub(crate) async fn find_receiver_host_and_port(
    ledger: &dyn Ledger,
    job_requests: &dyn JobRequestStore,
    tenant: &TenantId,
    job: &JobId,
) -> Result<Option<String>, StorageError> {
    let record = ledger.find_job(tenant, job).await?;
    if record.is_some_and(|record| !record.state.is_terminal()) {
        return Ok(None);
    }
    let job_request = job_requests.find_job_request(tenant, job).await?;
    let url = job_request.and_then(|request| Url::parse(&request.webhook?.url).ok());
    // A URL without a host fails at the first attempt.
    Ok(Some(url.map_or_else(String::new, |url| {
        let port = url.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", url.host_str().unwrap_or_default())
    })))
}
