//! Rows of the components' state: small values for each tenant and pipeline.

use rusqlite::{Connection, OptionalExtension, Result, Transaction, params};
use weir_core::TenantId;
use weir_core::component_state_limits::{StateChange, StateSizes};
use weir_core::event::ErrorInfo;

pub(super) fn get_component_state_value(
    c: &Connection,
    tenant: &TenantId,
    pipeline: &str,
    key: &str,
) -> Result<Option<Vec<u8>>> {
    c.prepare_cached("SELECT value FROM component_state WHERE tenant = ?1 AND pipeline = ?2 AND key = ?3")?
        .query_row(params![tenant.as_str(), pipeline, key], |row| row.get(0))
        .optional()
}

pub(super) fn list_component_state_value_sizes(
    c: &Connection,
    tenant: &TenantId,
    pipeline: &str,
) -> Result<StateSizes> {
    c.prepare_cached("SELECT key, length(value) FROM component_state WHERE tenant = ?1 AND pipeline = ?2")?
        .query_map(params![tenant.as_str(), pipeline], |row| {
            Ok((row.get(0)?, row.get::<_, u32>(1)? as usize))
        })?
        .collect()
}

/// Applies all changes, or none if they would exceed a limit of the state.
pub(super) fn apply_component_state_changes(
    transaction: &Transaction<'_>,
    tenant: &TenantId,
    pipeline: &str,
    changes: &[StateChange],
) -> Result<std::result::Result<(), ErrorInfo>> {
    let mut sizes = list_component_state_value_sizes(transaction, tenant, pipeline)?;
    if let Err(refused) = sizes.check_and_apply_all_size_changes(changes) {
        return Ok(Err(refused));
    }
    for StateChange { key, value } in changes {
        match value {
            Some(value) => transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO component_state (tenant, pipeline, key, value) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![tenant.as_str(), pipeline, key, value])?,
            None => transaction
                .prepare_cached("DELETE FROM component_state WHERE tenant = ?1 AND pipeline = ?2 AND key = ?3")?
                .execute(params![tenant.as_str(), pipeline, key])?,
        };
    }
    Ok(Ok(()))
}
