//! Rows of pipelines with their rollouts.

use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, params};
use weir_core::TenantId;
use weir_core::revision::PipelineRecord;
use weir_core::rollout::Rollout;

use crate::ledger::column_values::{read_json, to_json};

const SELECT_PIPELINE: &str = "SELECT r.pipeline, r.rollout,
        (SELECT max(number) FROM revisions v WHERE v.tenant = r.tenant AND v.pipeline = r.pipeline)
    FROM rollouts r";

pub(super) fn list_pipelines(c: &Connection, tenant: &TenantId) -> Result<Vec<PipelineRecord>> {
    c.prepare_cached(&format!(
        "{SELECT_PIPELINE} WHERE r.tenant = ?1 ORDER BY r.pipeline"
    ))?
    .query_map([tenant.as_str()], pipeline_from_row)?
    .collect()
}

pub(super) fn find_pipeline(c: &Connection, tenant: &TenantId, name: &str) -> Result<Option<PipelineRecord>> {
    c.prepare_cached(&format!(
        "{SELECT_PIPELINE} WHERE r.tenant = ?1 AND r.pipeline = ?2"
    ))?
    .query_row(params![tenant.as_str(), name], pipeline_from_row)
    .optional()
}

fn pipeline_from_row(row: &Row<'_>) -> Result<PipelineRecord> {
    Ok(PipelineRecord {
        name: row.get(0)?,
        rollout: read_json(row, 1)?,
        revision_count: row.get::<_, Option<u32>>(2)?.unwrap_or(0),
    })
}

pub(super) fn read_rollout(c: &Connection, tenant: &TenantId, pipeline: &str) -> Result<Rollout> {
    let read = c
        .prepare_cached("SELECT rollout FROM rollouts WHERE tenant = ?1 AND pipeline = ?2")?
        .query_row(params![tenant.as_str(), pipeline], |row| read_json(row, 0))
        .optional()?;
    Ok(read.unwrap_or_default())
}

pub(super) fn write_rollout(
    t: &Transaction<'_>,
    tenant: &TenantId,
    pipeline: &str,
    rollout: &Rollout,
) -> Result<()> {
    t.prepare_cached("INSERT OR REPLACE INTO rollouts (tenant, pipeline, rollout) VALUES (?1, ?2, ?3)")?
        .execute(params![tenant.as_str(), pipeline, to_json(rollout)?])
        .map(drop)
}
