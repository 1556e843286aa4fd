//! Tenants and keys as rows, and the end of a tenant.

use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, params};
use weir_core::tenancy::{KeyRecord, Tenant, TenantState, TenantUpdate};
use weir_core::{StorageError, TenantId};

use super::columns::{from_json, integer, natural, natural_or_null, parsed, to_json, unreadable};

/// Tables of what a tenant has, each with a column that tells its rows apart.
const MANY: [(&str, &str); 8] = [
    ("events", "place"),
    ("pages", "rowid"),
    ("documents", "rowid"),
    ("orders", "rowid"),
    ("jobs", "rowid"),
    ("words", "word"),
    ("assignments", "job"),
    ("job_documents", "document"),
];
/// Those that have few rows of a tenant.
const FEW: [&str; 11] = [
    "keys",
    "policy_state",
    "usage",
    "kept",
    "components",
    "revisions",
    "rollouts",
    "history",
    "said",
    "shadow_runs",
    "removals",
];

pub(super) fn create(transaction: &Transaction<'_>, tenant: &Tenant) -> Result<bool> {
    let created = transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO tenants (id, state, weight, quotas, created_millis) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            tenant.id.as_str(),
            state_name(tenant.state),
            tenant.weight,
            to_json(&tenant.quotas)?,
            integer(tenant.created_millis),
        ])?;
    Ok(created > 0)
}

/// The transaction has the right to write before it reads, so what it reads is what it changes.
pub(super) fn change(
    transaction: &Transaction<'_>,
    id: &TenantId,
    change: &TenantUpdate,
) -> Result<Option<Tenant>> {
    let Some(mut changed) = tenant(transaction, id)? else {
        return Ok(None);
    };
    change.apply(&mut changed);
    transaction
        .prepare_cached("UPDATE tenants SET state = ?2, weight = ?3, quotas = ?4 WHERE id = ?1")?
        .execute(params![
            id.as_str(),
            state_name(changed.state),
            changed.weight,
            to_json(&changed.quotas)?,
        ])?;
    Ok(Some(changed))
}

const TENANT: &str = "SELECT id, state, weight, quotas, created_millis FROM tenants";

pub(super) fn tenant(c: &Connection, id: &TenantId) -> Result<Option<Tenant>> {
    c.prepare_cached(&format!("{TENANT} WHERE id = ?1"))?
        .query_row([id.as_str()], read_tenant)
        .optional()
}

pub(super) fn tenants(c: &Connection) -> Result<Vec<Tenant>> {
    c.prepare_cached(&format!("{TENANT} ORDER BY id"))?
        .query_map([], read_tenant)?
        .collect()
}

fn read_tenant(row: &Row<'_>) -> Result<Tenant> {
    Ok(Tenant {
        id: parsed(row, 0)?,
        state: state_named(row, 1)?,
        weight: row.get(2)?,
        quotas: from_json(row, 3)?,
        created_millis: natural(row, 4)?,
    })
}

/// Writes a key, or says why it is not one of its tenant.
pub(super) fn put_key(
    transaction: &Transaction<'_>,
    key: &KeyRecord,
) -> Result<std::result::Result<(), StorageError>> {
    // A key that outlived its tenant would open the next one of that name.
    if tenant(transaction, &key.tenant)?.is_none() {
        return Ok(Err(StorageError::Missing {
            what: format!("tenant {}", key.tenant),
        }));
    }
    let written = transaction
        .prepare_cached(
            "INSERT INTO keys (id, tenant, scopes, digest, label, created_millis, expires_millis, revoked_millis)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT DO UPDATE SET scopes = ?3, digest = ?4, label = ?5, created_millis = ?6, expires_millis = ?7,
                 revoked_millis = ?8 WHERE tenant = ?2",
        )?
        .execute(params![
            key.id,
            key.tenant.as_str(),
            to_json(&key.scopes)?,
            key.digest.as_slice(),
            key.label,
            integer(key.created_millis),
            key.expires_millis.map(integer),
            key.revoked_millis.map(integer),
        ])?;
    Ok(if written == 0 {
        Err(StorageError::Failed {
            what: format!("key {}", key.id),
            reason: "another tenant has a key of this id: make a new one".into(),
        })
    } else {
        Ok(())
    })
}

