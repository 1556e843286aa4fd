//! Rows of tenants and API keys, and the removal of all rows of a tenant.

use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, params};
use weir_core::tenancy::{ApiKeyRecord, Tenant, TenantState, TenantUpdate};
use weir_core::{StorageError, TenantId};

use super::column_values::{
    invalid_value_error, read_and_parse_text, read_json, read_optional_u64, read_u64, to_json, to_sql_integer,
};

/// Tables that may have many rows of a tenant, each with a column that distinguishes its rows.
const LARGE_TABLES: [(&str, &str); 9] = [
    ("events", "position"),
    ("pages", "rowid"),
    ("documents", "rowid"),
    ("job_requests", "rowid"),
    ("jobs", "rowid"),
    ("idempotency_keys", "key"),
    ("revision_assignments", "job"),
    ("job_documents", "document"),
    ("stored_path_sizes", "path"),
];
/// Tables that have few rows of a tenant.
const SMALL_TABLES: [&str; 11] = [
    "api_keys",
    "component_state",
    "daily_usage",
    "storage_usage",
    "components",
    "revisions",
    "rollouts",
    "pipeline_audit_log",
    "component_log",
    "shadow_reports",
    "unfinished_document_removals",
];

pub(super) fn create_tenant(transaction: &Transaction<'_>, tenant: &Tenant) -> Result<bool> {
    let created = transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO tenants (id, state, weight, quotas, created_millis) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            tenant.id.as_str(),
            tenant_state_name(tenant.state),
            tenant.weight,
            to_json(&tenant.quotas)?,
            to_sql_integer(tenant.created_millis),
        ])?;
    Ok(created > 0)
}

/// Changes a tenant and returns the result. The transaction has the write lock before it reads, so no other change comes in between.
pub(super) fn update_tenant(
    transaction: &Transaction<'_>,
    id: &TenantId,
    change: &TenantUpdate,
) -> Result<Option<Tenant>> {
    let Some(mut changed) = find_tenant(transaction, id)? else {
        return Ok(None);
    };
    change.apply_to_tenant(&mut changed);
    transaction
        .prepare_cached("UPDATE tenants SET state = ?2, weight = ?3, quotas = ?4 WHERE id = ?1")?
        .execute(params![
            id.as_str(),
            tenant_state_name(changed.state),
            changed.weight,
            to_json(&changed.quotas)?,
        ])?;
    Ok(Some(changed))
}

const SELECT_TENANT: &str = "SELECT id, state, weight, quotas, created_millis FROM tenants";

pub(super) fn find_tenant(c: &Connection, id: &TenantId) -> Result<Option<Tenant>> {
    c.prepare_cached(&format!("{SELECT_TENANT} WHERE id = ?1"))?
        .query_row([id.as_str()], tenant_from_row)
        .optional()
}

pub(super) fn list_tenants(c: &Connection) -> Result<Vec<Tenant>> {
    c.prepare_cached(&format!("{SELECT_TENANT} ORDER BY id"))?
        .query_map([], tenant_from_row)?
        .collect()
}

fn tenant_from_row(row: &Row<'_>) -> Result<Tenant> {
    Ok(Tenant {
        id: read_and_parse_text(row, 0)?,
        state: tenant_state_from_row(row, 1)?,
        weight: row.get(2)?,
        quotas: read_json(row, 3)?,
        created_millis: read_u64(row, 4)?,
    })
}

/// Writes an API key. Fails if its tenant does not exist or if another tenant has a key of this id.
pub(super) fn write_api_key(
    transaction: &Transaction<'_>,
    key: &ApiKeyRecord,
) -> Result<std::result::Result<(), StorageError>> {
    // A key without a tenant would be valid for the next tenant of that name.
    if find_tenant(transaction, &key.tenant)?.is_none() {
        return Ok(Err(StorageError::NotFound {
            what: format!("tenant {}", key.tenant),
        }));
    }
    let written = transaction
        .prepare_cached(
            "INSERT INTO api_keys (id, tenant, scopes, secret_digest, label, created_millis, expires_millis, revoked_millis)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT DO UPDATE SET scopes = ?3, secret_digest = ?4, label = ?5, created_millis = ?6, expires_millis = ?7,
                 revoked_millis = ?8 WHERE tenant = ?2",
        )?
        .execute(params![
            key.id,
            key.tenant.as_str(),
            to_json(&key.scopes)?,
            key.secret_digest.as_slice(),
            key.display_name,
            to_sql_integer(key.created_millis),
            key.expires_millis.map(to_sql_integer),
            key.revoked_millis.map(to_sql_integer),
        ])?;
    Ok(if written == 0 {
        Err(StorageError::Failed {
            what: format!("key {}", key.id),
            reason: "another tenant has a key of this id: create a key with a new id".into(),
        })
    } else {
        Ok(())
    })
}

