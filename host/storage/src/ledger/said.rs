//! What jobs' components said, as rows.

use rusqlite::{Connection, Result, Transaction, params};
use weir_core::said::LogEntry;
use weir_core::{JobId, TenantId};

use super::columns::{at_most, from_json, integer, natural, to_json};

/// Entries a tenant keeps, at least the latest; those of older jobs are forgotten when another job begins to talk.
const KEPT: u32 = 10_000;

/// Writes an entry.
pub(super) fn write(t: &Transaction<'_>, tenant: &TenantId, entry: &LogEntry) -> Result<()> {
    t.prepare_cached("INSERT OR REPLACE INTO said (tenant, job, seq, entry) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            tenant.as_str(),
            entry.job.to_string(),
            integer(entry.seq),
            to_json(entry)?
        ])?;
    if entry.seq == 1 {
        forget_old(t, tenant)?;
    }
    Ok(())
}

/// Ids of jobs grow with time, so the entries before the job of the last one to be kept are those of older jobs.
fn forget_old(t: &Transaction<'_>, tenant: &TenantId) -> Result<()> {
    t.prepare_cached(
        "DELETE FROM said WHERE tenant = ?1 AND job <
             (SELECT job FROM said WHERE tenant = ?1 ORDER BY job DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![tenant.as_str(), KEPT - 1])
    .map(drop)
}

/// What was said after a place.
pub(super) fn entries(
    c: &Connection,
    tenant: &TenantId,
    job: &JobId,
    after: u64,
    limit: usize,
) -> Result<Vec<LogEntry>> {
    c.prepare_cached(
        "SELECT entry FROM said WHERE tenant = ?1 AND job = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4",
    )?
    .query_map(
        params![tenant.as_str(), job.to_string(), integer(after), at_most(limit)],
        |row| from_json(row, 0),
    )?
    .collect()
}

/// Place of the last entry.
pub(super) fn last(c: &Connection, tenant: &TenantId, job: &JobId) -> Result<u64> {
    c.prepare_cached("SELECT coalesce(max(seq), 0) FROM said WHERE tenant = ?1 AND job = ?2")?
        .query_row(params![tenant.as_str(), job.to_string()], |row| natural(row, 0))
}
