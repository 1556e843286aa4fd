//! Removal of expired records.
//!
//! Each transaction removes a limited number of rows, so that other writes wait for milliseconds only.

use async_trait::async_trait;
use weir_core::retention::{RecordKind, RetentionStore};
use weir_core::revision::PipelineAuditRecord;
use weir_core::{DocumentId, JobId, StorageError, TenantId};

use super::column_values::{read_and_parse_text, read_json, to_sql_integer, to_sql_limit};
use super::locked_tenants::LockedTenants;
use super::sql_connection::{SqlConnection, SqlResult};
use super::sql_ledger::SqlLedger;
use super::sql_values::{ToSqlValue as _, params};

/// Tables that can have many rows of one job.
const LARGE_TABLES_OF_JOBS: [&str; 2] = ["events", "component_log"];
/// The other tables whose rows belong to one job.
/// Assignments to revisions stay, because a canary is judged by them. They have a limit of their own.
///
/// Each with a column of its primary key.
pub(super) const SMALL_TABLES_OF_JOBS: [(&str, &str); 4] = [
    ("job_requests", "job"),
    ("shadow_reports", "pipeline"),
    ("job_documents", "document"),
    ("idempotency_keys", "key"),
];
/// Rows of large tables that one transaction removes.
const ROWS_PER_TRANSACTION: u64 = 1000;
/// The index of ended jobs has this condition.
const JOB_HAS_ENDED: &str = "state NOT IN ('queued', 'running')";
/// The index of ended jobs has this expression.
const JOB_END: &str = "coalesce(ended_millis, created_millis)";
/// A webhook that has to be sent needs its job.
const JOB_HAS_EXPIRED: &str = "state NOT IN ('queued', 'running') AND coalesce(ended_millis, created_millis) < ?2
     AND NOT EXISTS (SELECT 1 FROM job_requests AS request
         WHERE request.tenant = jobs.tenant AND request.job = jobs.id AND request.webhook_attempts IS NOT NULL)";
const KEY_HAS_EXPIRED: &str = "(revoked_millis < ?2 OR expires_millis < ?2)";
/// Entries of an audit log that one statement reads. Often the first has not expired.
const AUDIT_ENTRIES_PER_READ: u32 = 50;
const MILLIS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

#[async_trait]
impl RetentionStore for SqlLedger {
    async fn count_expired_records(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        before: u64,
    ) -> Result<u64, StorageError> {
        let tenant = tenant.clone();
        self.database
            .run_query(move |c| count_expired_records(c, &tenant, kind, before))
            .await
    }

    async fn list_expired_jobs(
        &self,
        tenant: &TenantId,
        before: u64,
        limit: u32,
    ) -> Result<Vec<JobId>, StorageError> {
        let tenant = tenant.clone();
        self.database
            .run_query(move |c| {
                c.query_rows(
                    &format!(
                        "SELECT id FROM jobs WHERE tenant = ?1 AND {JOB_HAS_EXPIRED} ORDER BY {JOB_END}, id LIMIT ?3"
                    ),
                    params![tenant.as_str(), to_sql_integer(before), limit],
                    |row| read_and_parse_text(row, 0),
                )
            })
            .await
    }

    async fn list_unread_documents_of_jobs(
        &self,
        tenant: &TenantId,
        jobs: &[JobId],
    ) -> Result<Vec<DocumentId>, StorageError> {
        let (tenant, jobs) = (tenant.clone(), jobs.to_vec());
        self.database
            .run_query(move |c| list_unread_documents_of_jobs(c, &tenant, &jobs))
            .await
    }

