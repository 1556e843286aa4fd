//! Starts queued jobs on the engine in their fair order, and processes the end of each.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use weir_core::event::ErrorInfo;
use weir_core::job_claim::{ClaimOutcome, JobClaim};
use weir_core::job_request::{JobRequest, JobRequestOptions};
use weir_core::ledger::{JobRecord, JobState};
use weir_core::ports::Ledger as _;
use weir_core::rollout::RevisionAssignment;
use weir_core::tenancy::TenantState;
use weir_core::uploads::StagedUpload;
use weir_core::{PriorityLane, StorageError, TenantId};
use weir_engine::{DocumentEndState, DocumentSource, DocumentSpec, JobOutcome, JobSpec};

use super::unstarted_job_end::{commit_failed_or_canceled_job, count_ended_job_in_metrics, new_error_info};
use super::{DispatcherAction, HELD_TERMS_TTL, JobSlot};
use crate::pipelines::{self, EndedJob, JobToCompare, PipelineUnavailableError};
use crate::state::Control;
use crate::trace_context;

/// The reason for holding jobs that cannot be read from the ledger or committed to it.
const HELD_BY_STORAGE: &str = "storage";
/// The reason for holding jobs while as many jobs of the tenant run on other nodes as it may have.
const HELD_BY_JOB_LIMIT: &str = "concurrent_jobs";

