//! Runs a job from its first ledger entry to its last.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt as _;
use weir_core::clock::unix_time_millis;
use weir_core::event::{ErrorInfo, EventKind};
use weir_core::ledger::{JobRecord, JobState, LedgerEntry};
use weir_core::ports::{OpenPolicyRequest, PolicyCallAndFailureCounts, SchedulingContext};
use weir_core::usage::QuotaExhaustedError;
use weir_core::{PriorityLane, StorageError};

use crate::component_capabilities::ComponentCapabilitiesOfJob;
use crate::engine_state::EngineState;
use crate::error::{DocumentStopReason, STAGE_DIED_KIND, StageError, build_error_info};
use crate::event_log::{EventLog, ProgressObserverQueue};
use crate::job_and_document_context::{JobContext, await_job_stop_reason};
use crate::job_documents::{report_unstarted_document_failure, unopened_document_outcome};
use crate::job_handle::JobHandle;
use crate::job_outcome::{DocumentEndState, DocumentOutcome, JobOutcome};
use crate::job_spec::JobSpec;
use crate::latency_boost::run_with_boost;
use crate::model_request_tracker::ModelRequestTracker;
use crate::running_claim::RunningClaim;
use crate::stage_busy_times::StageBusyTimes;
use crate::stop_signal::StopSignal;
use crate::store_retry::retry_while_unavailable;

/// Registers a job as active. Returns its handle and the future that runs it.
pub(crate) fn register_and_prepare_job_run(
    engine: Arc<EngineState>,
    spec: JobSpec,
) -> (JobHandle, impl Future<Output = ()> + Send) {
    let id = spec.id;
    let stop_signal = StopSignal::new(engine.config.cancel_grace);
    let claim = spec.claim.clone();
    let claim = claim.map(|claim| Arc::new(RunningClaim::new(claim, stop_signal.clone())));
    let (log, observer) = EventLog::new(
        id,
        spec.tenant.clone(),
        engine.group_commit.with_claim(claim.clone()),
        Arc::clone(&engine.ports.ledger),
        // The pending group of the group commit and its channel, with a margin.
        engine
            .config
            .max_commit_entries
            .max(1)
            .saturating_mul(2)
            .saturating_add(512),
    );
    let busy_time = StageBusyTimes::new();
    let (handle, end) = JobHandle::new(
        id,
        Arc::clone(&log),
        stop_signal.clone(),
        Arc::clone(&busy_time),
        claim.clone(),
    );
    let registered = engine
        .active_jobs
        .register_active_job(handle.clone(), &engine.metrics.running_jobs);
    let tenant = spec.tenant.clone();
    let allow_boost = spec.allow_latency_boost && spec.lane != Some(PriorityLane::Bulk);
    let start = JobRun {
        record: JobRecord {
            id,
            tenant: spec.tenant.clone(),
            pipeline: spec.pipeline.manifest.name.clone(),
            revision: spec.pipeline.revision,
            state: JobState::Running,
            created_millis: unix_time_millis(),
        },
        engine: Arc::clone(&engine),
        spec,
        log,
        stop_signal,
        busy_time,
        claim,
    };
    let run = async move {
        let outcome = run_with_boost(
            &engine.latency_boosts,
            &tenant,
            allow_boost,
            || engine.workers.grant_free_slots(),
            start.run_job(observer),
        )
        .await;
        // Unregistered first, since a caller that gets the outcome may start the job again.
        drop(registered);
        end.send_outcome(outcome);
    };
    (handle, run)
}

/// The run of one job.
struct JobRun {
    engine: Arc<EngineState>,
    record: JobRecord,
    spec: JobSpec,
    log: Arc<EventLog>,
    stop_signal: StopSignal,
    busy_time: Arc<StageBusyTimes>,
    claim: Option<Arc<RunningClaim>>,
}

