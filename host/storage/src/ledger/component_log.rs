//! Rows of the component log: log lines and failures of the components of jobs.

use weir_core::component_log::NumberedComponentLogRecord;
use weir_core::{JobId, TenantId};

use super::column_values::{read_json, to_json, to_sql_integer, to_sql_limit};
use super::sql_connection::{SqlConnection, SqlResult};
use super::sql_values::params;
use super::sqlite::table_name_in_version;

/// Minimum number of entries that each tenant keeps. The first entry of a job deletes older ones, job by job.
const MIN_KEPT_ENTRIES: u32 = 10_000;

pub(super) fn write_log_entry(
    t: &SqlConnection<'_>,
    tenant: &TenantId,
    entry: &NumberedComponentLogRecord,
) -> SqlResult<()> {
    t.execute(
        "INSERT INTO component_log (tenant, job, seq, entry) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (tenant, job, seq) DO UPDATE SET entry = ?4",
        params![
            tenant.as_str(),
            entry.job.to_string(),
            to_sql_integer(entry.seq),
            to_json(entry)?
        ],
    )?;
    if entry.seq == 1 {
        delete_old_log_entries(t, tenant)?;
    }
    Ok(())
}

/// Deletes the entries of all jobs before the one that has the last entry to keep. Job ids grow with time.
fn delete_old_log_entries(t: &SqlConnection<'_>, tenant: &TenantId) -> SqlResult<()> {
    t.execute(
        "DELETE FROM component_log WHERE tenant = ?1 AND job <
             (SELECT job FROM component_log WHERE tenant = ?1 ORDER BY job DESC LIMIT 1 OFFSET ?2)",
        params![tenant.as_str(), MIN_KEPT_ENTRIES - 1],
    )
}

/// Lists the entries of a job with a number greater than `after`.
pub(super) fn list_log_entries(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    job: &JobId,
    after: u64,
    limit: usize,
) -> SqlResult<Vec<NumberedComponentLogRecord>> {
    // A reader may open a file that no writer of this version has upgraded.
    let version: u32 = c.schema_version()?;
    let table = table_name_in_version(version, "component_log");
    c.query_rows(
        &format!(
            "SELECT entry FROM {table} WHERE tenant = ?1 AND job = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4"
        ),
        params![
            tenant.as_str(),
            job.to_string(),
            to_sql_integer(after),
            to_sql_limit(limit)
        ],
        |row| read_json(row, 0),
    )
}

/// Returns the number of a job's last entry, 0 if it has none.
pub(super) fn find_last_log_entry_seq(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    job: &JobId,
) -> SqlResult<u64> {
    c.query_one(
        "SELECT coalesce(max(seq), 0) FROM component_log WHERE tenant = ?1 AND job = ?2",
        params![tenant.as_str(), job.to_string()],
        |row| row.get(0),
    )
}
