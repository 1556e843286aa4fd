//! The handles of active jobs, and the sender of a job's outcome. A job is active at most once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use metrics::Gauge;
use parking_lot::Mutex;
use tokio::sync::watch;
use weir_core::decision::StageTotals;
use weir_core::event::Event;
use weir_core::ledger::JobState;
use weir_core::{JobId, StorageError};

use crate::error::{STAGE_DIED_KIND, build_error_info};
use crate::event_log::EventLog;
use crate::job_outcome::JobOutcome;
use crate::running_claim::RunningClaim;
use crate::stage_busy_times::StageBusyTimes;
use crate::stop_signal::StopSignal;

/// A handle of a started job. The engine owns the job: dropping the handle changes nothing.
#[derive(Clone)]
pub struct JobHandle {
    id: JobId,
    log: Arc<EventLog>,
    stop_signal: StopSignal,
    busy_time: Arc<StageBusyTimes>,
    claim: Option<Arc<RunningClaim>>,
    ended: watch::Receiver<Option<JobOutcome>>,
}

impl JobHandle {
    /// Creates the handle of a job and the sender of its outcome.
    pub(crate) fn new(
        id: JobId,
        log: Arc<EventLog>,
        stop_signal: StopSignal,
        busy_time: Arc<StageBusyTimes>,
        claim: Option<Arc<RunningClaim>>,
    ) -> (Self, OutcomeSender) {
        let (outcome_sender, ended) = watch::channel(None);
        let end = OutcomeSender {
            id,
            log: Arc::clone(&log),
            sender: outcome_sender,
        };
        let handle = Self {
            id,
            log,
            stop_signal,
            busy_time,
            claim,
            ended,
        };
        (handle, end)
    }

    /// Returns the id of the job.
    pub const fn id(&self) -> JobId {
        self.id
    }

    /// Streams all events from the first one, in order and without gaps, until the job has ended.
    ///
    /// A slow reader never delays the job. A reader that falls far behind gets older events from the ledger, or an error if the
    /// ledger cannot be read.
    pub fn stream_events(&self) -> BoxStream<'static, Result<Event, StorageError>> {
        self.log.subscribe(0)
    }

    /// Streams the events after number `seq`, like [`Self::stream_events`].
    pub fn stream_events_after(&self, seq: u64) -> BoxStream<'static, Result<Event, StorageError>> {
        self.log.subscribe(seq)
    }

    /// Returns the work of each stage for the job, since the job was started in this engine.
    pub fn stage_totals(&self) -> Vec<StageTotals> {
        self.busy_time.stage_totals()
    }

    /// Stops the job at once, because its claim has ended or may have ended. Nothing that it does from here on is committed. Does nothing if
    /// it has no claim.
    pub fn stop_without_claim(&self) {
        if let Some(claim) = &self.claim {
            claim.mark_lost();
        }
    }

    /// Cancels the job: starts no further pages, and drops pages in flight after the grace period of the configuration. Finished
    /// pages are kept.
    pub fn cancel_job(&self) {
        self.stop_signal.signal_cancel();
    }

    /// Suspends the job: starts no further pages, and drops pages in flight after `grace`. If pages are left, the job has not
    /// ended, and starting it again under its id resumes it.
    pub(crate) fn suspend_job(&self, grace: Duration) {
        self.stop_signal.signal_suspend(grace);
    }

    /// Waits until the job has ended or was suspended, held or dropped: see [`JobOutcome::state`].
    pub async fn await_outcome(&self) -> JobOutcome {
        let mut ended = self.ended.clone();
        let outcome = ended.wait_for(Option::is_some).await.ok().and_then(|o| o.clone());
        outcome.unwrap_or_else(|| dropped_job_outcome(self.id))
    }
}

/// Sends the outcome of a job to all handles and closes its event log. If it is dropped without an outcome, it sends that the
/// job was dropped.
pub(crate) struct OutcomeSender {
    id: JobId,
    log: Arc<EventLog>,
    sender: watch::Sender<Option<JobOutcome>>,
}

impl OutcomeSender {
    pub(crate) fn send_outcome(self, outcome: JobOutcome) {
        self.sender.send_replace(Some(outcome));
    }
}

impl Drop for OutcomeSender {
    fn drop(&mut self) {
        self.sender.send_if_modified(|outcome| {
            let is_unset = outcome.is_none();
            outcome.get_or_insert_with(|| dropped_job_outcome(self.id));
            is_unset
        });
        self.log.close();
    }
}

fn dropped_job_outcome(id: JobId) -> JobOutcome {
    JobOutcome {
        id,
        state: JobState::Running,
        error: Some(build_error_info(
            STAGE_DIED_KIND,
            "the job was dropped before its end: start it again to resume it",
        )),
        exhausted_quota: None,
        documents: Vec::new(),
        policy: weir_core::ports::PolicyCallAndFailureCounts::default(),
    }
}

/// The handles of the active jobs of the engine.
#[derive(Default)]
pub(crate) struct ActiveJobs(Mutex<HashMap<JobId, JobHandle>>);

/// Keeps a job registered as active until it is dropped.
pub(crate) struct ActiveJobGuard {
    jobs: Arc<ActiveJobs>,
    id: JobId,
    running: Gauge,
}

impl ActiveJobs {
    /// Returns the handle of a job if it is active.
    pub(crate) fn get(&self, id: &JobId) -> Option<JobHandle> {
        self.0.lock().get(id).cloned()
    }

    pub(crate) fn all_handles(&self) -> Vec<JobHandle> {
        self.0.lock().values().cloned().collect()
    }

    /// Registers a job that is not active yet, and counts it in the gauge of running jobs.
    pub(crate) fn register_active_job(
        self: &Arc<Self>,
        handle: JobHandle,
        running: &Gauge,
    ) -> ActiveJobGuard {
        let id = handle.id();
        self.0.lock().insert(id, handle);
        running.increment(1.0);
        ActiveJobGuard {
            jobs: Arc::clone(self),
            id,
            running: running.clone(),
        }
    }
}

impl Drop for ActiveJobGuard {
    fn drop(&mut self) {
        let removed = self.jobs.0.lock().remove(&self.id);
        drop(removed);
        self.running.decrement(1.0);
    }
}