impl JobRun {
    async fn run_job(mut self, observer: ProgressObserverQueue) -> JobOutcome {
        if let Err(unread) = self.restore_job_from_ledger().await {
            // Nothing has been written, so the job in the ledger is unchanged.
            return JobOutcome {
                id: self.record.id,
                state: JobState::Running,
                error: Some(StageError::from(unread).to_error_info()),
                exhausted_quota: None,
                documents: Vec::new(),
                policy: PolicyCallAndFailureCounts::default(),
            };
        }
        self.log
            .submit_ledger_entries(vec![LedgerEntry::Job(self.record.clone())])
            .await;
        let work = AssertUnwindSafe(self.open_policy_and_run_documents(observer)).catch_unwind();
        let DocumentsResult {
            documents,
            exhausted_quota: held,
            mut error,
            policy,
        } = work.await.unwrap_or_else(|_| {
            let message = "the job's task panicked: this is a fault of the host, see its log";
            DocumentsResult::from_job_error(Vec::new(), build_error_info(STAGE_DIED_KIND, message))
        });
        let failed = |d: &DocumentOutcome| matches!(d.end, DocumentEndState::Failed { .. });
        let cancelled = |d: &DocumentOutcome| matches!(d.end, DocumentEndState::Cancelled { .. });
        let suspended = |d: &DocumentOutcome| matches!(d.end, DocumentEndState::Suspended { .. });
        let mut state = if error.is_some() {
            JobState::Failed
        } else if documents.iter().any(suspended) {
            JobState::Running
        } else if documents.iter().any(failed) {
            JobState::Failed
        } else if documents.iter().any(cancelled) {
            JobState::Cancelled
        } else {
            JobState::Done
        };
        if let Some(held) = held.filter(|_| state == JobState::Running) {
            tracing::warn!(
                quota = held.quota,
                limit = held.limit,
                "the job is held until its quota allows more pages"
            );
            let error = build_error_info(QuotaExhaustedError::KIND, held);
            self.log
                .write_event(None, EventKind::JobPausedByQuota { error })
                .await;
        }
        if state != JobState::Running {
            self.record.state = state;
            let entries = vec![LedgerEntry::Job(self.record.clone())];
            let stages = self.busy_time.stage_totals();
            self.log
                .write_event_with_ledger_entries(entries, None, EventKind::JobEnded { state, stages })
                .await;
        }
        if let Err(unwritten) = self.engine.group_commit.commit_pending().await {
            if state != JobState::Running {
                state = JobState::Failed;
            }
            error.get_or_insert_with(|| StageError::from(unwritten).to_error_info());
        }
        if self.claim.as_ref().is_some_and(|claim| claim.is_lost()) {
            // Nothing of the end was committed. Another node runs the job.
            state = JobState::Running;
            error = Some(StageError::from(StorageError::ClaimLost { job: self.record.id }).to_error_info());
        }
        JobOutcome {
            id: self.record.id,
            state,
            error,
            exhausted_quota: held.filter(|_| state == JobState::Running),
            documents,
            policy,
        }
    }

    /// Resumes the job if the ledger knows it: takes over its creation time and the numbers of its last event and of its last
    /// component log entry.
    async fn restore_job_from_ledger(&mut self) -> Result<(), StorageError> {
        let ledger = &*self.engine.ports.ledger;
        let (tenant, id) = (&self.spec.tenant, &self.record.id);
        let Some(recovered) = retry_while_unavailable(|| ledger.find_job(tenant, id)).await? else {
            return Ok(());
        };
        let last_event = retry_while_unavailable(|| ledger.last_job_event(tenant, id)).await?;
        let last_log_seq = retry_while_unavailable(|| ledger.last_component_log_seq(tenant, id)).await?;
        self.record.created_millis = recovered.created_millis;
        let (seq, at) = last_event.map_or((0, 0), |event| (event.seq, event.since_job_created_millis));
        // The wall clock may have been set back, but event times must not go back.
        let since_created = unix_time_millis()
            .saturating_sub(recovered.created_millis)
            .max(at);
        self.log
            .continue_numbering_after(seq, last_log_seq, since_created);
        Ok(())
    }

