//! Rows of the component log: log lines and failures of the components of jobs.

use rusqlite::{Connection, Result, Transaction, params};
use weir_core::component_log::NumberedComponentLogRecord;
use weir_core::{JobId, TenantId};

use super::column_values::{read_json, read_u64, to_json, to_sql_integer, to_sql_limit};
use super::schema_renames::table_name_in_version;

/// Minimum number of entries that each tenant keeps. The first entry of a job deletes older ones, job by job.
const MIN_KEPT_ENTRIES: u32 = 10_000;

pub(super) fn write_log_entry(
    t: &Transaction<'_>,
    tenant: &TenantId,
    entry: &NumberedComponentLogRecord,
) -> Result<()> {
    t.prepare_cached(
        "INSERT OR REPLACE INTO component_log (tenant, job, seq, entry) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![
        tenant.as_str(),
        entry.job.to_string(),
        to_sql_integer(entry.seq),
        to_json(entry)?
    ])?;
    if entry.seq == 1 {
        delete_old_log_entries(t, tenant)?;
    }
    Ok(())
}

/// Deletes the entries of all jobs before the one that has the last entry to keep. Job ids grow with time.
fn delete_old_log_entries(t: &Transaction<'_>, tenant: &TenantId) -> Result<()> {
    t.prepare_cached(
        "DELETE FROM component_log WHERE tenant = ?1 AND job <
             (SELECT job FROM component_log WHERE tenant = ?1 ORDER BY job DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![tenant.as_str(), MIN_KEPT_ENTRIES - 1])
    .map(drop)
}

/// Lists the entries of a job with a number greater than `after`.
pub(super) fn list_log_entries(
    c: &Connection,
    tenant: &TenantId,
    job: &JobId,
    after: u64,
    limit: usize,
) -> Result<Vec<NumberedComponentLogRecord>> {
    // A reader may open a file that no writer of this version has upgraded.
    let version: u32 = c.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let table = table_name_in_version(version, "component_log");
    c.prepare_cached(&format!(
        "SELECT entry FROM {table} WHERE tenant = ?1 AND job = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4"
    ))?
    .query_map(
        params![
            tenant.as_str(),
            job.to_string(),
            to_sql_integer(after),
            to_sql_limit(limit)
        ],
        |row| read_json(row, 0),
    )?
    .collect()
}

/// Returns the number of a job's last entry, 0 if it has none.
pub(super) fn find_last_log_entry_seq(c: &Connection, tenant: &TenantId, job: &JobId) -> Result<u64> {
    c.prepare_cached("SELECT coalesce(max(seq), 0) FROM component_log WHERE tenant = ?1 AND job = ?2")?
        .query_row(params![tenant.as_str(), job.to_string()], |row| read_u64(row, 0))
}
