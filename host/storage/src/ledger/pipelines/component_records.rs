//! Rows of components.

use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, params};
use weir_core::TenantId;
use weir_core::component::{ComponentDigest, ComponentRecord};

use crate::ledger::column_values::{read_and_parse_text, read_json, read_u64, to_json, to_sql_integer};

pub(super) fn write_component(t: &Transaction<'_>, record: &ComponentRecord) -> Result<()> {
    t.prepare_cached(
        "INSERT INTO components (tenant, digest, name, bytes, interface, created_millis, api_key_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET name = ?3",
    )?
    .execute(params![
        record.tenant.as_str(),
        record.digest.0.as_slice(),
        record.name,
        to_sql_integer(record.bytes),
        to_json(&record.interface)?,
        to_sql_integer(record.created_millis),
        record.pushed_by_key,
    ])
    .map(drop)
}

const SELECT_COMPONENT: &str =
    "SELECT tenant, digest, name, bytes, interface, created_millis, api_key_id FROM components";

pub(super) fn find_component(
    c: &Connection,
    tenant: &TenantId,
    digest: &ComponentDigest,
) -> Result<Option<ComponentRecord>> {
    c.prepare_cached(&format!("{SELECT_COMPONENT} WHERE tenant = ?1 AND digest = ?2"))?
        .query_row(params![tenant.as_str(), digest.0.as_slice()], component_from_row)
        .optional()
}

pub(super) fn list_components(c: &Connection, tenant: &TenantId) -> Result<Vec<ComponentRecord>> {
    c.prepare_cached(&format!(
        "{SELECT_COMPONENT} WHERE tenant = ?1 ORDER BY created_millis DESC, digest"
    ))?
    .query_map([tenant.as_str()], component_from_row)?
    .collect()
}

fn component_from_row(row: &Row<'_>) -> Result<ComponentRecord> {
    Ok(ComponentRecord {
        tenant: read_and_parse_text(row, 0)?,
        digest: ComponentDigest(row.get(1)?),
        name: row.get(2)?,
        bytes: read_u64(row, 3)?,
        interface: read_json(row, 4)?,
        created_millis: read_u64(row, 5)?,
        pushed_by_key: row.get(6)?,
    })
}

pub(super) fn delete_component_if_unused(
    t: &Transaction<'_>,
    tenant: &TenantId,
    digest: &ComponentDigest,
) -> Result<std::result::Result<bool, (String, u32)>> {
    // A digest appears in a spec only as this text.
    let using_revision = t
        .prepare_cached(
            "SELECT pipeline, number FROM revisions WHERE tenant = ?1 AND instr(spec, ?2) > 0
             ORDER BY pipeline, number LIMIT 1",
        )?
        .query_row(params![tenant.as_str(), digest.to_string()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    if let Some(user) = using_revision {
        return Ok(Err(user));
    }
    let deleted = t
        .prepare_cached("DELETE FROM components WHERE tenant = ?1 AND digest = ?2")?
        .execute(params![tenant.as_str(), digest.0.as_slice()])?;
    Ok(Ok(deleted > 0))
}
