//! Rows of pipelines with their rollouts.

use weir_core::TenantId;
use weir_core::revision::PipelineRecord;
use weir_core::rollout::Rollout;

use crate::ledger::column_values::{read_json, to_json};
use crate::ledger::sql_connection::{SqlConnection, SqlResult, SqlRow};
use crate::ledger::sql_values::params;

const SELECT_PIPELINE: &str = "SELECT r.pipeline, r.rollout,
        (SELECT max(number) FROM revisions v WHERE v.tenant = r.tenant AND v.pipeline = r.pipeline)
    FROM rollouts r";

pub(super) fn list_pipelines(c: &SqlConnection<'_>, tenant: &TenantId) -> SqlResult<Vec<PipelineRecord>> {
    c.query_rows(
        &format!("{SELECT_PIPELINE} WHERE r.tenant = ?1 ORDER BY r.pipeline"),
        params![tenant.as_str()],
        pipeline_from_row,
    )
}

pub(super) fn find_pipeline(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    name: &str,
) -> SqlResult<Option<PipelineRecord>> {
    c.query_optional(
        &format!("{SELECT_PIPELINE} WHERE r.tenant = ?1 AND r.pipeline = ?2"),
        params![tenant.as_str(), name],
        pipeline_from_row,
    )
}

fn pipeline_from_row(row: &SqlRow<'_>) -> SqlResult<PipelineRecord> {
    Ok(PipelineRecord {
        name: row.get(0)?,
        rollout: read_json(row, 1)?,
        revision_count: row.get::<Option<u32>>(2)?.unwrap_or(0),
    })
}

pub(super) fn read_rollout(c: &SqlConnection<'_>, tenant: &TenantId, pipeline: &str) -> SqlResult<Rollout> {
    let read = c.query_optional(
        "SELECT rollout FROM rollouts WHERE tenant = ?1 AND pipeline = ?2",
        params![tenant.as_str(), pipeline],
        |row| read_json(row, 0),
    )?;
    Ok(read.unwrap_or_default())
}

pub(super) fn write_rollout(
    t: &SqlConnection<'_>,
    tenant: &TenantId,
    pipeline: &str,
    rollout: &Rollout,
) -> SqlResult<()> {
    t.execute(
        "INSERT INTO rollouts (tenant, pipeline, rollout) VALUES (?1, ?2, ?3)
         ON CONFLICT (tenant, pipeline) DO UPDATE SET rollout = ?3",
        params![tenant.as_str(), pipeline, to_json(rollout)?],
    )
}