pub(super) fn revoke_api_key(transaction: &Transaction<'_>, id: &str, now_millis: u64) -> Result<bool> {
    let known = transaction
        .prepare_cached("UPDATE api_keys SET revoked_millis = coalesce(revoked_millis, ?2) WHERE id = ?1")?
        .execute(params![id, to_sql_integer(now_millis)])?;
    Ok(known > 0)
}

pub(super) fn replace_api_key(
    transaction: &Transaction<'_>,
    old: &str,
    fresh: &ApiKeyRecord,
    now_millis: u64,
) -> Result<std::result::Result<bool, StorageError>> {
    let usable: bool = transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM api_keys WHERE id = ?1 AND tenant = ?2 AND revoked_millis IS NULL
             AND (expires_millis IS NULL OR expires_millis > ?3))",
        )?
        .query_row(
            params![old, fresh.tenant.as_str(), to_sql_integer(now_millis)],
            |row| row.get(0),
        )?;
    if !usable {
        return Ok(Ok(false));
    }
    if let Err(refused) = write_api_key(transaction, fresh)? {
        return Ok(Err(refused));
    }
    revoke_api_key(transaction, old, now_millis).map(Ok)
}

const SELECT_KEY: &str =
    "SELECT id, tenant, scopes, secret_digest, label, created_millis, expires_millis, revoked_millis
    FROM api_keys";

pub(super) fn find_api_key(c: &Connection, id: &str) -> Result<Option<ApiKeyRecord>> {
    c.prepare_cached(&format!("{SELECT_KEY} WHERE id = ?1"))?
        .query_row([id], api_key_from_row)
        .optional()
}

pub(super) fn list_api_keys(c: &Connection, tenant: &TenantId) -> Result<Vec<ApiKeyRecord>> {
    c.prepare_cached(&format!(
        "{SELECT_KEY} WHERE tenant = ?1 ORDER BY created_millis, id"
    ))?
    .query_map([tenant.as_str()], api_key_from_row)?
    .collect()
}

fn api_key_from_row(row: &Row<'_>) -> Result<ApiKeyRecord> {
    Ok(ApiKeyRecord {
        id: row.get(0)?,
        tenant: read_and_parse_text(row, 1)?,
        scopes: read_json(row, 2)?,
        secret_digest: row.get(3)?,
        display_name: row.get(4)?,
        created_millis: read_u64(row, 5)?,
        expires_millis: read_optional_u64(row, 6)?,
        revoked_millis: read_optional_u64(row, 7)?,
    })
}

/// Suspends a tenant and deletes its API keys. Returns whether the tenant exists.
pub(super) fn suspend_tenant_and_delete_keys(transaction: &Transaction<'_>, id: &TenantId) -> Result<bool> {
    let known = transaction.execute(
        "UPDATE tenants SET state = ?2 WHERE id = ?1",
        params![id.as_str(), tenant_state_name(TenantState::Suspended)],
    )?;
    transaction.execute("DELETE FROM api_keys WHERE tenant = ?1", [id.as_str()])?;
    Ok(known > 0)
}

/// Deletes up to `rows` rows of a tenant from each large table. Returns whether there may be more.
pub(super) fn delete_tenant_row_batch(
    transaction: &Transaction<'_>,
    id: &TenantId,
    rows: usize,
) -> Result<bool> {
    let mut more = false;
    for (table, key) in LARGE_TABLES {
        let removed = transaction
            .prepare_cached(&format!(
                "DELETE FROM {table} WHERE tenant = ?1 AND {key} IN
                 (SELECT {key} FROM {table} WHERE tenant = ?1 LIMIT {rows})"
            ))?
            .execute([id.as_str()])?;
        more |= removed >= rows;
    }
    Ok(more)
}

/// Deletes all remaining rows of a tenant. Returns whether the tenant existed.
pub(super) fn delete_remaining_tenant_rows(transaction: &Transaction<'_>, id: &TenantId) -> Result<bool> {
    for table in LARGE_TABLES
        .into_iter()
        .map(|(table, _)| table)
        .chain(SMALL_TABLES)
    {
        transaction
            .prepare_cached(&format!("DELETE FROM {table} WHERE tenant = ?1"))?
            .execute([id.as_str()])?;
    }
    let known = transaction.execute("DELETE FROM tenants WHERE id = ?1", [id.as_str()])?;
    Ok(known > 0)
}

const fn tenant_state_name(state: TenantState) -> &'static str {
    match state {
        TenantState::Active => "active",
        TenantState::Suspended => "suspended",
    }
}

fn tenant_state_from_row(row: &Row<'_>, column: usize) -> Result<TenantState> {
    let name = row.get_ref(column)?.as_str()?;
    [TenantState::Active, TenantState::Suspended]
        .into_iter()
        .find(|&state| tenant_state_name(state) == name)
        .ok_or_else(|| invalid_value_error(column, format!("'{name}' is not a state of a tenant").into()))
}
