//! Reads jobs: their records, and the diagnosis of their speed.

use weir_core::clock::unix_time_millis;
use weir_core::job_request::JobRequest;
use weir_core::ledger::JobRecord;
use weir_core::ports::Ledger as _;
use weir_core::{JobId, StorageError, TenantId};

use super::diagnosis::{BottleneckDiagnosis, diagnose_bottleneck_from_progress};
use crate::state::Control;

/// Loads the record and the job request of a tenant's job; `None` if there is no such job. A job of `weir run` has no job request.
pub async fn find_job_and_request(
    control: &Control,
    tenant: &TenantId,
    job: &JobId,
) -> Result<Option<(JobRecord, Option<JobRequest>)>, StorageError> {
    let (record, job_request) = tokio::try_join!(
        control.ledger.find_job(tenant, job),
        control.job_requests.find_job_request(tenant, job)
    )?;
    Ok(record.map(|record| (record, job_request)))
}

/// Diagnoses which stage is the bottleneck of a job.
pub async fn diagnose_job_bottleneck(
    control: &Control,
    record: &JobRecord,
) -> Result<BottleneckDiagnosis, StorageError> {
    // Read before the events: if the job ends in between, both report the same work.
    let live = control.engine.active_job(&record.id);
    let progress = control
        .progress_cache
        .load_progress(control.ledger.as_ref(), &record.tenant, &record.id)
        .await?;
    let now = unix_time_millis();
    let (work, until) = match live.filter(|_| !progress.ended) {
        Some(live) => (live.stage_totals(), now.saturating_sub(record.created_millis)),
        None => (progress.stage_totals.clone(), progress.last_event_millis),
    };
    let millis = until.saturating_sub(progress.resumed_millis);
    Ok(diagnose_bottleneck_from_progress(&progress, &work, millis, now))
}
