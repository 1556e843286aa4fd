//! Starts queued jobs on the engine in their fair order, and processes the end of each.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use weir_core::event::ErrorInfo;
use weir_core::job_request::{JobRequest, JobRequestOptions};
use weir_core::ledger::{JobRecord, JobState};
use weir_core::ports::Ledger as _;
use weir_core::rollout::RevisionAssignment;
use weir_core::tenancy::TenantState;
use weir_core::{StorageError, TenantId};
use weir_engine::{DocumentEndState, DocumentSpec, JobOutcome, JobSpec};

use super::finish::{count_ended_job, finish_job};
use super::{DispatcherAction, HELD_TERMS_TTL, JobSlot};
use crate::pipelines::{self, ComparedJob, EndedJob, PipelineError};
use crate::state::Control;
use crate::trace_context;

/// The reason for holding jobs that cannot be read from the ledger or committed to it.
const HELD_BY_STORAGE: &str = "storage";

/// Starts jobs until `stop` is canceled, then returns once all started jobs have ended or the engine has suspended them.
pub(crate) async fn run_dispatcher(control: Arc<Control>, stop: CancellationToken) {
    let mut jobs = JoinSet::new();
    while !stop.is_cancelled() {
        match control.admission.next_action() {
            DispatcherAction::StartJob(slot) => {
                let control = Arc::clone(&control);
                jobs.spawn(async move { process_queued_job(&control, slot).await });
            }
            DispatcherAction::RefreshTerms(tenant) => refresh_tenant_terms(&control, tenant).await,
            DispatcherAction::Wait => tokio::select! {
                () = stop.cancelled() => {}
                () = control.admission.wait_for_wakeup() => {}
                Some(_) = jobs.join_next() => {}
                // Daily quotas are renewed without a notification, and another process may change a tenant.
                () = tokio::time::sleep(HELD_TERMS_TTL) => {}
            },
        }
    }
    while jobs.join_next().await.is_some() {}
}

/// Queues the jobs again that had not ended when the previous process did.
pub(crate) async fn requeue_unfinished_jobs(control: &Control) -> Result<(), StorageError> {
    for record in control.ledger.list_unfinished_jobs().await? {
        match control
            .job_requests
            .find_job_request(&record.tenant, &record.id)
            .await?
        {
            Some(order) => control
                .admission
                .enqueue(control.admission.build_queued_job(&order, Duration::ZERO)),
            None => {
                tracing::warn!(job = %record.id, "a job without a job request cannot be resumed");
                let error = error_info(
                    "no-job-request",
                    "the command that ran this job has ended: run it again; finished pages are not processed again",
                );
                finish_job(control, record, None, Some(error)).await?;
            }
        }
    }
    Ok(())
}

/// Reads the current terms of a tenant and passes them to the admission.
async fn refresh_tenant_terms(control: &Control, tenant: TenantId) {
    let answer = async {
        let Some(record) = control.tenant_store.find_tenant(&tenant).await? else {
            return Ok((1.0, None, Some("removed")));
        };
        let limits = control.quota_limiter.tenant_limits(&record);
        let held = match record.state {
            TenantState::Suspended => Some("suspended"),
            TenantState::Active if !has_storage_space(control).await => Some("storage"),
            TenantState::Active => control
                .quota_limiter
                .find_exhausted_quota(&record)
                .await?
                .map(|exhausted| exhausted.quota),
        };
        Ok((record.weight, limits.concurrent_jobs, held))
    };
    let (weight, concurrent, held) = answer.await.unwrap_or_else(|error: StorageError| {
        tracing::warn!(%tenant, %error, "cannot read the record of a tenant: its jobs are held");
        (1.0, None, Some("storage"))
    });
    control.admission.set_terms(tenant, weight, concurrent, held);
}

/// Whether storage has space for the results of a job. It probes storage only after a job has failed because storage was full.
async fn has_storage_space(control: &Control) -> bool {
    if !control.admission.is_storage_full() {
        return true;
    }
    match control.engine.check_writable().await {
        Ok(()) => {
            tracing::info!("storage has space again: jobs start");
            control.admission.mark_storage_available();
            true
        }
        Err(error) => {
            tracing::warn!(%error, "storage is full: no job starts until it has space");
            false
        }
    }
}

