//! Rows of components.

use weir_core::TenantId;
use weir_core::component::{ComponentDigest, ComponentRecord};

use crate::ledger::column_values::{read_and_parse_text, read_json, to_json, to_sql_integer};
use crate::ledger::sql_connection::{SqlConnection, SqlResult, SqlRow};
use crate::ledger::sql_values::params;

pub(super) fn write_component(t: &SqlConnection<'_>, record: &ComponentRecord) -> SqlResult<()> {
    t.execute(
        "INSERT INTO components (tenant, digest, name, bytes, interface, created_millis, api_key_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (tenant, digest) DO UPDATE SET name = ?3",
        params![
            record.tenant.as_str(),
            record.digest.0.as_slice(),
            record.name,
            to_sql_integer(record.bytes),
            to_json(&record.interface)?,
            to_sql_integer(record.created_millis),
            record.pushed_by_key,
        ],
    )
}

const SELECT_COMPONENT: &str =
    "SELECT tenant, digest, name, bytes, interface, created_millis, api_key_id FROM components";

pub(super) fn find_component(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    digest: &ComponentDigest,
) -> SqlResult<Option<ComponentRecord>> {
    c.query_optional(
        &format!("{SELECT_COMPONENT} WHERE tenant = ?1 AND digest = ?2"),
        params![tenant.as_str(), digest.0.as_slice()],
        component_from_row,
    )
}

pub(super) fn list_components(c: &SqlConnection<'_>, tenant: &TenantId) -> SqlResult<Vec<ComponentRecord>> {
    c.query_rows(
        &format!("{SELECT_COMPONENT} WHERE tenant = ?1 ORDER BY created_millis DESC, digest"),
        params![tenant.as_str()],
        component_from_row,
    )
}

fn component_from_row(row: &SqlRow<'_>) -> SqlResult<ComponentRecord> {
    Ok(ComponentRecord {
        tenant: read_and_parse_text(row, 0)?,
        digest: ComponentDigest(row.get(1)?),
        name: row.get(2)?,
        bytes: row.get(3)?,
        interface: read_json(row, 4)?,
        created_millis: row.get(5)?,
        pushed_by_key: row.get(6)?,
    })
}

pub(super) fn delete_component_if_unused(
    t: &SqlConnection<'_>,
    tenant: &TenantId,
    digest: &ComponentDigest,
) -> SqlResult<Result<bool, (String, u32)>> {
    // A digest appears in a spec only as this text.
    let using_revision = t.query_optional(
        "SELECT pipeline, number FROM revisions WHERE tenant = ?1 AND spec LIKE '%' || ?2 || '%'
             ORDER BY pipeline, number LIMIT 1",
        params![tenant.as_str(), digest.to_string()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if let Some(user) = using_revision {
        return Ok(Err(user));
    }
    let deleted = t.execute_and_count_rows(
        "DELETE FROM components WHERE tenant = ?1 AND digest = ?2",
        params![tenant.as_str(), digest.0.as_slice()],
    )?;
    Ok(Ok(deleted > 0))
}