/// Starts jobs until `stop` is canceled, then returns once all started jobs have ended or the engine has suspended them.
pub(crate) async fn run_dispatcher(control: Arc<Control>, stop: CancellationToken) {
    let mut jobs = JoinSet::new();
    while !stop.is_cancelled() {
        match control.admission.next_action() {
            DispatcherAction::StartJob(slot) => {
                let control = Arc::clone(&control);
                jobs.spawn(async move { load_and_run_job(&control, slot).await });
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

/// Reads the current terms of a tenant and passes them to the admission.
async fn refresh_tenant_terms(control: &Control, tenant: TenantId) {
    let load_terms = async {
        let Some(record) = control.tenant_store.find_tenant(&tenant).await? else {
            return Ok((1.0, None, Some("removed")));
        };
        let limits = control.quota_limiter.effective_limits(&record);
        let held = match record.state {
            TenantState::Suspended => Some("suspended"),
            TenantState::Active if !has_storage_space(control).await => Some("storage"),
            TenantState::Active => control
                .quota_limiter
                .find_exhausted_page_quota(&record)
                .await?
                .map(|exhausted| exhausted.quota),
        };
        Ok((record.weight, limits.concurrent_jobs, held))
    };
    let (weight, concurrent, held) = load_terms.await.unwrap_or_else(|error: StorageError| {
        tracing::warn!(%tenant, %error, "cannot read the record of a tenant: its jobs are held");
        (1.0, None, Some("storage"))
    });
    control
        .admission
        .set_tenant_terms(tenant, weight, concurrent, held);
}

/// Whether storage has space for the results of a job. It probes storage only after a job has failed because storage was full.
async fn has_storage_space(control: &Control) -> bool {
    if !control.admission.is_storage_full() {
        return true;
    }
    match control.engine.check_writable_by_committing().await {
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
pub(super) enum JobStartError {
    /// It can never be started: it fails with this error.
    Permanent(ErrorInfo),
    /// It cannot be started now: it is queued again.
    Temporary(StorageError),
}

impl From<StorageError> for JobStartError {
    fn from(error: StorageError) -> Self {
        Self::Temporary(error)
    }
}

async fn load_and_run_job(control: &Control, slot: JobSlot) {
    let (tenant, job) = (&slot.job.tenant.clone(), slot.job.job_id);
    let load_records = async {
        let (record, job_request) = tokio::try_join!(
            control.ledger.find_job(tenant, &job),
            control.job_requests.find_job_request(tenant, &job)
        )?;
        let missing = || {
            new_error_info(
                "no-job-request",
                "the request of this job does not exist any more",
            )
        };
        record
            .zip(job_request)
            .ok_or_else(|| JobStartError::Permanent(missing()))
    };
    let (record, job_request) = match load_records.await {
        Ok(read) => read,
        Err(JobStartError::Temporary(error)) => {
            return requeue_job_and_hold_tenant(control, slot, HELD_BY_STORAGE, &error.to_string()).await;
        }
        // The job was removed together with its tenant.
        Err(JobStartError::Permanent(_)) => return,
    };
    let claim = match control
        .claims
        .claim_job(tenant, &job, slot.max_running_jobs)
        .await
    {
        Ok(ClaimOutcome::Claimed(claim)) => claim,
        // Another node runs it, or it has ended.
        Ok(ClaimOutcome::NotClaimable) => return,
        Ok(ClaimOutcome::TenantAtLimit) => {
            let why = "jobs of the tenant run on other nodes";
            return requeue_job_and_hold_tenant(control, slot, HELD_BY_JOB_LIMIT, why).await;
        }
        Err(error) => {
            return requeue_job_and_hold_tenant(control, slot, HELD_BY_STORAGE, &error.to_string()).await;
        }
    };
    if control.shares_ledger()
        && let Err(error) = commit_staged_files(control, &job_request).await
    {
        return requeue_job_and_hold_tenant(control, slot, HELD_BY_STORAGE, &error.to_string()).await;
    }
    // At the error level, so that every log line of a job carries the span, whatever level the log has.
    let span = tracing::error_span!("job", %job, %tenant);
    trace_context::continue_trace(&span, job_request.traceparent.as_deref());
    run_job_or_requeue(control, slot, claim, record, job_request)
        .instrument(span)
        .await;
    control.claims.forget_claim(&job);
}

/// Commits the staged files of a job, whose node has not done it yet or has stopped before.
async fn commit_staged_files(control: &Control, job_request: &JobRequest) -> Result<(), StorageError> {
    for file in &job_request.files {
        let staged = StagedUpload {
            tenant: job_request.tenant.clone(),
            job: job_request.job,
            document: file.document,
        };
        match control.upload_store.commit_staged_upload(&staged).await {
            Ok(()) | Err(StorageError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn run_job_or_requeue(
    control: &Control,
    slot: JobSlot,
    claim: JobClaim,
    record: JobRecord,
    job_request: JobRequest,
) {
    match assign_revision_and_build_spec(control, &slot, &record, &job_request).await {
        Ok((mut spec, assignment)) => {
            spec.claim = Some(claim);
            let is_first_run = record.state == JobState::Queued;
            run_job_and_handle_outcome(
                control,
                slot,
                spec,
                assignment,
                &job_request.options,
                is_first_run,
            )
            .await;
        }
        Err(JobStartError::Temporary(error)) => {
            requeue_job_and_hold_tenant(control, slot, HELD_BY_STORAGE, &error.to_string()).await
        }
        Err(JobStartError::Permanent(error)) => {
            if let Err(error) =
                commit_failed_or_canceled_job(control, record, Some(&job_request), Some(error)).await
            {
                requeue_job_and_hold_tenant(control, slot, HELD_BY_STORAGE, &error.to_string()).await;
            }
        }
    }
}

/// Builds the specification for the engine. Also returns the revision assigned to the job, if its pipeline belongs to the tenant.
pub(super) async fn assign_revision_and_build_spec(
    control: &Control,
    slot: &JobSlot,
    record: &JobRecord,
    job_request: &JobRequest,
) -> Result<(JobSpec, Option<RevisionAssignment>), JobStartError> {
    let resolved = control
        .tenant_pipelines
        .assign_and_load_pipeline(
            &job_request.tenant,
            &record.pipeline,
            &job_request.options,
            &job_request.job,
        )
        .await;
    let (pipeline, assignment) = resolved.map_err(|error| {
        let kind = match error {
            PipelineUnavailableError::Unknown(_) | PipelineUnavailableError::Inactive(_) => "no-pipeline",
            PipelineUnavailableError::Unusable { .. } => "pipeline-unusable",
            PipelineUnavailableError::Storage(error) => return JobStartError::Temporary(error),
        };
        JobStartError::Permanent(new_error_info(kind, &error.to_string()))
    })?;
    let pages = job_request.options.pages.map(|(first, last)| first..=last);
    let documents = job_request.files.iter().map(|file| DocumentSpec {
        source: DocumentSource::Upload {
            store: Arc::clone(&control.upload_store),
            document: file.document,
            bytes: file.bytes,
        },
        name: file.name.clone(),
        password: file.password.clone(),
        pages: pages.clone(),
        missing: None,
    });
    let spec = JobSpec {
        id: job_request.job,
        tenant: job_request.tenant.clone(),
        pipeline: pipelines::apply_instance_memory_quota(control, &job_request.tenant, pipeline).await?,
        documents: documents.collect(),
        force: job_request.options.force,
        summarize: job_request.options.summarize,
        requested_placement: job_request.options.collection_and_labels.clone(),
        // The lane of the queue entry is a guess by file size. The routing component knows the pages.
        lane: job_request.lane,
        claim: None,
        allow_latency_boost: slot.job.lane == PriorityLane::Interactive,
        weight: slot.weight,
    };
    Ok((spec, assignment))
}

async fn run_job_and_handle_outcome(
    control: &Control,
    mut slot: JobSlot,
    spec: JobSpec,
    assignment: Option<RevisionAssignment>,
    options: &JobRequestOptions,
    is_first_run: bool,
) {
    let (tenant, job) = (spec.tenant.clone(), spec.id);
    let (pipeline, began) = (spec.pipeline.manifest.name.clone(), Instant::now());
    let handle = control.engine.start_or_resume_job(spec);
    let outcome = tokio::select! {
        outcome = handle.await_outcome() => outcome,
        () = slot.cancel.cancelled() => {
            handle.cancel_job();
            handle.await_outcome().await
        }
    };
    slot.set_processed_pages(count_processed_pages(&outcome));
    if !outcome.state.is_terminal() {
        if let Some(exhausted) = outcome.exhausted_quota {
            return requeue_job_and_hold_tenant(control, slot, exhausted.quota, &exhausted.to_string()).await;
        }
        let why = outcome.error.map(|error| error.message).unwrap_or_default();
        return requeue_job_and_hold_tenant(control, slot, HELD_BY_STORAGE, &why).await;
    }
    if failed_because_storage_full(&outcome) {
        // Before its slot is released, so that no other job takes it.
        control.admission.mark_storage_full();
    }
    count_ended_job_in_metrics(outcome.state);
    if let Some(assignment) = assignment {
        let elapsed_millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let ended_job = EndedJob {
            tenant: &tenant,
            job,
            pipeline: &pipeline,
            outcome: &outcome,
            millis: is_first_run.then_some(elapsed_millis),
        };
        pipelines::record_job_and_evaluate_canary(&control.tenant_pipelines, assignment, ended_job).await;
    }
    // Other jobs may use the slot while the shadow replays this job.
    drop(slot);
    if let Some(assignment) = assignment {
        let job_to_compare = JobToCompare {
            tenant: &tenant,
            job,
            pipeline: &pipeline,
            options,
        };
        let compared = pipelines::compare_with_shadow(control, assignment, job_to_compare);
        control.stop_signal.run_until_cancelled(compared).await;
    }
}

/// Queues a job again and holds the jobs of its tenant for the reason `held`. A job that was canceled meanwhile ends instead. When
/// the host is stopping, it does nothing: the next process finds the job in the ledger.
async fn requeue_job_and_hold_tenant(control: &Control, slot: JobSlot, held: &'static str, why: &str) {
    control.claims.release_claim(&slot.job.job_id).await;
    if control.stop_signal.is_cancelled() {
        return;
    }
    let queued_job = slot.job.clone();
    let (tenant, job) = (&queued_job.tenant, queued_job.job_id);
    if slot.cancel.is_cancelled() {
        let cancel = async {
            let (record, job_request) = tokio::try_join!(
                control.ledger.find_job(tenant, &job),
                control.job_requests.find_job_request(tenant, &job)
            )?;
            if let Some(record) = record.filter(|record| !record.state.is_terminal()) {
                commit_failed_or_canceled_job(control, record, job_request.as_ref(), None).await?;
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
    control
        .admission
        .set_tenant_terms(tenant.clone(), 1.0, None, Some(held));
    control.admission.enqueue_job(queued_job);
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
    let processed_pages_of = |end: &DocumentEndState| match end {
        DocumentEndState::Done { pages, skipped, .. } => f64::from(pages.saturating_sub(*skipped)),
        DocumentEndState::Failed { done, .. }
        | DocumentEndState::Cancelled { done }
        | DocumentEndState::Suspended { done } => f64::from(*done),
    };
    outcome
        .documents
        .iter()
        .map(|document| processed_pages_of(&document.end))
        .sum()
}