/// Why a job was not started.
enum StartError {
    /// It can never be started: it fails with this error.
    Permanent(ErrorInfo),
    /// It cannot be started now: it is queued again.
    Temporary(StorageError),
}

impl From<StorageError> for StartError {
    fn from(error: StorageError) -> Self {
        Self::Temporary(error)
    }
}

async fn process_queued_job(control: &Control, slot: JobSlot) {
    let (tenant, job) = (&slot.job.tenant, slot.job.job_id);
    let read = async {
        let (record, order) = tokio::try_join!(
            control.ledger.find_job(tenant, &job),
            control.job_requests.find_job_request(tenant, &job)
        )?;
        let missing = || {
            error_info(
                "no-job-request",
                "the request of this job does not exist any more",
            )
        };
        record.zip(order).ok_or_else(|| StartError::Permanent(missing()))
    };
    let (record, order) = match read.await {
        Ok(read) => read,
        Err(StartError::Temporary(error)) => {
            return requeue_job(control, slot, HELD_BY_STORAGE, &error.to_string()).await;
        }
        // The job was removed together with its tenant.
        Err(StartError::Permanent(_)) => return,
    };
    // At the error level, so that every log line of a job carries the span, whatever level the log has.
    let span = tracing::error_span!("job", %job, %tenant);
    trace_context::continue_trace(&span, order.traceparent.as_deref());
    start_job(control, slot, record, order).instrument(span).await;
}

async fn start_job(control: &Control, slot: JobSlot, record: JobRecord, order: JobRequest) {
    match build_job_spec(control, &slot, &record, &order).await {
        Ok((spec, given)) => {
            let first = record.state == JobState::Queued;
            run_job(control, slot, spec, given, &order.options, first).await;
        }
        Err(StartError::Temporary(error)) => {
            requeue_job(control, slot, HELD_BY_STORAGE, &error.to_string()).await
        }
        Err(StartError::Permanent(error)) => {
            if let Err(error) = finish_job(control, record, Some(&order), Some(error)).await {
                requeue_job(control, slot, HELD_BY_STORAGE, &error.to_string()).await;
            }
        }
    }
}

/// Builds the specification for the engine. Also returns the revision assigned to the job, if its pipeline belongs to the tenant.
async fn build_job_spec(
    control: &Control,
    slot: &JobSlot,
    record: &JobRecord,
    order: &JobRequest,
) -> Result<(JobSpec, Option<RevisionAssignment>), StartError> {
    let resolved = control
        .tenant_pipelines
        .assign_pipeline(&order.tenant, &record.pipeline, &order.options, &order.job)
        .await;
    let (pipeline, given) = resolved.map_err(|error| {
        let kind = match error {
            PipelineError::Unknown(_) | PipelineError::Inactive(_) => "no-pipeline",
            PipelineError::Unusable { .. } => "pipeline-unusable",
            PipelineError::Storage(error) => return StartError::Temporary(error),
        };
        StartError::Permanent(error_info(kind, &error.to_string()))
    })?;
    let pages = order.options.pages.map(|(first, last)| first..=last);
    let documents = order.files.iter().map(|file| DocumentSpec {
        path: control.upload_store.upload_path(&order.tenant, &file.document),
        name: file.name.clone(),
        password: file.password.clone(),
        pages: pages.clone(),
        missing: None,
    });
    let spec = JobSpec {
        id: order.job,
        tenant: order.tenant.clone(),
        pipeline: pipelines::apply_memory_quota(control, &order.tenant, pipeline).await?,
        documents: documents.collect(),
        force: order.options.force,
        summarize: order.options.summarize,
        filing: order.options.placement.clone(),
        lane: Some(slot.job.lane),
        weight: slot.weight,
    };
    Ok((spec, given))
}

