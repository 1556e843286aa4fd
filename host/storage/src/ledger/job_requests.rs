//! Rows of job requests and of idempotency keys.
//!
//! One transaction looks up an idempotency key and writes it with its job, and the file has one writer at a time. So of two requests
//! with one key, the second finds the job of the first.

use async_trait::async_trait;
use weir_core::job_request::{
    EarlierIdempotentRequest, IdempotencyKey, JobFilter, JobRequest, JobRequestStore, JobSnapshot,
    PutRequestOutcome,
};
use weir_core::ledger::JobRecord;
use weir_core::{JobId, StorageError, TenantId};

use super::column_values::{read_and_parse_text, read_json, to_json, to_sql_integer};
use super::locked_tenants::LockedTenants;
use super::pipelines::revision_assignments::find_assignment_of_job;
use super::sql_connection::{SqlConnection, SqlResult};
use super::sql_ledger::SqlLedger;
use super::sql_values::params;
use super::{document_removals, job_and_document_rows};

/// Minimum time that an idempotency key is known, counted from its first request.
const MIN_IDEMPOTENCY_KEY_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// Maximum number of expired keys that one job request deletes. A request adds only one key, so the table shrinks again after a
/// burst.
const MAX_DELETED_KEYS: i64 = 8;
/// Maximum number of jobs in one list.
const MAX_LISTED_JOBS: usize = 10_000;

#[async_trait]
impl JobRequestStore for SqlLedger {
    async fn create_job_with_request(
        &self,
        record: &JobRecord,
        request: &JobRequest,
        idempotency: Option<&IdempotencyKey>,
    ) -> Result<PutRequestOutcome, StorageError> {
        let (record, request, idempotency_key) = (record.clone(), request.clone(), idempotency.cloned());
        self.database
            .run_write_transaction(LockedTenants::one(&record.tenant), move |t| {
                try_insert_job_and_request(t, &record, &request, idempotency_key.as_ref())
            })
            .await
    }

    async fn find_request_by_idempotency_key(
        &self,
        tenant: &TenantId,
        idempotency_key: &str,
    ) -> Result<Option<EarlierIdempotentRequest>, StorageError> {
        let (tenant, idempotency_key) = (tenant.clone(), idempotency_key.to_owned());
        self.database
            .run_query(move |c| find_earlier_idempotent_request(c, &tenant, &idempotency_key))
            .await
    }

