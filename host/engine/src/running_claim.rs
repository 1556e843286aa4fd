//! The claim of a running job.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weir_core::job_claim::JobClaim;

use crate::stop_signal::StopSignal;

/// The claim under which a job runs. Once it is lost, the job stops and nothing of it is committed.
pub(crate) struct RunningClaim {
    claim: JobClaim,
    stop_signal: StopSignal,
    is_lost: AtomicBool,
}

impl RunningClaim {
    pub(crate) const fn new(claim: JobClaim, stop_signal: StopSignal) -> Self {
        Self {
            claim,
            stop_signal,
            is_lost: AtomicBool::new(false),
        }
    }

    pub(crate) const fn claim(&self) -> &JobClaim {
        &self.claim
    }

    /// Stops the job at once, because another node has claimed it or may do so.
    pub(crate) fn mark_lost(&self) {
        if !self.is_lost.swap(true, Ordering::AcqRel) {
            tracing::warn!(job = %self.claim.job, epoch = self.claim.epoch, "the claim of a job is lost: the job stops here");
            self.stop_signal.signal_suspend(Duration::ZERO);
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }
}
