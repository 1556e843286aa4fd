//! Takes over jobs that other nodes have accepted or lost, and cancels jobs for other nodes.

use std::time::Duration;

use metrics::counter;
use tokio::time::sleep;
use weir_core::StorageError;
use weir_core::job_claim::ExpiredClaim;

use crate::admission;
use crate::state::Control;

/// Time between two looks for jobs, on average.
const TAKEOVER_INTERVAL: Duration = Duration::from_millis(900);
/// Time between two looks, however often other nodes announce changes.
const MIN_TAKEOVER_INTERVAL: Duration = Duration::from_millis(100);
/// How often a job may lose its claim before it fails: it may be what stops the nodes.
const MAX_LOST_CLAIMS: u32 = 3;

/// Queues jobs that other nodes have accepted or lost, until the host stops. For a ledger that several nodes share.
pub(crate) async fn take_over_jobs_until_stopped(control: &Control) {
    let stop = &control.stop_signal;
    let pause = || TAKEOVER_INTERVAL.mul_f64(0.75 + 0.5 * fastrand::f64());
    let wait = async || {
        sleep(MIN_TAKEOVER_INTERVAL).await;
        tokio::select! {
            () = sleep(pause()) => {}
            () = control.takeover_wakeup.notified() => {}
        }
    };
    while stop.run_until_cancelled(wait()).await.is_some() {
        if let Err(error) = take_over_jobs(control).await {
            tracing::warn!(%error, "cannot look for jobs of other nodes");
        }
    }
}

async fn take_over_jobs(control: &Control) -> Result<(), StorageError> {
    for ExpiredClaim { claim, lost_claims } in control.claims.release_expired_claims().await? {
        let (tenant, job) = (&claim.tenant, &claim.job);
        counter!("weir_jobs_reclaimed_total").increment(1);
        tracing::warn!(%job, %tenant, lost_claims, "a node has lost the claim of a job");
        control.claims.stop_job_of_claim(&control.engine, &claim);
        if lost_claims >= MAX_LOST_CLAIMS
            && let Err(error) = admission::fail_job_that_stops_nodes(control, tenant, job, lost_claims).await
        {
            tracing::warn!(%job, %error, "a job that has stopped several nodes could not be ended");
        }
    }
    for claim in control.claims.list_requested_cancels().await? {
        control.admission.cancel_job(&claim.tenant, claim.job);
    }
    admission::synchronize_queue_with_ledger(control).await
}