    async fn find_job_request(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Option<JobRequest>, StorageError> {
        let (tenant, job) = (tenant.clone(), *job);
        self.database
            .run_query(move |c| find_job_request(c, &tenant, &job))
            .await
    }

    async fn read_job_snapshot(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Option<JobSnapshot>, StorageError> {
        let (tenant, job, limit) = (
            tenant.clone(),
            *job,
            limit.min(job_and_document_rows::MAX_LISTED_EVENTS),
        );
        self.database
            .run_query(move |c| read_job_snapshot(c, &tenant, &job, after, limit))
            .await
    }

    async fn list_jobs(&self, tenant: &TenantId, filter: &JobFilter) -> Result<Vec<JobRecord>, StorageError> {
        let (tenant, mut filter) = (tenant.clone(), filter.clone());
        filter.limit = filter.limit.min(MAX_LISTED_JOBS);
        self.database
            .run_query(move |c| job_and_document_rows::list_jobs(c, &tenant, &filter))
            .await
    }

    async fn list_undelivered_webhooks(&self) -> Result<Vec<(TenantId, JobId, u32)>, StorageError> {
        self.database.run_query(list_undelivered_webhook_rows).await
    }

    async fn record_webhook_attempts_or_end(
        &self,
        tenant: &TenantId,
        job: &JobId,
        tries: Option<u32>,
    ) -> Result<(), StorageError> {
        let (tenant, job) = (tenant.clone(), *job);
        let removed = tries.is_none();
        self.database
            .run_write_transaction(LockedTenants::one(&tenant), move |t| {
                write_webhook_attempts_or_end(t, &tenant, &job, tries)
            })
            .await?;
        if removed {
            self.database.schedule_overwriting_of_removed_rows();
        }
        Ok(())
    }
}

fn try_insert_job_and_request(
    transaction: &SqlConnection<'_>,
    record: &JobRecord,
    request: &JobRequest,
    idempotency_key: Option<&IdempotencyKey>,
) -> SqlResult<PutRequestOutcome> {
    if let Some(idempotency_key) = idempotency_key
        && let Some(earlier) =
            find_earlier_idempotent_request(transaction, &request.tenant, &idempotency_key.key)?
    {
        return Ok(if earlier.request_digest == idempotency_key.request_digest {
            PutRequestOutcome::AlreadyCreated(earlier.job)
        } else {
            PutRequestOutcome::KeyConflict
        });
    }
    if let Some(document) = document_removals::find_requested_document_being_removed(transaction, request)? {
        return Ok(PutRequestOutcome::DocumentBeingRemoved(document));
    }
    if let Some(idempotency_key) = idempotency_key {
        insert_idempotency_key(transaction, record, idempotency_key)?;
    }
    for file in &request.files {
        document_removals::add_job_document(transaction, &request.tenant, &file.document, &request.job)?;
    }
    job_and_document_rows::write_job(transaction, record)?;
    transaction.execute(
        "INSERT INTO job_requests (tenant, job, request, webhook_attempts) VALUES (?1, ?2, ?3, ?4)",
        params![
            request.tenant.as_str(),
            request.job.to_string(),
            to_json(request)?,
            request.webhook.as_ref().map(|_| 0_i64),
        ],
    )?;
    Ok(PutRequestOutcome::Created)
}

fn find_earlier_idempotent_request(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    idempotency_key: &str,
) -> SqlResult<Option<EarlierIdempotentRequest>> {
    c.query_optional(
        "SELECT request_digest, job FROM idempotency_keys WHERE tenant = ?1 AND key = ?2",
        params![tenant.as_str(), idempotency_key],
        |row| {
            Ok(EarlierIdempotentRequest {
                request_digest: row.get(0)?,
                job: read_and_parse_text(row, 1)?,
            })
        },
    )
}

fn insert_idempotency_key(
    transaction: &SqlConnection<'_>,
    record: &JobRecord,
    idempotency_key: &IdempotencyKey,
) -> SqlResult<()> {
    transaction.execute("DELETE FROM idempotency_keys WHERE (tenant, key) IN
             (SELECT tenant, key FROM idempotency_keys WHERE created_millis < ?1 ORDER BY created_millis LIMIT ?2)", params![
            to_sql_integer(record.created_millis.saturating_sub(MIN_IDEMPOTENCY_KEY_MILLIS)),
            MAX_DELETED_KEYS,
        ])?;
    transaction.execute("INSERT INTO idempotency_keys (tenant, key, request_digest, job, created_millis) VALUES (?1, ?2, ?3, ?4, ?5)", params![
            record.tenant.as_str(),
            idempotency_key.key,
            idempotency_key.request_digest.as_slice(),
            record.id.to_string(),
            to_sql_integer(record.created_millis),
        ])
}

fn find_job_request(c: &SqlConnection<'_>, tenant: &TenantId, job: &JobId) -> SqlResult<Option<JobRequest>> {
    c.query_optional(
        "SELECT request FROM job_requests WHERE tenant = ?1 AND job = ?2",
        params![tenant.as_str(), job.to_string()],
        |row| read_json(row, 0),
    )
}

fn read_job_snapshot(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    job: &JobId,
    after: u64,
    limit: usize,
) -> SqlResult<Option<JobSnapshot>> {
    let Some(record) = job_and_document_rows::find_job(c, tenant, job)? else {
        return Ok(None);
    };
    let events = match limit {
        0 => Vec::new(),
        _ => job_and_document_rows::list_job_events(c, tenant, job, after, limit)?,
    };
    Ok(Some(JobSnapshot {
        record,
        request: find_job_request(c, tenant, job)?,
        assigned_revision: find_assignment_of_job(c, tenant, job)?,
        events,
    }))
}

/// Removes the passwords of a job's files. Returns whether there were any.
pub(super) fn remove_passwords(
    transaction: &SqlConnection<'_>,
    tenant: &TenantId,
    job: &JobId,
) -> SqlResult<bool> {
    let Some(mut request) = find_job_request(transaction, tenant, job)? else {
        return Ok(false);
    };
    let mut removed = false;
    for file in &mut request.files {
        removed |= file.password.take().is_some();
    }
    if removed {
        replace_job_request(transaction, &request)?;
    }
    Ok(removed)
}

fn write_webhook_attempts_or_end(
    transaction: &SqlConnection<'_>,
    tenant: &TenantId,
    job: &JobId,
    tries: Option<u32>,
) -> SqlResult<()> {
    transaction.execute(
        "UPDATE job_requests SET webhook_attempts = ?3
             WHERE tenant = ?1 AND job = ?2 AND webhook_attempts IS NOT NULL",
        params![tenant.as_str(), job.to_string(), tries],
    )?;
    match find_job_request(transaction, tenant, job)? {
        Some(request) if tries.is_none() => replace_job_request(
            transaction,
            &JobRequest {
                webhook: None,
                ..request
            },
        ),
        _ => Ok(()),
    }
}

fn replace_job_request(transaction: &SqlConnection<'_>, request: &JobRequest) -> SqlResult<()> {
    transaction.execute(
        "UPDATE job_requests SET request = ?3 WHERE tenant = ?1 AND job = ?2",
        params![
            request.tenant.as_str(),
            request.job.to_string(),
            to_json(request)?
        ],
    )
}

/// Lists the jobs with undelivered webhooks, each with its number of attempts. A webhook becomes due when its job ends, without a write
/// to its row.
fn list_undelivered_webhook_rows(c: &SqlConnection<'_>) -> SqlResult<Vec<(TenantId, JobId, u32)>> {
    c.query_rows(
        "SELECT r.tenant, r.job, r.webhook_attempts FROM job_requests r
         JOIN jobs ON jobs.tenant = r.tenant AND jobs.id = r.job
         WHERE r.webhook_attempts IS NOT NULL AND jobs.state NOT IN ('queued', 'running') ORDER BY r.job",
        &[],
        |row| {
            Ok((
                read_and_parse_text(row, 0)?,
                read_and_parse_text(row, 1)?,
                row.get(2)?,
            ))
        },
    )
}
