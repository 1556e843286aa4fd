//! Removes expired records beside other work.
//!
//! One node does it at a time. It removes a few records and pauses, again and again, so that the ledger serves other work in between. The
//! files of a job are removed before its rows: after an interruption the job still exists, and the next run removes the rest.

use std::time::Duration;

use tokio::time::sleep;
use weir_core::clock::unix_time_millis;
use weir_core::document_removal::{BeginRemovalOutcome, DocumentRemovalStore};
use weir_core::replay::RecordingRemover;
use weir_core::retention::{RecordKind, RetentionPeriods, RetentionStore};
use weir_core::tenancy::{Tenant, TenantStore};
use weir_core::uploads::UploadStore;
use weir_core::{JobId, StorageError, TenantId};

use crate::state::Control;

/// The duty of the node that removes the expired records of all tenants.
const RETENTION_DUTY: &str = "retention";
/// Time from the start of the host to the first run, so that it does not delay the jobs of the process before.
const FIRST_RUN_DELAY: Duration = Duration::from_secs(60);
/// Time from the end of a run to the next. The duty is held for as long, so that all nodes together run once in it.
const RUN_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Time between two batches.
const BATCH_PAUSE: Duration = Duration::from_millis(20);
/// A stop waits for the end of a batch.
const JOBS_PER_BATCH: u32 = 20;
const RECORDS_PER_BATCH: u32 = 500;

/// Removes records from the stores that have them.
pub struct ExpiredRecordRemover<'a> {
    /// The records.
    pub records: &'a dyn RetentionStore,
    /// Keeps jobs from using an upload that is being removed.
    pub document_removals: &'a dyn DocumentRemovalStore,
    /// Uploads. Those that no job has read are removed with their job.
    pub uploads: &'a dyn UploadStore,
    /// Recordings of jobs.
    pub recordings: &'a dyn RecordingRemover,
}

impl<'a> ExpiredRecordRemover<'a> {
    /// Returns the stores of a host.
    #[must_use]
    pub fn of_host(control: &'a Control) -> Self {
        Self {
            records: control.retention_store.as_ref(),
            document_removals: control.document_removals.as_ref(),
            uploads: control.upload_store.as_ref(),
            recordings: control.tenant_pipelines.job_replayer.as_ref(),
        }
    }

    /// Removes some of the records that are older than `before`. Returns how many; 0 if there are none.
    pub async fn remove_expired_batch(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        before: u64,
    ) -> Result<u64, StorageError> {
        match kind {
            RecordKind::EndedJobs => {
                let jobs = self
                    .records
                    .list_expired_jobs(tenant, before, JOBS_PER_BATCH)
                    .await?;
                self.remove_ended_jobs(tenant, &jobs).await
            }
            // Most tenants have none, and reading is cheaper than a transaction that changes nothing.
            _ if self.records.count_expired_records(tenant, kind, before).await? == 0 => Ok(0),
            _ => {
                self.records
                    .remove_expired_records(tenant, kind, before, RECORDS_PER_BATCH)
                    .await
            }
        }
    }

