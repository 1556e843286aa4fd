//! Jobs in the ledger that have not ended: queues them after a restart, and keeps the queue of a node the same as that of the ledger.

use std::time::Duration;

use weir_core::ledger::{JobRecord, JobState};
use weir_core::ports::Ledger as _;
use weir_core::{JobId, StorageError, TenantId};

use super::queued_job::QueuedJob;
use super::unstarted_job_end::{commit_failed_or_canceled_job, new_error_info};
use crate::state::Control;

/// Queues the jobs that had not ended when the previous process did, if no node runs them.
pub(crate) async fn requeue_unfinished_jobs(control: &Control) -> Result<(), StorageError> {
    for record in control.claims.list_claimable_jobs().await? {
        enqueue_claimable_job(control, record, Duration::ZERO).await?;
    }
    Ok(())
}

/// Makes the queue of this node the same as that of the ledger: adds jobs that other nodes have accepted or lost, and removes those that
/// other nodes have claimed or ended.
pub(crate) async fn synchronize_queue_with_ledger(control: &Control) -> Result<(), StorageError> {
    let now = control.admission.queue_time();
    let claimable = control.claims.list_claimable_jobs().await?;
    for record in control.admission.remove_jobs_and_find_unknown(claimable, now) {
        enqueue_claimable_job(control, record, now).await?;
    }
    Ok(())
}

/// Queues a job that another node has announced, unless it is known or has been claimed since.
pub(crate) async fn enqueue_announced_job(
    control: &Control,
    tenant: &TenantId,
    job: &JobId,
) -> Result<(), StorageError> {
    if control.admission.unfinished_job_status(tenant, *job).is_some() {
        return Ok(());
    }
    let queued_at = control.admission.queue_time();
    match control.claims.find_claimable_job(tenant, job).await? {
        Some(record) => enqueue_claimable_job(control, record, queued_at).await,
        None => Ok(()),
    }
}

async fn enqueue_claimable_job(
    control: &Control,
    record: JobRecord,
    queued_at: Duration,
) -> Result<(), StorageError> {
    let job_request = control
        .job_requests
        .find_job_request(&record.tenant, &record.id)
        .await?;
    match job_request {
        Some(job_request) => control.admission.enqueue_job(QueuedJob {
            is_interrupted: record.state == JobState::Running,
            ..control.admission.build_queued_job(&job_request, queued_at)
        }),
        // A command of another node may still run it.
        None if control.shares_ledger() => {}
        None => {
            tracing::warn!(job = %record.id, "a job without a job request cannot be resumed");
            let error = new_error_info(
                "no-job-request",
                "the command that ran this job has ended: run it again; finished pages are not processed again",
            );
            commit_failed_or_canceled_job(control, record, None, Some(error)).await?;
        }
    }
    Ok(())
}

/// Ends a job whose runs have stopped several nodes.
pub(crate) async fn fail_job_that_stops_nodes(
    control: &Control,
    tenant: &TenantId,
    job: &JobId,
    lost_claims: u32,
) -> Result<(), StorageError> {
    let (record, job_request) = tokio::try_join!(
        control.ledger.find_job(tenant, job),
        control.job_requests.find_job_request(tenant, job)
    )?;
    let Some(record) = record.filter(|record| !record.state.is_terminal()) else {
        return Ok(());
    };
    let message = format!("{lost_claims} nodes have stopped while they ran this job");
    let error = new_error_info("claim-lost", &message);
    commit_failed_or_canceled_job(control, record, job_request.as_ref(), Some(error)).await?;
    Ok(())
}