    async fn remove_ended_jobs(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<u64, StorageError> {
        let (mut removed, mut rest) = (0, jobs.to_vec());
        while !rest.is_empty() {
            let locked_tenant = tenant.clone();
            let batch = self
                .database
                .run_write_transaction(LockedTenants::one(tenant), move |t| {
                    remove_ended_jobs(t, &locked_tenant, rest)
                })
                .await?;
            removed += batch.removed;
            rest = batch.rest;
        }
        self.database.schedule_overwriting_of_removed_rows();
        Ok(removed)
    }

    async fn remove_expired_records(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        before: u64,
        limit: u32,
    ) -> Result<u64, StorageError> {
        let locked_tenant = tenant.clone();
        self.database
            .run_write_transaction(LockedTenants::one(tenant), move |t| {
                remove_expired_records(t, &locked_tenant, kind, before, limit)
            })
            .await
    }
}

/// What one transaction has done.
struct RemovedJobs {
    removed: u64,
    /// The jobs for the next transaction.
    rest: Vec<JobId>,
}

/// Removes ended jobs until about [`ROWS_PER_TRANSACTION`] rows are removed. The first of the jobs that are left may have lost some of its
/// rows.
fn remove_ended_jobs(
    t: &SqlConnection<'_>,
    tenant: &TenantId,
    mut jobs: Vec<JobId>,
) -> SqlResult<RemovedJobs> {
    let (mut removed, mut removed_rows, mut done) = (0, 0, 0);
    for job in &jobs {
        if has_ended(t, tenant, job)? {
            for table in LARGE_TABLES_OF_JOBS {
                let limit = ROWS_PER_TRANSACTION.saturating_sub(removed_rows);
                removed_rows += remove_some_rows_of_job(t, tenant, job, table, limit)?;
            }
            if removed_rows >= ROWS_PER_TRANSACTION {
                break;
            }
            removed += remove_job_and_small_rows(t, tenant, job)?;
        }
        done += 1;
    }
    Ok(RemovedJobs {
        removed,
        rest: jobs.split_off(done),
    })
}

fn remove_some_rows_of_job(
    t: &SqlConnection<'_>,
    tenant: &TenantId,
    job: &JobId,
    table: &str,
    limit: u64,
) -> SqlResult<u64> {
    t.execute_and_count_rows(
        &format!(
            "DELETE FROM {table} WHERE tenant = ?1 AND job = ?2 AND seq IN
             (SELECT seq FROM {table} WHERE tenant = ?1 AND job = ?2 ORDER BY seq LIMIT ?3)"
        ),
        params![tenant.as_str(), job.to_string(), to_sql_integer(limit)],
    )
}

fn has_ended(t: &SqlConnection<'_>, tenant: &TenantId, job: &JobId) -> SqlResult<bool> {
    let sql = format!("SELECT 1 FROM jobs WHERE tenant = ?1 AND id = ?2 AND {JOB_HAS_ENDED}");
    let row = t.query_optional(&sql, params![tenant.as_str(), job.to_string()], |_| Ok(()))?;
    Ok(row.is_some())
}

fn remove_job_and_small_rows(t: &SqlConnection<'_>, tenant: &TenantId, job: &JobId) -> SqlResult<u64> {
    let job = job.to_string();
    let row = &[tenant.as_str().to_sql_value(), job.to_sql_value()];
    for (table, key_column) in SMALL_TABLES_OF_JOBS {
        t.execute(&delete_rows_of_job_sql(table, key_column), row)?;
    }
    t.execute_and_count_rows("DELETE FROM jobs WHERE tenant = ?1 AND id = ?2", row)
}

/// Returns a statement that deletes the rows of tenant `?1` and job `?2`. SQLite finds rows to delete by the primary key only, and would read
/// all rows of the tenant if the key did not say which.
pub(super) fn delete_rows_of_job_sql(table: &str, key_column: &str) -> String {
    format!(
        "DELETE FROM {table} WHERE tenant = ?1 AND job = ?2
         AND {key_column} IN (SELECT {key_column} FROM {table} WHERE tenant = ?1 AND job = ?2)"
    )
}

fn list_unread_documents_of_jobs(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    jobs: &[JobId],
) -> SqlResult<Vec<DocumentId>> {
    let mut unread = Vec::new();
    for job in jobs {
        let of_job: Vec<DocumentId> = c.query_rows(
            "SELECT document FROM job_documents WHERE tenant = ?1 AND job = ?2
             AND NOT EXISTS (SELECT 1 FROM documents
                 WHERE documents.tenant = job_documents.tenant AND documents.id = job_documents.document)",
            params![tenant.as_str(), job.to_string()],
            |row| read_and_parse_text(row, 0),
        )?;
        for document in of_job {
            // One more than the given jobs is enough to find another.
            let with_document: Vec<JobId> = c.query_rows(
                "SELECT job FROM job_documents WHERE tenant = ?1 AND document = ?2 LIMIT ?3",
                params![
                    tenant.as_str(),
                    document.to_string(),
                    to_sql_limit(jobs.len().saturating_add(1))
                ],
                |row| read_and_parse_text(row, 0),
            )?;
            if with_document.iter().all(|other| jobs.contains(other)) && !unread.contains(&document) {
                unread.push(document);
            }
        }
    }
    Ok(unread)
}

fn count_expired_records(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    kind: RecordKind,
    before: u64,
) -> SqlResult<u64> {
    match kind {
        RecordKind::AuditLog => {
            let expired = list_expired_audit_entries(c, tenant, before, u32::MAX)?;
            Ok(expired.iter().map(|of_pipeline| of_pipeline.count).sum())
        }
        RecordKind::EndedJobs => count_rows(c, tenant, "jobs", JOB_HAS_EXPIRED, before),
        RecordKind::Usage => count_rows(c, tenant, "daily_usage", "day < ?2", before / MILLIS_PER_DAY),
        RecordKind::RevokedKeys => count_rows(c, tenant, "api_keys", KEY_HAS_EXPIRED, before),
    }
}

fn count_rows(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    table: &str,
    condition: &str,
    before: u64,
) -> SqlResult<u64> {
    c.query_one(
        &format!("SELECT count(*) FROM {table} WHERE tenant = ?1 AND {condition}"),
        params![tenant.as_str(), to_sql_integer(before)],
        |row| row.get(0),
    )
}

fn remove_expired_records(
    t: &SqlConnection<'_>,
    tenant: &TenantId,
    kind: RecordKind,
    before: u64,
    limit: u32,
) -> SqlResult<u64> {
    let remove = |table: &str, key: &str, condition: &str, before: u64| {
        t.execute_and_count_rows(
            &format!(
                "DELETE FROM {table} WHERE tenant = ?1 AND {key} IN
                 (SELECT {key} FROM {table} WHERE tenant = ?1 AND {condition} LIMIT ?3)"
            ),
            params![tenant.as_str(), to_sql_integer(before), limit],
        )
    };
    match kind {
        // Jobs have rows in other tables, and recordings.
        RecordKind::EndedJobs => Ok(0),
        RecordKind::Usage => remove("daily_usage", "day", "day < ?2", before / MILLIS_PER_DAY),
        RecordKind::RevokedKeys => remove("api_keys", "id", KEY_HAS_EXPIRED, before),
        RecordKind::AuditLog => {
            let mut removed = 0;
            for expired in list_expired_audit_entries(t, tenant, before, limit)? {
                removed += t.execute_and_count_rows(
                    "DELETE FROM pipeline_audit_log WHERE tenant = ?1 AND pipeline = ?2 AND seq <= ?3",
                    params![
                        tenant.as_str(),
                        expired.pipeline,
                        to_sql_integer(expired.last_seq)
                    ],
                )?;
            }
            Ok(removed)
        }
    }
}

/// The oldest entries of a pipeline's audit log.
struct ExpiredAuditEntries {
    pipeline: String,
    count: u64,
    last_seq: u64,
}

/// Finds the entries that are older than `before`, at most `limit` of each pipeline. The last entry of a pipeline stays, because the next
/// one continues its number.
fn list_expired_audit_entries(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    before: u64,
    limit: u32,
) -> SqlResult<Vec<ExpiredAuditEntries>> {
    let last_entries = c.query_rows(
        "SELECT pipeline, max(seq) FROM pipeline_audit_log WHERE tenant = ?1 GROUP BY pipeline",
        params![tenant.as_str()],
        |row| Ok((row.get::<String>(0)?, row.get::<u64>(1)?)),
    )?;
    let mut all_expired = Vec::new();
    for (pipeline, last_seq) in last_entries {
        let mut expired = ExpiredAuditEntries {
            pipeline,
            count: 0,
            last_seq: 0,
        };
        loop {
            let max_read = u64::from(AUDIT_ENTRIES_PER_READ).min(u64::from(limit) - expired.count);
            let entries: Vec<PipelineAuditRecord> = c.query_rows(
                "SELECT entry FROM pipeline_audit_log WHERE tenant = ?1 AND pipeline = ?2 AND seq > ?3 AND seq < ?4
                 ORDER BY seq LIMIT ?5",
                params![
                    tenant.as_str(),
                    expired.pipeline,
                    to_sql_integer(expired.last_seq),
                    to_sql_integer(last_seq),
                    to_sql_integer(max_read)
                ],
                |row| read_json(row, 0),
            )?;
            let mut old = 0;
            for entry in entries.iter().take_while(|entry| entry.at_millis < before) {
                (old, expired.last_seq) = (old + 1, entry.seq);
            }
            expired.count += old;
            if old < max_read || expired.count >= u64::from(limit) {
                break;
            }
        }
        if expired.count > 0 {
            all_expired.push(expired);
        }
    }
    Ok(all_expired)
}
