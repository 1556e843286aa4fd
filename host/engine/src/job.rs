//! A job: several documents, one pipeline at one revision, one event log.

use std::sync::{Arc, OnceLock};

use weir_core::filing::Filing;
use weir_core::manifest::Pipeline;
use weir_core::ports::{Account, JobPolicy};
use weir_core::usage::QuotaExhausted;
use weir_core::{JobId, Lane, TenantId};

use crate::Host;
use crate::capabilities::JobCapabilities;
use crate::events::EventLog;
use crate::failure::{Stop, Unfinished};
use crate::halt::Halt;
use crate::journal::Journal;
use crate::model_requests::ModelRequests;
use crate::spent::Spent;

/// A job in work: what its documents share.
pub(crate) struct Job {
    pub(crate) host: Arc<Host>,
    pub(crate) tenant: TenantId,
    pub(crate) id: JobId,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) force: bool,
    /// Whether documents are summarized.
    pub(crate) summarize: bool,
    /// Collection and labels asked for.
    pub(crate) filing: Filing,
    /// On whose account it asks for things that do not wait for company.
    pub(crate) account: Account,
    /// The lane asked for.
    pub(crate) lane: Option<Lane>,
    pub(crate) policy: Arc<dyn JobPolicy>,
    pub(crate) log: Arc<EventLog>,
    pub(crate) halt: Halt,
    pub(crate) capabilities: Arc<JobCapabilities>,
    pub(crate) spent: Arc<Spent>,
    pub(crate) model_requests: Arc<ModelRequests>,
    /// The quota that keeps the job from beginning further pages, once there is one.
    pub(crate) held: OnceLock<QuotaExhausted>,
}

/// Waits until nothing more can come of a job, and says why.
async fn over(halt: &Halt, journal: &Journal) -> Unfinished {
    tokio::select! {
        biased;
        error = halt.failed() => Unfinished::Failed(error),
        error = journal.broken() => error.into(),
        () = halt.cancelled() => Unfinished::Cancelled,
    }
}

/// Waits until a job is stopped, and says how.
pub(crate) async fn halted(halt: &Halt, journal: &Journal) -> Unfinished {
    tokio::select! {
        biased;
        over = over(halt, journal) => over,
        () = halt.stopping() => Unfinished::Suspended,
    }
}

impl Job {
    /// Waits until the job is stopped, and says how.
    pub(crate) async fn halted(&self) -> Unfinished {
        halted(&self.halt, &self.host.journal).await
    }

    /// Does `step` unless nothing more can come of the job before.
    pub(crate) async fn unless_over<T>(&self, step: impl Future<Output = T>) -> Result<T, Unfinished> {
        tokio::select! {
            biased;
            over = over(&self.halt, &self.host.journal) => Err(over),
            done = step => Ok(done),
        }
    }

    /// Does `step` unless the job is stopped before.
    pub(crate) async fn unless_halted<T>(&self, step: impl Future<Output = T>) -> Result<T, Unfinished> {
        tokio::select! {
            biased;
            halted = self.halted() => Err(halted),
            done = step => Ok(done),
        }
    }

    /// Does `step` unless no further page is to be begun.
    pub(crate) async fn unless_stopping<T>(&self, step: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.halt.stopping() => Err(Stop::NotBegun),
            done = step => Ok(done),
        }
    }
}
