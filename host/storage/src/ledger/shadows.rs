//! What shadows would have decided, as rows.

use async_trait::async_trait;
use rusqlite::{Connection, Result, Row, Transaction, params};
use weir_core::shadow::{SHADOW_RUNS, ShadowBook, ShadowRun};
use weir_core::{StorageError, TenantId};

use super::columns::{from_json, integer, natural, parsed, to_json};
use super::{SqliteLedger, removals};

type Stored<T> = std::result::Result<T, StorageError>;

#[async_trait]
impl ShadowBook for SqliteLedger {
    async fn put_shadow_run(&self, run: &ShadowRun) -> Stored<()> {
        let run = run.clone();
        self.write(move |t| put(t, &run)).await
    }

    async fn shadow_runs(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        revision: u32,
        since_millis: u64,
    ) -> Stored<Vec<ShadowRun>> {
        let (tenant, pipeline) = (tenant.clone(), pipeline.to_owned());
        self.reader
            .read(move |c| runs(c, &tenant, &pipeline, revision, since_millis))
            .await
    }
}

fn put(t: &Transaction<'_>, run: &ShadowRun) -> Result<()> {
    if removals::has_lost_a_document(t, &run.tenant, &run.job)? {
        return Ok(());
    }
    let (tenant, pipeline) = (run.tenant.as_str(), run.pipeline.as_str());
    t.prepare_cached(
        "INSERT OR REPLACE INTO shadow_runs (tenant, pipeline, job, revision, at_millis, report)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        tenant,
        pipeline,
        run.job.to_string(),
        run.revision,
        integer(run.at_millis),
        to_json(&run.report)?,
    ])?;
    // Ids of jobs grow with time.
    t.prepare_cached(
        "DELETE FROM shadow_runs WHERE tenant = ?1 AND pipeline = ?2 AND job <
             (SELECT job FROM shadow_runs WHERE tenant = ?1 AND pipeline = ?2 ORDER BY job DESC LIMIT 1 OFFSET ?3)",
    )?
    .execute(params![tenant, pipeline, SHADOW_RUNS - 1])
    .map(drop)
}

fn runs(
    c: &Connection,
    tenant: &TenantId,
    pipeline: &str,
    revision: u32,
    since_millis: u64,
) -> Result<Vec<ShadowRun>> {
    c.prepare_cached(
        "SELECT tenant, pipeline, revision, job, at_millis, report FROM shadow_runs
         WHERE tenant = ?1 AND pipeline = ?2 AND revision = ?3 AND at_millis >= ?4 ORDER BY job DESC",
    )?
    .query_map(
        params![tenant.as_str(), pipeline, revision, integer(since_millis)],
        read,
    )?
    .collect()
}

fn read(row: &Row<'_>) -> Result<ShadowRun> {
    Ok(ShadowRun {
        tenant: parsed(row, 0)?,
        pipeline: row.get(1)?,
        revision: row.get(2)?,
        job: parsed(row, 3)?,
        at_millis: natural(row, 4)?,
        report: from_json(row, 5)?,
    })
}
