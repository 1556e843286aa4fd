//! What components remember: small values for each tenant and pipeline, within quotas.

use rusqlite::{Connection, OptionalExtension, Result, Transaction, params};
use weir_core::TenantId;
use weir_core::event::ErrorNote;

const MAX_KEYS: i64 = 1000;
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 64 << 10;
const MAX_TOTAL: i64 = 1 << 20;

/// Whether a key and a value are within what one may be.
pub(super) fn check(key: &str, value: &[u8]) -> std::result::Result<(), ErrorNote> {
    if key.len() > MAX_KEY {
        Err(exhausted(format!(
            "a key has {} bytes, more than {MAX_KEY}",
            key.len()
        )))
    } else if value.len() > MAX_VALUE {
        Err(exhausted(format!(
            "a value has {} bytes, more than {MAX_VALUE}",
            value.len()
        )))
    } else {
        Ok(())
    }
}

pub(super) fn get(c: &Connection, tenant: &TenantId, pipeline: &str, key: &str) -> Result<Option<Vec<u8>>> {
    c.prepare_cached("SELECT value FROM policy_state WHERE tenant = ?1 AND pipeline = ?2 AND key = ?3")?
        .query_row(params![tenant.as_str(), pipeline, key], |row| row.get(0))
        .optional()
}

/// Sets a value, or says why all of them together would be too much.
pub(super) fn set(
    transaction: &Transaction<'_>,
    tenant: &TenantId,
    pipeline: &str,
    key: &str,
    value: &[u8],
) -> Result<std::result::Result<(), ErrorNote>> {
    let (keys, bytes): (i64, i64) = transaction
        .prepare_cached(
            "SELECT count(*), coalesce(sum(length(CAST(key AS BLOB)) + length(value)), 0) FROM policy_state
             WHERE tenant = ?1 AND pipeline = ?2 AND key <> ?3",
        )?
        .query_row(params![tenant.as_str(), pipeline, key], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let added = i64::try_from(key.len() + value.len()).unwrap_or(i64::MAX);
    if keys >= MAX_KEYS {
        return Ok(Err(exhausted(format!("there are {MAX_KEYS} keys already"))));
    }
    if bytes.saturating_add(added) > MAX_TOTAL {
        return Ok(Err(exhausted(format!(
            "all values together would pass {MAX_TOTAL} bytes"
        ))));
    }
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO policy_state (tenant, pipeline, key, value) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![tenant.as_str(), pipeline, key, value])?;
    Ok(Ok(()))
}

pub(super) fn delete(
    transaction: &Transaction<'_>,
    tenant: &TenantId,
    pipeline: &str,
    key: &str,
) -> Result<()> {
    transaction
        .prepare_cached("DELETE FROM policy_state WHERE tenant = ?1 AND pipeline = ?2 AND key = ?3")?
        .execute(params![tenant.as_str(), pipeline, key])
        .map(drop)
}

fn exhausted(message: String) -> ErrorNote {
    ErrorNote {
        kind: "exhausted".into(),
        message: format!("{message}: delete some"),
    }
}
