//! Rows of shadow runs.

use async_trait::async_trait;
use weir_core::shadow::{MAX_SHADOW_RUNS, ShadowRun, ShadowStore};
use weir_core::{StorageError, TenantId};

use super::column_values::{read_and_parse_text, read_json, to_json, to_sql_integer};
use super::document_removals;
use super::job_and_document_rows::find_job;
use super::locked_tenants::LockedTenants;
use super::sql_connection::{SqlConnection, SqlResult, SqlRow};
use super::sql_ledger::SqlLedger;
use super::sql_values::params;

type StorageResult<T> = Result<T, StorageError>;

#[async_trait]
impl ShadowStore for SqlLedger {
    async fn put_shadow_run(&self, run: &ShadowRun) -> StorageResult<()> {
        let run = run.clone();
        self.database
            .run_write_transaction(LockedTenants::one(&run.tenant), move |t| put_shadow_run(t, &run))
            .await
    }

    async fn list_shadow_runs(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        revision: u32,
        since_millis: u64,
    ) -> StorageResult<Vec<ShadowRun>> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        self.database
            .run_query(move |c| list_shadow_runs(c, &tenant, &pipeline, revision, since_millis))
            .await
    }
}

fn put_shadow_run(t: &SqlConnection<'_>, run: &ShadowRun) -> SqlResult<()> {
    // A removed job leaves nothing behind, and a removed document no text.
    let job = find_job(t, &run.tenant, &run.job)?;
    if job.is_none() || document_removals::job_has_removed_document(t, &run.tenant, &run.job)? {
        return Ok(());
    }
    let (tenant, pipeline) = (run.tenant.as_str(), run.pipeline.as_str());
    t.execute(
        "INSERT INTO shadow_reports (tenant, pipeline, job, revision, at_millis, report)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (tenant, pipeline, job) DO UPDATE SET revision = ?4, at_millis = ?5, report = ?6",
        params![
            tenant,
            pipeline,
            run.job.to_string(),
            run.revision,
            to_sql_integer(run.compared_at_millis),
            to_json(&run.report)?,
        ],
    )?;
    // Job ids grow with time, so this keeps the latest runs.
    t.execute("DELETE FROM shadow_reports WHERE tenant = ?1 AND pipeline = ?2 AND job <
             (SELECT job FROM shadow_reports WHERE tenant = ?1 AND pipeline = ?2 ORDER BY job DESC LIMIT 1 OFFSET ?3)", params![tenant, pipeline, MAX_SHADOW_RUNS - 1])
}

fn list_shadow_runs(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    pipeline: &str,
    revision: u32,
    since_millis: u64,
) -> SqlResult<Vec<ShadowRun>> {
    c.query_rows(
        "SELECT tenant, pipeline, revision, job, at_millis, report FROM shadow_reports
         WHERE tenant = ?1 AND pipeline = ?2 AND revision = ?3 AND at_millis >= ?4 ORDER BY job DESC",
        params![tenant.as_str(), pipeline, revision, to_sql_integer(since_millis)],
        shadow_run_from_row,
    )
}

fn shadow_run_from_row(row: &SqlRow<'_>) -> SqlResult<ShadowRun> {
    Ok(ShadowRun {
        tenant: read_and_parse_text(row, 0)?,
        pipeline: row.get(1)?,
        revision: row.get(2)?,
        job: read_and_parse_text(row, 3)?,
        compared_at_millis: row.get(4)?,
        report: read_json(row, 5)?,
    })
}
