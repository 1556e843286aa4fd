//! Ends a job that the engine does not run: it was canceled while it was queued, or it cannot be started.

use metrics::counter;
use weir_core::StorageError;
use weir_core::clock::unix_time_millis;
use weir_core::event::{ErrorInfo, Event, EventKind};
use weir_core::job_claim::JobClaim;
use weir_core::job_request::JobRequest;
use weir_core::ledger::{JobRecord, JobState, LedgerEntry};
use weir_core::ports::Ledger as _;

use crate::state::Control;

/// Commits the end of a job in one transaction: as failed with `error`, or as canceled if there is none. The numbers of the new
/// events continue after those of its existing events. Fails with [`StorageError::ClaimLost`] if another node runs the job.
pub(crate) async fn commit_failed_or_canceled_job(
    control: &Control,
    record: JobRecord,
    job_request: Option<&JobRequest>,
    error: Option<ErrorInfo>,
) -> Result<JobRecord, StorageError> {
    // First, so that no other node adds events after the last one has been read.
    let claim = control
        .claims
        .claim_to_end_job(&record.tenant, &record.id)
        .await?;
    let job = record.id;
    let ended = commit_end_of_claimed_job(control, claim, record, job_request, error).await;
    match ended {
        Ok(_) => control.claims.forget_claim(&job),
        Err(_) => control.claims.release_claim(&job).await,
    }
    ended
}

async fn commit_end_of_claimed_job(
    control: &Control,
    claim: JobClaim,
    mut record: JobRecord,
    job_request: Option<&JobRequest>,
    error: Option<ErrorInfo>,
) -> Result<JobRecord, StorageError> {
    let progress = control
        .progress_cache
        .load_progress(control.ledger.as_ref(), &record.tenant, &record.id)
        .await?;
    let since_created_millis = unix_time_millis().saturating_sub(record.created_millis);
    let at_millis = since_created_millis.max(progress.last_event_millis);
    let files = job_request
        .map(|request| request.files.as_slice())
        .unwrap_or_default();
    let state = if error.is_some() {
        JobState::Failed
    } else {
        JobState::Cancelled
    };
    let ends = progress
        .find_progress_of_files(files)
        .into_iter()
        .zip(files)
        .filter(|(document_progress, _)| {
            !document_progress.is_some_and(|progress| progress.state.is_ended())
        });
    let ends = ends.map(|(document_progress, file)| {
        let (name, done) = (
            file.name.clone(),
            document_progress.map_or(0, |progress| progress.done_pages),
        );
        let event_kind = match &error {
            Some(error) => EventKind::DocumentFailed {
                name,
                error: error.clone(),
                done,
            },
            None => EventKind::DocumentCancelled { name, done },
        };
        (Some(file.document), event_kind)
    });
    let last = (
        None,
        EventKind::JobEnded {
            state,
            stages: Vec::new(),
        },
    );
    record.state = state;
    let mut entries = vec![LedgerEntry::RequireClaim(claim), LedgerEntry::Job(record.clone())];
    for (seq, (document, what)) in (progress.last_seq + 1..).zip(ends.chain([last])) {
        let event = Event {
            seq,
            job: record.id,
            document,
            since_job_created_millis: at_millis,
            kind: what,
        };
        entries.push(LedgerEntry::Event(record.tenant.clone(), event));
    }
    control.ledger.commit_entries(entries).await?;
    count_ended_job_in_metrics(state);
    Ok(record)
}

/// Counts the end of a job in the metrics.
pub(crate) fn count_ended_job_in_metrics(state: JobState) {
    let state = match state {
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
        JobState::Queued | JobState::Running => return,
    };
    counter!("weir_jobs_ended_total", "state" => state).increment(1);
}

pub(super) fn new_error_info(kind: &str, message: &str) -> ErrorInfo {
    ErrorInfo {
        kind: kind.into(),
        message: message.into(),
    }
}