    async fn open_policy_and_run_documents(&self, observer: ProgressObserverQueue) -> DocumentsResult {
        let (tenant, id) = (&self.spec.tenant, self.record.id);
        let ports = &self.engine.ports;
        // Pages wait for policy decisions, so requests of components do not wait for fuller batches.
        let account = SchedulingContext {
            tenant: tenant.clone(),
            lane: PriorityLane::Interactive,
            group: self.engine.new_scheduling_group_id(),
            batch_linger: Duration::ZERO,
            tenant_weight: self.spec.weight,
        };
        let model_requests = Arc::new(ModelRequestTracker::default());
        let capabilities = ComponentCapabilitiesOfJob::new(
            ports,
            account.clone(),
            Arc::clone(&self.log),
            Arc::clone(&model_requests),
        );
        let request = OpenPolicyRequest {
            tenant,
            job: id,
            pipeline: &self.spec.pipeline,
            capabilities: Arc::clone(&capabilities) as _,
        };
        // Opening waits for compilation and for instances, which other jobs may hold for a long time.
        let opened = tokio::select! {
            biased;
            stopped = await_job_stop_reason(&self.stop_signal, &self.engine.group_commit) => Err(stopped),
            opened = ports.policies.open_job_policy(request) => opened.map_err(DocumentStopReason::from),
        };
        let policy = match opened {
            Ok(policy) => policy,
            Err(unfinished) => return self.end_unstarted_documents(unfinished).await,
        };
        let job = Arc::new(JobContext {
            engine: Arc::clone(&self.engine),
            tenant: tenant.clone(),
            id,
            pipeline: Arc::clone(&self.spec.pipeline),
            force: self.spec.force,
            requested_placement: self.spec.requested_placement.clone(),
            summarize: self.spec.summarize,
            account,
            lane: self.spec.lane,
            policy,
            log: Arc::clone(&self.log),
            stop_signal: self.stop_signal.clone(),
            capabilities,
            busy_time: Arc::clone(&self.busy_time),
            model_requests,
            exhausted_quota: OnceLock::new(),
        });
        DocumentsResult {
            documents: job
                .run_documents_with_observer(observer, &self.spec.documents)
                .await,
            exhausted_quota: job.exhausted_quota.get().copied(),
            error: self.stop_signal.failure_error(),
            policy: job.policy.call_and_failure_counts(),
        }
    }

    /// Ends all documents of a job that was stopped before it started them.
    async fn end_unstarted_documents(&self, unfinished: DocumentStopReason) -> DocumentsResult {
        let mut documents = Vec::with_capacity(self.spec.documents.len());
        for spec in &self.spec.documents {
            let outcome = match &unfinished {
                DocumentStopReason::Failed(error) => {
                    report_unstarted_document_failure(&self.log, spec, error).await
                }
                DocumentStopReason::Cancelled => {
                    let name = spec.name.clone();
                    let event = EventKind::DocumentCancelled { name, done: 0 };
                    self.log.write_event(None, event).await;
                    unopened_document_outcome(spec, DocumentEndState::Cancelled { done: 0 })
                }
                DocumentStopReason::Suspended => {
                    unopened_document_outcome(spec, DocumentEndState::Suspended { done: 0 })
                }
            };
            documents.push(outcome);
        }
        DocumentsResult {
            documents,
            error: match unfinished {
                DocumentStopReason::Failed(error) => Some(error),
                DocumentStopReason::Cancelled | DocumentStopReason::Suspended => None,
            },
            exhausted_quota: None,
            policy: PolicyCallAndFailureCounts::default(),
        }
    }
}

/// The results of a job's documents.
struct DocumentsResult {
    documents: Vec<DocumentOutcome>,
    exhausted_quota: Option<QuotaExhaustedError>,
    /// Why the job as a whole has failed; `None` if it has not.
    error: Option<ErrorInfo>,
    policy: PolicyCallAndFailureCounts,
}

impl DocumentsResult {
    fn from_job_error(documents: Vec<DocumentOutcome>, error: ErrorInfo) -> Self {
        Self {
            documents,
            exhausted_quota: None,
            error: Some(error),
            policy: PolicyCallAndFailureCounts::default(),
        }
    }
}
