//! Rows of tenants and API keys, and the removal of all rows of a tenant.

use weir_core::tenancy::{ApiKeyRecord, Tenant, TenantState, TenantUpdate};
use weir_core::{StorageError, TenantId};

use super::column_values::{read_and_parse_text, read_json, to_json, to_sql_integer};
use super::sql_connection::{SqlConnection, SqlResult, SqlRow};
use super::sql_values::params;

/// Tables that may have many rows of a tenant, each with the columns that distinguish its rows.
const LARGE_TABLES: [(&str, &str); 9] = [
    ("events", "position"),
    ("pages", "document, page, revision"),
    ("documents", "id"),
    ("job_requests", "job"),
    ("jobs", "id"),
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

pub(super) fn create_tenant(transaction: &SqlConnection<'_>, tenant: &Tenant) -> SqlResult<bool> {
    let created = transaction.execute_and_count_rows("INSERT INTO tenants (id, state, weight, quotas, created_millis, retention) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING", params![
            tenant.id.as_str(),
            tenant_state_name(tenant.state),
            tenant.weight,
            to_json(&tenant.quotas)?,
            to_sql_integer(tenant.created_millis),
            to_json(&tenant.retention)?,
        ])?;
    Ok(created > 0)
}

/// Changes a tenant and returns the result. The transaction has the write lock before it reads, so no other change comes in between.
pub(super) fn update_tenant(
    transaction: &SqlConnection<'_>,
    id: &TenantId,
    change: &TenantUpdate,
) -> SqlResult<Option<Tenant>> {
    let Some(mut changed) = find_tenant(transaction, id)? else {
        return Ok(None);
    };
    change.apply_to_tenant(&mut changed);
    transaction.execute(
        "UPDATE tenants SET state = ?2, weight = ?3, quotas = ?4, retention = ?5 WHERE id = ?1",
        params![
            id.as_str(),
            tenant_state_name(changed.state),
            changed.weight,
            to_json(&changed.quotas)?,
            to_json(&changed.retention)?,
        ],
    )?;
    Ok(Some(changed))
}

const SELECT_TENANT: &str = "SELECT id, state, weight, quotas, created_millis, retention FROM tenants";

pub(super) fn find_tenant(c: &SqlConnection<'_>, id: &TenantId) -> SqlResult<Option<Tenant>> {
    c.query_optional(
        &format!("{SELECT_TENANT} WHERE id = ?1"),
        params![id.as_str()],
        tenant_from_row,
    )
}

pub(super) fn list_tenants(c: &SqlConnection<'_>) -> SqlResult<Vec<Tenant>> {
    c.query_rows(&format!("{SELECT_TENANT} ORDER BY id"), &[], tenant_from_row)
}

fn tenant_from_row(row: &SqlRow<'_>) -> SqlResult<Tenant> {
    Ok(Tenant {
        id: read_and_parse_text(row, 0)?,
        state: tenant_state_from_row(row, 1)?,
        weight: row.get(2)?,
        quotas: read_json(row, 3)?,
        created_millis: row.get(4)?,
        retention: read_json(row, 5)?,
    })
}

/// Writes an API key. Fails if its tenant does not exist or if another tenant has a key of this id.
pub(super) fn write_api_key(
    transaction: &SqlConnection<'_>,
    key: &ApiKeyRecord,
) -> SqlResult<Result<(), StorageError>> {
    // A key without a tenant would be valid for the next tenant of that name.
    if find_tenant(transaction, &key.tenant)?.is_none() {
        return Ok(Err(StorageError::NotFound {
            what: format!("tenant {}", key.tenant),
        }));
    }
    let written = transaction.execute_and_count_rows("INSERT INTO api_keys (id, tenant, scopes, secret_digest, label, created_millis, expires_millis, revoked_millis)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (id) DO UPDATE SET scopes = ?3, secret_digest = ?4, label = ?5, created_millis = ?6, expires_millis = ?7,
                 revoked_millis = ?8 WHERE api_keys.tenant = ?2", params![
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

pub(super) fn revoke_api_key(transaction: &SqlConnection<'_>, id: &str, now_millis: u64) -> SqlResult<bool> {
    let known = transaction.execute_and_count_rows(
        "UPDATE api_keys SET revoked_millis = coalesce(revoked_millis, ?2) WHERE id = ?1",
        params![id, to_sql_integer(now_millis)],
    )?;
    Ok(known > 0)
}

pub(super) fn replace_api_key(
    transaction: &SqlConnection<'_>,
    old: &str,
    fresh: &ApiKeyRecord,
    now_millis: u64,
) -> SqlResult<Result<bool, StorageError>> {
    let usable: bool = transaction.query_one(
        "SELECT EXISTS (SELECT 1 FROM api_keys WHERE id = ?1 AND tenant = ?2 AND revoked_millis IS NULL
             AND (expires_millis IS NULL OR expires_millis > ?3))",
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

pub(super) fn find_api_key(c: &SqlConnection<'_>, id: &str) -> SqlResult<Option<ApiKeyRecord>> {
    c.query_optional(
        &format!("{SELECT_KEY} WHERE id = ?1"),
        params![id],
        api_key_from_row,
    )
}

pub(super) fn find_api_key_with_tenant(
    c: &SqlConnection<'_>,
    id: &str,
) -> SqlResult<Option<(ApiKeyRecord, Tenant)>> {
    let Some(key) = find_api_key(c, id)? else {
        return Ok(None);
    };
    // A tenant is removed after its keys, so a key that was read just before has no tenant.
    Ok(find_tenant(c, &key.tenant)?.map(|tenant| (key, tenant)))
}

pub(super) fn list_api_keys(c: &SqlConnection<'_>, tenant: &TenantId) -> SqlResult<Vec<ApiKeyRecord>> {
    c.query_rows(
        &format!("{SELECT_KEY} WHERE tenant = ?1 ORDER BY created_millis, id"),
        params![tenant.as_str()],
        api_key_from_row,
    )
}

fn api_key_from_row(row: &SqlRow<'_>) -> SqlResult<ApiKeyRecord> {
    Ok(ApiKeyRecord {
        id: row.get(0)?,
        tenant: read_and_parse_text(row, 1)?,
        scopes: read_json(row, 2)?,
        secret_digest: row.get(3)?,
        display_name: row.get(4)?,
        created_millis: row.get(5)?,
        expires_millis: row.get(6)?,
        revoked_millis: row.get(7)?,
    })
}

/// Suspends a tenant and deletes its API keys. Returns whether the tenant exists.
pub(super) fn suspend_tenant_and_delete_keys(
    transaction: &SqlConnection<'_>,
    id: &TenantId,
) -> SqlResult<bool> {
    let known = transaction.execute_and_count_rows(
        "UPDATE tenants SET state = ?2 WHERE id = ?1",
        params![id.as_str(), tenant_state_name(TenantState::Suspended)],
    )?;
    transaction.execute("DELETE FROM api_keys WHERE tenant = ?1", params![id.as_str()])?;
    Ok(known > 0)
}

/// Deletes up to `rows` rows of a tenant from each large table. Returns whether there may be more.
pub(super) fn delete_tenant_row_batch(
    transaction: &SqlConnection<'_>,
    id: &TenantId,
    rows: u32,
) -> SqlResult<bool> {
    let mut more = false;
    for (table, key) in LARGE_TABLES {
        let removed = transaction.execute_and_count_rows(
            &format!(
                "DELETE FROM {table} WHERE tenant = ?1 AND ({key}) IN
                 (SELECT {key} FROM {table} WHERE tenant = ?1 LIMIT {rows})"
            ),
            params![id.as_str()],
        )?;
        more |= removed >= u64::from(rows);
    }
    Ok(more)
}

/// Deletes all remaining rows of a tenant. Returns whether the tenant existed.
pub(super) fn delete_remaining_tenant_rows(
    transaction: &SqlConnection<'_>,
    id: &TenantId,
) -> SqlResult<bool> {
    for table in LARGE_TABLES
        .into_iter()
        .map(|(table, _)| table)
        .chain(SMALL_TABLES)
    {
        transaction.execute(
            &format!("DELETE FROM {table} WHERE tenant = ?1"),
            params![id.as_str()],
        )?;
    }
    let known =
        transaction.execute_and_count_rows("DELETE FROM tenants WHERE id = ?1", params![id.as_str()])?;
    Ok(known > 0)
}

const fn tenant_state_name(state: TenantState) -> &'static str {
    match state {
        TenantState::Active => "active",
        TenantState::Suspended => "suspended",
    }
}

fn tenant_state_from_row(row: &SqlRow<'_>, column: usize) -> SqlResult<TenantState> {
    row.convert_text(column, |name| {
        [TenantState::Active, TenantState::Suspended]
            .into_iter()
            .find(|&state| tenant_state_name(state) == name)
            .ok_or_else(|| format!("'{name}' is not a state of a tenant"))
    })
}
