//! The renames of tables, columns and indexes that came with step 12 of the schema.
//!
//! All steps use the new names. So a file of an earlier version gets the new names first and takes its remaining steps then, in one
//! transaction.

use rusqlite::{Connection, OptionalExtension, Result, params};

/// The step that made the new names valid.
const RENAME_STEP: u32 = 12;

/// The old and the new name of each table.
const RENAMED_TABLES: [(&str, &str); 9] = [
    ("keys", "api_keys"),
    ("orders", "job_requests"),
    ("words", "idempotency_keys"),
    ("usage", "daily_usage"),
    ("kept", "storage_usage"),
    ("history", "audit_log"),
    ("assignments", "revision_assignments"),
    ("said", "component_log"),
    ("removals", "document_removals"),
];
/// The table by its new name, and the old and the new name of each column.
const RENAMED_COLUMNS: [(&str, &str, &str); 13] = [
    ("documents", "requested", "requested_placement"),
    ("events", "place", "position"),
    ("api_keys", "digest", "secret_digest"),
    ("job_requests", "body", "request"),
    ("job_requests", "webhook_tries", "webhook_attempts"),
    ("idempotency_keys", "word", "key"),
    ("idempotency_keys", "digest", "request_digest"),
    ("components", "facts", "interface"),
    ("components", "key", "api_key_id"),
    ("revisions", "recipe", "spec"),
    ("revisions", "key", "api_key_id"),
    ("revision_assignments", "canary", "is_canary"),
    ("revision_assignments", "showing", "metrics"),
];
/// The old and the new name of each index.
const RENAMED_INDEXES: [(&str, &str); 4] = [
    ("keys_of_tenant", "api_keys_of_tenant"),
    ("orders_with_webhook", "job_requests_with_webhook"),
    ("words_by_age", "idempotency_keys_by_age"),
    ("assignments_ended", "revision_assignments_ended"),
];

/// Renames every table, column and index that exists under its old name. Rows stay as they are.
pub(super) fn apply_schema_renames(transaction: &Connection) -> Result<()> {
    for (old, new) in RENAMED_TABLES {
        if find_schema_definition(transaction, "table", old)?.is_some() {
            transaction.execute_batch(&format!("ALTER TABLE {old} RENAME TO {new}"))?;
        }
    }
    for (table, old, new) in RENAMED_COLUMNS {
        if has_column(transaction, table, old)? {
            transaction.execute_batch(&format!("ALTER TABLE {table} RENAME COLUMN {old} TO {new}"))?;
        }
    }
    for (old, new) in RENAMED_INDEXES {
        // SQLite cannot rename an index. The definition begins with the name.
        if let Some(definition) = find_schema_definition(transaction, "index", old)? {
            transaction.execute_batch(&format!("DROP INDEX {old}; {}", definition.replacen(old, new, 1)))?;
        }
    }
    Ok(())
}

/// Returns the name that `table` has in a file of schema version `version`.
pub(in crate::ledger) fn table_name_in_version(version: u32, table: &'static str) -> &'static str {
    let renamed = RENAMED_TABLES.into_iter().find(|(_, new)| *new == table);
    match renamed {
        Some((old, _)) if version < RENAME_STEP => old,
        _ => table,
    }
}

/// Returns the name that `column` of `table` has in a file of schema version `version`.
pub(in crate::ledger) fn column_name_in_version(
    version: u32,
    table: &str,
    column: &'static str,
) -> &'static str {
    let renamed = RENAMED_COLUMNS
        .into_iter()
        .find(|(renamed_table, _, new)| *renamed_table == table && *new == column);
    match renamed {
        Some((_, old, _)) if version < RENAME_STEP => old,
        _ => column,
    }
}

fn find_schema_definition(c: &Connection, kind: &str, name: &str) -> Result<Option<String>> {
    c.query_row(
        "SELECT sql FROM sqlite_schema WHERE type = ?1 AND name = ?2",
        params![kind, name],
        |row| row.get(0),
    )
    .optional()
}

fn has_column(c: &Connection, table: &str, column: &str) -> Result<bool> {
    c.query_row(
        "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)",
        params![table, column],
        |row| row.get(0),
    )
}
