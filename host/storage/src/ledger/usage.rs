//! What tenants have used by day, and the bytes they keep, as rows.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, params};
use weir_core::usage::{Day, Usage, UsageBook};
use weir_core::{StorageError, TenantId};

use super::SqliteLedger;
use super::columns::{integer, natural, parsed};

#[async_trait]
impl UsageBook for SqliteLedger {
    async fn add(&self, day: Day, amounts: Vec<(TenantId, Usage)>) -> std::result::Result<(), StorageError> {
        if amounts.is_empty() {
            return Ok(());
        }
        self.write(move |t| {
            amounts
                .iter()
                .try_for_each(|(tenant, used)| add(t, tenant, day, used))
        })
        .await
    }

    async fn usage(
        &self,
        tenant: &TenantId,
        from: Day,
        to: Day,
    ) -> std::result::Result<Vec<(Day, Usage)>, StorageError> {
        let tenant = tenant.clone();
        self.reader.read(move |c| usage(c, &tenant, from, to)).await
    }

    async fn stored_bytes(&self, tenant: &TenantId) -> std::result::Result<u64, StorageError> {
        Ok(self.kept.bytes(tenant))
    }
}

const AMOUNTS: &str = "day, requests, jobs, upload_bytes, pages, inference_micros, guest_micros, searches, refusals, \
    llm_calls, llm_prompt_tokens, llm_answer_tokens, llm_cost_micros";

/// Adds here and not in SQL, where a sum that is too large would be an error.
fn add(transaction: &Transaction<'_>, tenant: &TenantId, day: Day, used: &Usage) -> Result<()> {
    let before = transaction
        .prepare_cached(&format!(
            "SELECT {AMOUNTS} FROM usage WHERE tenant = ?1 AND day = ?2"
        ))?
        .query_row(params![tenant.as_str(), day], read)
        .optional()?;
    let mut sum = before.map_or_else(Usage::default, |(_, usage)| usage);
    sum.add(used);
    // What is metered may be told after its tenant has been removed, and then has nowhere to go.
    transaction
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO usage (tenant, {AMOUNTS})
             SELECT id, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14 FROM tenants WHERE id = ?1"
        ))?
        .execute(params![
            tenant.as_str(),
            day,
            integer(sum.requests),
            integer(sum.jobs),
            integer(sum.upload_bytes),
            integer(sum.pages),
            integer(sum.inference_micros),
            integer(sum.guest_micros),
            integer(sum.searches),
            integer(sum.refusals),
            integer(sum.llm_calls),
            integer(sum.llm_prompt_tokens),
            integer(sum.llm_answer_tokens),
            integer(sum.llm_cost_micros),
        ])
        .map(drop)
}

fn usage(c: &Connection, tenant: &TenantId, from: Day, to: Day) -> Result<Vec<(Day, Usage)>> {
    c.prepare_cached(&format!(
        "SELECT {AMOUNTS} FROM usage WHERE tenant = ?1 AND day BETWEEN ?2 AND ?3 ORDER BY day"
    ))?
    .query_map(params![tenant.as_str(), from, to], read)?
    .collect()
}

fn read(row: &Row<'_>) -> Result<(Day, Usage)> {
    let usage = Usage {
        requests: natural(row, 1)?,
        jobs: natural(row, 2)?,
        upload_bytes: natural(row, 3)?,
        pages: natural(row, 4)?,
        inference_micros: natural(row, 5)?,
        guest_micros: natural(row, 6)?,
        searches: natural(row, 7)?,
        refusals: natural(row, 8)?,
        llm_calls: natural(row, 9)?,
        llm_prompt_tokens: natural(row, 10)?,
        llm_answer_tokens: natural(row, 11)?,
        llm_cost_micros: natural(row, 12)?,
    };
    Ok((row.get(0)?, usage))
}

/// What was kept when it was last written down, and whether that is exact. From now on none of it is.
pub(super) fn open_kept(transaction: &Transaction<'_>) -> Result<Vec<(TenantId, u64, bool)>> {
    let kept = transaction
        .prepare("SELECT tenant, bytes, exact FROM kept")?
        .query_map([], |row| Ok((parsed(row, 0)?, natural(row, 1)?, row.get(2)?)))?
        .collect::<Result<Vec<_>>>()?;
    transaction.execute("UPDATE kept SET exact = FALSE WHERE exact", [])?;
    Ok(kept)
}

pub(super) fn write_kept(
    transaction: &Transaction<'_>,
    tenant: &TenantId,
    bytes: u64,
    exact: bool,
) -> Result<()> {
    if bytes == 0 {
        // Nothing to tell, so that a tenant that is gone does not come back by this.
        return transaction
            .prepare_cached("DELETE FROM kept WHERE tenant = ?1")?
            .execute([tenant.as_str()])
            .map(drop);
    }
    transaction
        .prepare_cached("INSERT OR REPLACE INTO kept (tenant, bytes, exact) VALUES (?1, ?2, ?3)")?
        .execute(params![tenant.as_str(), integer(bytes), exact])
        .map(drop)
}
