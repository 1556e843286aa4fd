//! Rows of the bytes that tenants store.

use rusqlite::{Result, Transaction, params};
use weir_core::TenantId;

use super::column_values::{read_parsed, read_u64, to_sql_integer};

/// Returns each tenant's saved bytes and whether they are exact. Marks all of them as not exact, because files may change from now on.
pub(super) fn load_storage_usage(transaction: &Transaction<'_>) -> Result<Vec<(TenantId, u64, bool)>> {
    let kept = transaction
        .prepare("SELECT tenant, bytes, exact FROM storage_usage")?
        .query_map([], |row| {
            Ok((read_parsed(row, 0)?, read_u64(row, 1)?, row.get(2)?))
        })?
        .collect::<Result<Vec<_>>>()?;
    transaction.execute("UPDATE storage_usage SET exact = FALSE WHERE exact", [])?;
    Ok(kept)
}

pub(super) fn write_storage_usage(
    transaction: &Transaction<'_>,
    tenant: &TenantId,
    bytes: u64,
    exact: bool,
) -> Result<()> {
    if bytes == 0 {
        // Do not write a row of a removed tenant.
        return transaction
            .prepare_cached("DELETE FROM storage_usage WHERE tenant = ?1")?
            .execute([tenant.as_str()])
            .map(drop);
    }
    transaction
        .prepare_cached("INSERT OR REPLACE INTO storage_usage (tenant, bytes, exact) VALUES (?1, ?2, ?3)")?
        .execute(params![tenant.as_str(), to_sql_integer(bytes), exact])
        .map(drop)
}