async fn run_job(
    control: &Control,
    slot: JobSlot,
    spec: JobSpec,
    given: Option<RevisionAssignment>,
    options: &JobRequestOptions,
    first: bool,
) {
    let (tenant, job) = (spec.tenant.clone(), spec.id);
    let (pipeline, began) = (spec.pipeline.manifest.name.clone(), Instant::now());
    let handle = control.engine.start_job(spec);
    let outcome = tokio::select! {
        outcome = handle.await_outcome() => outcome,
        () = slot.cancel.cancelled() => {
            handle.cancel_job();
            handle.await_outcome().await
        }
    };
    if !outcome.state.is_terminal() {
        if let Some(held) = outcome.exhausted_quota {
            return requeue_job(control, slot, held.quota, &held.to_string()).await;
        }
        let why = outcome.error.map(|error| error.message).unwrap_or_default();
        return requeue_job(control, slot, HELD_BY_STORAGE, &why).await;
    }
    if failed_because_storage_full(&outcome) {
        // Before its slot is released, so that no other job takes it.
        control.admission.mark_storage_full();
    }
    count_ended_job(outcome.state);
    if let Some(given) = given {
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let ended = EndedJob {
            tenant: &tenant,
            job,
            pipeline: &pipeline,
            outcome: &outcome,
            millis: first.then_some(took),
        };
        pipelines::record_ended_job(&control.tenant_pipelines, given, ended).await;
    }
    slot.settle_cost(count_processed_pages(&outcome));
    // Other jobs may use the slot while the shadow replays this job.
    drop(slot);
    if let Some(given) = given {
        let ended = ComparedJob {
            tenant: &tenant,
            job,
            pipeline: &pipeline,
            options,
        };
        let compared = pipelines::compare_with_shadow(control, given, ended);
        control.stop_signal.run_until_cancelled(compared).await;
    }
}

/// Queues a job again and holds the jobs of its tenant for the reason `held`. A job that was canceled meanwhile ends instead. When
/// the host is stopping, it does nothing: the next process finds the job in the ledger.
async fn requeue_job(control: &Control, slot: JobSlot, held: &'static str, why: &str) {
    if control.stop_signal.is_cancelled() {
        return;
    }
    let waiting = slot.job.clone();
    let (tenant, job) = (&waiting.tenant, waiting.job_id);
    if slot.cancel.is_cancelled() {
        let cancel = async {
            let (record, order) = tokio::try_join!(
                control.ledger.find_job(tenant, &job),
                control.job_requests.find_job_request(tenant, &job)
            )?;
            if let Some(record) = record.filter(|record| !record.state.is_terminal()) {
                finish_job(control, record, order.as_ref(), None).await?;
            }
            Ok::<_, StorageError>(())
        };
        if let Err(error) = cancel.await {
            tracing::error!(%job, %error, "the cancellation of a job could not be committed: the job continues at the next start");
        }
        return;
    }
    tracing::warn!(%job, held, why, "a job could not continue and is queued again");
    drop(slot);
    control.admission.set_terms(tenant.clone(), 1.0, None, Some(held));
    control.admission.enqueue(waiting);
}

/// Whether the job failed because storage was full.
fn failed_because_storage_full(outcome: &JobOutcome) -> bool {
    let full = StorageError::NoSpace { what: String::new() };
    let of_documents = outcome
        .documents
        .iter()
        .filter_map(|document| match &document.end {
            DocumentEndState::Failed { error, .. } => Some(error),
            _ => None,
        });
    let mut errors = outcome.error.iter().chain(of_documents);
    errors.any(|error| error.kind == full.kind())
}

/// Returns the number of pages that the job has processed itself.
fn count_processed_pages(outcome: &JobOutcome) -> f64 {
    let of = |end: &DocumentEndState| match end {
        DocumentEndState::Done { pages, skipped, .. } => f64::from(pages.saturating_sub(*skipped)),
        DocumentEndState::Failed { done, .. }
        | DocumentEndState::Cancelled { done }
        | DocumentEndState::Suspended { done } => f64::from(*done),
    };
    outcome.documents.iter().map(|document| of(&document.end)).sum()
}

fn error_info(kind: &str, message: &str) -> ErrorInfo {
    ErrorInfo {
        kind: kind.into(),
        message: message.into(),
    }
}
