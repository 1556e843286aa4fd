//! The end of a job that the engine does not have: cancelled while it waited, or never to be started.

use metrics::counter;
use weir_core::StorageError;
use weir_core::event::{ErrorNote, Event, EventKind};
use weir_core::ledger::{Entry, JobRecord, JobState};
use weir_core::order::Order;
use weir_core::ports::Ledger as _;

use crate::app::{App, now_millis};

/// Writes down that the job has ended, all or nothing: failed for `error`, or cancelled if there is none. Its events go on
/// behind those it has.
pub(crate) async fn conclude(
    app: &App,
    mut record: JobRecord,
    order: Option<&Order>,
    error: Option<ErrorNote>,
) -> Result<JobRecord, StorageError> {
    let past = app
        .progress
        .of(app.ledger.as_ref(), &record.tenant, &record.id)
        .await?;
    let since_made = now_millis().saturating_sub(record.created_millis);
    let at_millis = since_made.max(past.at_millis);
    let files = order.map(|order| order.files.as_slice()).unwrap_or_default();
    let state = if error.is_some() {
        JobState::Failed
    } else {
        JobState::Cancelled
    };
    let ends = past
        .of_files(files)
        .into_iter()
        .zip(files)
        .filter(|(seen, _)| !seen.is_some_and(|seen| seen.state.is_ended()));
    let ends = ends.map(|(seen, file)| {
        let (name, done) = (file.name.clone(), seen.map_or(0, |seen| seen.done));
        let what = match &error {
            Some(error) => EventKind::DocumentFailed {
                name,
                error: error.clone(),
                done,
            },
            None => EventKind::DocumentCancelled { name, done },
        };
        (Some(file.document), what)
    });
    let last = (
        None,
        EventKind::JobEnded {
            state,
            stages: Vec::new(),
        },
    );
    record.state = state;
    let mut entries = vec![Entry::Job(record.clone())];
    for (seq, (document, what)) in (past.seq + 1..).zip(ends.chain([last])) {
        let event = Event {
            seq,
            job: record.id,
            document,
            at_millis,
            what,
        };
        entries.push(Entry::Event(record.tenant.clone(), event));
    }
    app.ledger.commit(entries).await?;
    count(state);
    Ok(record)
}

/// Counts the end of a job.
pub(super) fn count(state: JobState) {
    let state = match state {
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
        JobState::Queued | JobState::Running => return,
    };
    counter!("weir_jobs_ended_total", "state" => state).increment(1);
}
