//! Components as rows.

use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, params};
use weir_core::TenantId;
use weir_core::component::{ComponentDigest, ComponentRecord};

use crate::ledger::columns::{from_json, integer, natural, parsed, to_json};

pub(super) fn put_component(t: &Transaction<'_>, record: &ComponentRecord) -> Result<()> {
    t.prepare_cached(
        "INSERT INTO components (tenant, digest, name, bytes, facts, created_millis, key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET name = ?3",
    )?
    .execute(params![
        record.tenant.as_str(),
        record.digest.0.as_slice(),
        record.name,
        integer(record.bytes),
        to_json(&record.facts)?,
        integer(record.created_millis),
        record.by,
    ])
    .map(drop)
}

const COMPONENT: &str = "SELECT tenant, digest, name, bytes, facts, created_millis, key FROM components";

pub(super) fn component(
    c: &Connection,
    tenant: &TenantId,
    digest: &ComponentDigest,
) -> Result<Option<ComponentRecord>> {
    c.prepare_cached(&format!("{COMPONENT} WHERE tenant = ?1 AND digest = ?2"))?
        .query_row(params![tenant.as_str(), digest.0.as_slice()], read_component)
        .optional()
}

pub(super) fn components(c: &Connection, tenant: &TenantId) -> Result<Vec<ComponentRecord>> {
    c.prepare_cached(&format!(
        "{COMPONENT} WHERE tenant = ?1 ORDER BY created_millis DESC, digest"
    ))?
    .query_map([tenant.as_str()], read_component)?
    .collect()
}

fn read_component(row: &Row<'_>) -> Result<ComponentRecord> {
    Ok(ComponentRecord {
        tenant: parsed(row, 0)?,
        digest: ComponentDigest(row.get(1)?),
        name: row.get(2)?,
        bytes: natural(row, 3)?,
        facts: from_json(row, 4)?,
        created_millis: natural(row, 5)?,
        by: row.get(6)?,
    })
}

pub(super) fn forget_component(
    t: &Transaction<'_>,
    tenant: &TenantId,
    digest: &ComponentDigest,
) -> Result<std::result::Result<bool, (String, u32)>> {
    // A digest is in a recipe as text and as nothing else.
    let user = t
        .prepare_cached(
            "SELECT pipeline, number FROM revisions WHERE tenant = ?1 AND instr(recipe, ?2) > 0
             ORDER BY pipeline, number LIMIT 1",
        )?
        .query_row(params![tenant.as_str(), digest.to_string()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    if let Some(user) = user {
        return Ok(Err(user));
    }
    let gone = t
        .prepare_cached("DELETE FROM components WHERE tenant = ?1 AND digest = ?2")?
        .execute(params![tenant.as_str(), digest.0.as_slice()])?;
    Ok(Ok(gone > 0))
}
