//! Rows of the components' state: small values for each tenant and pipeline.

use super::sql_connection::{SqlConnection, SqlResult};
use super::sql_values::params;
use weir_core::TenantId;
use weir_core::component_state_limits::{StateChange, StateSizes};
use weir_core::event::ErrorInfo;

pub(super) fn get_component_state_value(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    pipeline: &str,
    key: &str,
) -> SqlResult<Option<Vec<u8>>> {
    c.query_optional(
        "SELECT value FROM component_state WHERE tenant = ?1 AND pipeline = ?2 AND key = ?3",
        params![tenant.as_str(), pipeline, key],
        |row| row.get(0),
    )
}

pub(super) fn list_component_state_value_sizes(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    pipeline: &str,
) -> SqlResult<StateSizes> {
    let sizes = c.query_rows(
        "SELECT key, length(value) FROM component_state WHERE tenant = ?1 AND pipeline = ?2",
        params![tenant.as_str(), pipeline],
        |row| Ok((row.get::<String>(0)?, row.get::<u32>(1)? as usize)),
    )?;
    Ok(sizes.into_iter().collect())
}

/// Applies all changes, or none if they would exceed a limit of the state.
pub(super) fn apply_component_state_changes(
    transaction: &SqlConnection<'_>,
    tenant: &TenantId,
    pipeline: &str,
    changes: &[StateChange],
) -> SqlResult<Result<(), ErrorInfo>> {
    let mut sizes = list_component_state_value_sizes(transaction, tenant, pipeline)?;
    if let Err(refused) = sizes.check_and_apply_all_size_changes(changes) {
        return Ok(Err(refused));
    }
    for StateChange { key, value } in changes {
        match value {
            Some(value) => transaction.execute(
                "INSERT INTO component_state (tenant, pipeline, key, value) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (tenant, pipeline, key) DO UPDATE SET value = ?4",
                params![tenant.as_str(), pipeline, key, value],
            )?,
            None => transaction.execute(
                "DELETE FROM component_state WHERE tenant = ?1 AND pipeline = ?2 AND key = ?3",
                params![tenant.as_str(), pipeline, key],
            )?,
        };
    }
    Ok(Ok(()))
}