    /// Removes jobs, which must have ended, with everything that belongs to them alone. Returns how many were removed.
    pub async fn remove_ended_jobs(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<u64, StorageError> {
        if jobs.is_empty() {
            return Ok(0);
        }
        self.recordings.remove_job_recordings(tenant, jobs).await?;
        for document in self.records.list_unread_documents_of_jobs(tenant, jobs).await? {
            match self
                .document_removals
                .begin_document_removal(tenant, &document)
                .await?
            {
                BeginRemovalOutcome::Started => {
                    let removed = self.uploads.remove_upload(tenant, &document).await;
                    self.document_removals
                        .end_document_removal(tenant, &document)
                        .await?;
                    removed?;
                }
                // A job that has just been submitted needs the upload.
                BeginRemovalOutcome::UsedByActiveJob => {}
                // Without the jobs nothing would name the upload if that removal failed. The next run removes them.
                BeginRemovalOutcome::AlreadyInProgress => return Ok(0),
            }
        }
        self.records.remove_ended_jobs(tenant, jobs).await
    }
}

/// Returns all tenants with their retention periods. The default tenant has records of `weir run` also if it was never created.
pub async fn list_retention_periods(
    tenants: &dyn TenantStore,
    host: &RetentionPeriods,
) -> Result<Vec<(TenantId, RetentionPeriods)>, StorageError> {
    let tenants = tenants.list_tenants().await?;
    let mut periods: Vec<_> = tenants
        .into_iter()
        .map(|Tenant { id, retention, .. }| (id, retention.with_defaults(host)))
        .collect();
    let default = TenantId::default_tenant();
    if periods.iter().all(|(tenant, _)| *tenant != default) {
        periods.push((default, host.clone()));
    }
    Ok(periods)
}

/// Removes expired records each hour until the host stops.
pub(crate) async fn remove_expired_records_until_stopped(control: &Control) {
    let mut delay = FIRST_RUN_DELAY;
    loop {
        tokio::select! {
            () = control.stop_signal.cancelled() => return,
            () = sleep(delay) => {}
        }
        delay = RUN_INTERVAL;
        if let Err(error) = remove_expired_records(control, unix_time_millis()).await {
            tracing::warn!(%error, "expired records could not be removed: the next run tries again");
        }
    }
}

/// Removes all records that have expired at this time, unless another node has done it or the host stops. Errors with records of one kind
/// do not keep others.
pub(crate) async fn remove_expired_records(control: &Control, now_millis: u64) -> Result<(), StorageError> {
    if !control.claims.claim_duty(RETENTION_DUTY, RUN_INTERVAL).await? {
        return Ok(());
    }
    let host = RetentionPeriods::from_settings(&control.settings);
    let remover = ExpiredRecordRemover::of_host(control);
    for (tenant, periods) in list_retention_periods(control.tenant_store.as_ref(), &host).await? {
        for kind in RecordKind::ALL {
            let Some(before) = periods.expiry_millis(kind, now_millis) else {
                continue;
            };
            loop {
                if control.stop_signal.is_cancelled() {
                    return Ok(());
                }
                match remover.remove_expired_batch(&tenant, kind, before).await {
                    Ok(0) => break,
                    Ok(removed) => {
                        metrics::counter!("weir_expired_records_removed_total", "kind" => kind.name())
                            .increment(removed);
                        tracing::debug!(%tenant, kind = kind.name(), removed, "expired records were removed");
                    }
                    Err(error) => {
                        tracing::warn!(%tenant, kind = kind.name(), %error, "expired records could not be removed");
                        break;
                    }
                }
                sleep(BATCH_PAUSE).await;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::DocumentId;
    use weir_core::ledger::{JobState, LedgerEntry};
    use weir_core::ports::Ledger as _;

    use crate::testing::{TestControl, job_record};

    const DAY: u64 = 24 * 60 * 60 * 1000;

    /// Lets a job with an upload of its own fail on this day. Returns the job.
    async fn end_job(host: &TestControl, tenant: &TenantId, content: &str, day: u64) -> JobId {
        let request = host.commit_queued_job(tenant, content, 1).await;
        let entries = vec![LedgerEntry::Job(job_record(
            tenant,
            request.job,
            JobState::Failed,
        ))];
        host.control.ledger.commit_entries(entries).await.unwrap();
        host.store.set_job_end(request.job, day * DAY);
        request.job
    }

    async fn exists(host: &TestControl, tenant: &TenantId, job: &JobId) -> bool {
        host.control.ledger.find_job(tenant, job).await.unwrap().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn records_expire_by_the_period_of_their_tenant() {
        let mut settings = weir_core::settings::Settings::default();
        settings.set("default_retention.ended_jobs_days", "10").unwrap();
        let host = TestControl::with_settings(settings);
        let (a, _) = host.create_tenant("a", &[]).await;
        let (b, _) = host.create_tenant("b", &[]).await;
        let (c, _) = host.create_tenant("c", &[]).await;
        host.change_tenant(&b, |tenant| tenant.retention.ended_jobs_days = Some(30))
            .await;
        host.change_tenant(&c, |tenant| tenant.retention.ended_jobs_days = Some(0))
            .await;
        let mut jobs = Vec::new();
        // More jobs than a batch has.
        for number in 0..JOBS_PER_BATCH + 1 {
            jobs.push(end_job(&host, &a, &format!("a {number}"), 60).await);
        }
        let recent = end_job(&host, &a, "recent", 95).await;
        let of_b = [
            end_job(&host, &b, "b", 60).await,
            end_job(&host, &b, "c", 80).await,
        ];
        let of_c = end_job(&host, &c, "d", 1).await;
        remove_expired_records(&host.control, 100 * DAY).await.unwrap();
        for job in &jobs {
            assert!(!exists(&host, &a, job).await);
        }
        assert!(exists(&host, &a, &recent).await);
        assert_eq!(
            (
                exists(&host, &b, &of_b[0]).await,
                exists(&host, &b, &of_b[1]).await
            ),
            (false, true)
        );
        assert!(exists(&host, &c, &of_c).await);
        // No document was read, so the uploads of the other jobs are what is left.
        assert_eq!(host.uploads.file_names().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn upload_that_a_new_job_needs_stays() {
        let host = TestControl::new();
        let (tenant, _) = host.create_tenant("a", &[]).await;
        let old = end_job(&host, &tenant, "text", 1).await;
        host.commit_queued_job(&tenant, "text", 100 * DAY).await;
        remove_expired_records(&host.control, 100 * DAY).await.unwrap();
        assert!(!exists(&host, &tenant, &old).await);
        assert_eq!(host.uploads.file_names().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_stay_while_their_upload_is_being_removed() {
        let host = TestControl::new();
        let (tenant, _) = host.create_tenant("a", &[]).await;
        let job = end_job(&host, &tenant, "text", 1).await;
        let document = DocumentId::from_content(b"text");
        let removals = &host.control.document_removals;
        let begun = removals.begin_document_removal(&tenant, &document).await;
        assert_eq!(begun.unwrap(), BeginRemovalOutcome::Started);
        remove_expired_records(&host.control, 100 * DAY).await.unwrap();
        assert!(exists(&host, &tenant, &job).await);
        removals.end_document_removal(&tenant, &document).await.unwrap();
        remove_expired_records(&host.control, 100 * DAY).await.unwrap();
        assert!(!exists(&host, &tenant, &job).await);
    }

    #[tokio::test(start_paused = true)]
    async fn one_node_removes_the_records_of_an_hour() {
        let host = TestControl::new();
        let other = host.add_node();
        let (tenant, _) = host.create_tenant("a", &[]).await;
        remove_expired_records(&host.control, 100 * DAY).await.unwrap();
        let job = end_job(&host, &tenant, "text", 1).await;
        let almost = RUN_INTERVAL - Duration::from_secs(1);
        tokio::time::advance(almost).await;
        remove_expired_records(&other.control, 100 * DAY).await.unwrap();
        assert!(exists(&host, &tenant, &job).await);
        tokio::time::advance(Duration::from_secs(2)).await;
        remove_expired_records(&other.control, 100 * DAY).await.unwrap();
        assert!(!exists(&host, &tenant, &job).await);
    }
}
