//! What a webhook says.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use sha2::Sha256;
use url::Url;
use weir_core::event::{ErrorNote, EventKind};
use weir_core::ledger::JobState;
use weir_core::order::Orders;
use weir_core::ports::Ledger;
use weir_core::{DocumentId, JobId, StorageError, TenantId};

use crate::app::now_millis;

/// Events read at a time.
const PAGE: usize = 1000;

/// A request that tells of a job's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) url: String,
    /// `Weir-Signature`.
    pub(crate) signature: String,
    /// `Weir-Delivery`: the job and the number of the event that ended it, since a job that is tried again ends again.
    pub(crate) delivery: String,
    pub(crate) body: Vec<u8>,
}

/// The body.
#[derive(Serialize)]
struct Told {
    #[serde(rename = "type")]
    kind: &'static str,
    job: JobId,
    state: JobState,
    pipeline: String,
    created_millis: u64,
    documents: Vec<DocumentTold>,
    counts: Counts,
}

#[derive(Serialize)]
struct DocumentTold {
    document: Option<DocumentId>,
    name: String,
    state: &'static str,
    /// Pages done.
    done: u32,
    /// Pages that failed.
    failed: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorNote>,
}

#[derive(Default, Serialize)]
struct Counts {
    documents: u64,
    documents_done: u64,
    pages_done: u64,
    pages_failed: u64,
}

/// What became of writing a letter.
pub(super) enum Written {
    Letter(Letter),
    /// The job has not ended.
    NotYet,
    /// Nobody is to be told.
    Nobody,
}

impl Letter {
    /// The letter about a job.
    pub(super) async fn write(
        ledger: &dyn Ledger,
        orders: &dyn Orders,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Written, StorageError> {
        let (Some(order), Some(record)) = (orders.order(tenant, job).await?, ledger.job(tenant, job).await?)
        else {
            return Ok(Written::Nobody);
        };
        let Some(webhook) = order.webhook else {
            return Ok(Written::Nobody);
        };
        if !record.state.is_ended() {
            return Ok(Written::NotYet);
        }
        let (documents, last) = ends(ledger, tenant, job).await?;
        let mut counts = Counts::default();
        for document in &documents {
            counts.documents += 1;
            counts.documents_done += u64::from(document.state == "done");
            counts.pages_done += u64::from(document.done);
            counts.pages_failed += u64::from(document.failed);
        }
        let told = Told {
            kind: "job-ended",
            job: *job,
            state: record.state,
            pipeline: record.pipeline,
            created_millis: record.created_millis,
            documents,
            counts,
        };
        let body = serde_json::to_vec(&told).map_err(|e| StorageError::Failed {
            what: format!("the webhook of job {job}"),
            reason: e.to_string(),
        })?;
        Ok(Written::Letter(Self {
            url: webhook.url,
            signature: signature(&webhook.secret, now_millis() / 1000, &body),
            delivery: format!("{job}-{last}"),
            body,
        }))
    }
}

/// How the documents ended in the job's last run, and the number of its last event.
async fn ends(
    ledger: &dyn Ledger,
    tenant: &TenantId,
    job: &JobId,
) -> Result<(Vec<DocumentTold>, u64), StorageError> {
    let (mut documents, mut last, mut over) = (Vec::new(), 0, false);
    loop {
        let events = ledger.events(tenant, job, last, PAGE).await?;
        let all = events.len() < PAGE;
        for event in events {
            last = event.seq;
            if std::mem::take(&mut over) {
                documents.clear();
            }
            let (name, state, done, failed, error) = match event.what {
                EventKind::DocumentDone {
                    name, pages, failed, ..
                } => {
                    let failed = u32::try_from(failed.len()).unwrap_or(u32::MAX);
                    (name, "done", pages.saturating_sub(failed), failed, None)
                }
                EventKind::DocumentFailed { name, error, done } => (name, "failed", done, 0, Some(error)),
                EventKind::DocumentCancelled { name, done } => (name, "cancelled", done, 0, None),
                EventKind::JobEnded { .. } => {
                    over = true;
                    continue;
                }
                _ => continue,
            };
            documents.push(DocumentTold {
                document: event.document,
                name,
                state,
                done,
                failed,
                error,
            });
        }
        if all {
            return Ok((documents, last));
        }
    }
}

/// `t=<seconds>,v1=<hex of HMAC-SHA256 over "<seconds>.<body>">`.
pub(super) fn signature(secret: &str, seconds: u64, body: &[u8]) -> String {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap_or_else(|_| unreachable!());
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body);
    let digest: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("t={seconds},v1={digest}")
}

/// The host and port that a job's letter goes to; `None` while the job has not ended. Letters to one of them share places.
pub(super) async fn receiver(
    ledger: &dyn Ledger,
    orders: &dyn Orders,
    tenant: &TenantId,
    job: &JobId,
) -> Result<Option<String>, StorageError> {
    let record = ledger.job(tenant, job).await?;
    if record.is_some_and(|record| !record.state.is_ended()) {
        return Ok(None);
    }
    let order = orders.order(tenant, job).await?;
    let url = order.and_then(|order| Url::parse(&order.webhook?.url).ok());
    // One without a host is not sent anywhere, which its first try finds out.
    Ok(Some(url.map_or_else(String::new, |url| {
        let port = url.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", url.host_str().unwrap_or_default())
    })))
}