pub(super) fn revoke_key(transaction: &Transaction<'_>, id: &str, now_millis: u64) -> Result<bool> {
    let known = transaction
        .prepare_cached("UPDATE keys SET revoked_millis = coalesce(revoked_millis, ?2) WHERE id = ?1")?
        .execute(params![id, integer(now_millis)])?;
    Ok(known > 0)
}

pub(super) fn replace_key(
    transaction: &Transaction<'_>,
    old: &str,
    fresh: &KeyRecord,
    now_millis: u64,
) -> Result<std::result::Result<bool, StorageError>> {
    let usable: bool = transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM keys WHERE id = ?1 AND tenant = ?2 AND revoked_millis IS NULL
             AND (expires_millis IS NULL OR expires_millis > ?3))",
        )?
        .query_row(params![old, fresh.tenant.as_str(), integer(now_millis)], |row| {
            row.get(0)
        })?;
    if !usable {
        return Ok(Ok(false));
    }
    if let Err(refused) = put_key(transaction, fresh)? {
        return Ok(Err(refused));
    }
    revoke_key(transaction, old, now_millis).map(Ok)
}

const KEY: &str =
    "SELECT id, tenant, scopes, digest, label, created_millis, expires_millis, revoked_millis FROM keys";

pub(super) fn key(c: &Connection, id: &str) -> Result<Option<KeyRecord>> {
    c.prepare_cached(&format!("{KEY} WHERE id = ?1"))?
        .query_row([id], read_key)
        .optional()
}

pub(super) fn keys(c: &Connection, tenant: &TenantId) -> Result<Vec<KeyRecord>> {
    c.prepare_cached(&format!("{KEY} WHERE tenant = ?1 ORDER BY created_millis, id"))?
        .query_map([tenant.as_str()], read_key)?
        .collect()
}

fn read_key(row: &Row<'_>) -> Result<KeyRecord> {
    Ok(KeyRecord {
        id: row.get(0)?,
        tenant: parsed(row, 1)?,
        scopes: from_json(row, 2)?,
        digest: row.get(3)?,
        label: row.get(4)?,
        created_millis: natural(row, 5)?,
        expires_millis: natural_or_null(row, 6)?,
        revoked_millis: natural_or_null(row, 7)?,
    })
}

/// Takes away what lets a tenant in; whether there is such a tenant.
pub(super) fn lock_out(transaction: &Transaction<'_>, id: &TenantId) -> Result<bool> {
    let known = transaction.execute(
        "UPDATE tenants SET state = ?2 WHERE id = ?1",
        params![id.as_str(), state_name(TenantState::Suspended)],
    )?;
    transaction.execute("DELETE FROM keys WHERE tenant = ?1", [id.as_str()])?;
    Ok(known > 0)
}

/// Removes up to `rows` rows of each large table; whether there may be more.
pub(super) fn remove_some(transaction: &Transaction<'_>, id: &TenantId, rows: usize) -> Result<bool> {
    let mut more = false;
    for (table, key) in MANY {
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

/// Removes everything that is left of a tenant; whether it was known.
pub(super) fn remove_rest(transaction: &Transaction<'_>, id: &TenantId) -> Result<bool> {
    for table in MANY.into_iter().map(|(table, _)| table).chain(FEW) {
        transaction
            .prepare_cached(&format!("DELETE FROM {table} WHERE tenant = ?1"))?
            .execute([id.as_str()])?;
    }
    let known = transaction.execute("DELETE FROM tenants WHERE id = ?1", [id.as_str()])?;
    Ok(known > 0)
}

const fn state_name(state: TenantState) -> &'static str {
    match state {
        TenantState::Active => "active",
        TenantState::Suspended => "suspended",
    }
}

fn state_named(row: &Row<'_>, column: usize) -> Result<TenantState> {
    let name = row.get_ref(column)?.as_str()?;
    [TenantState::Active, TenantState::Suspended]
        .into_iter()
        .find(|&state| state_name(state) == name)
        .ok_or_else(|| unreadable(column, format!("'{name}' is no state of a tenant").into()))
}
