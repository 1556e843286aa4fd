//! Rows of tenants' usage by day.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, params};
use weir_core::usage::{Usage, UsageDay, UsageStore};
use weir_core::{StorageError, TenantId};

use super::column_values::{read_u64, to_sql_integer};
use super::sqlite_ledger::SqliteLedger;
use super::storage_usage;

#[async_trait]
impl UsageStore for SqliteLedger {
    async fn add_daily_usage_of_tenants(
        &self,
        day: UsageDay,
        amounts: Vec<(TenantId, Usage)>,
    ) -> std::result::Result<(), StorageError> {
        if amounts.is_empty() {
            return Ok(());
        }
        self.run_write_transaction(move |t| {
            amounts
                .iter()
                .try_for_each(|(tenant, used)| add_daily_usage_of_tenant(t, tenant, day, used))
        })
        .await
    }

    async fn list_daily_usage(
        &self,
        tenant: &TenantId,
        from: UsageDay,
        to: UsageDay,
    ) -> std::result::Result<Vec<(UsageDay, Usage)>, StorageError> {
        let tenant = tenant.clone();
        self.reader
            .run_on_read_connection(move |c| list_daily_usage(c, &tenant, from, to))
            .await
    }

    async fn count_stored_bytes(&self, tenant: &TenantId) -> std::result::Result<u64, StorageError> {
        let (changed_paths, tenant) = (Arc::clone(&self.changed_paths), tenant.clone());
        self.reader
            .run_on_read_connection(move |c| {
                // First, so that a concurrent commit can only add a change twice and not hide it.
                let unsaved = changed_paths.count_unsaved_bytes(&tenant);
                Ok(storage_usage::find_stored_byte_count(c, &tenant)?.saturating_add(unsaved))
            })
            .await
    }
}

const USAGE_COLUMNS: &str = "day, requests, jobs, upload_bytes, pages, inference_micros, guest_micros, searches, refusals, \
    llm_calls, llm_prompt_tokens, llm_answer_tokens, llm_cost_micros";

/// Adds the amounts to a tenant's day. The sum is computed here because in SQL a sum that is too large is an error.
fn add_daily_usage_of_tenant(
    transaction: &Transaction<'_>,
    tenant: &TenantId,
    day: UsageDay,
    used: &Usage,
) -> Result<()> {
    let before = transaction
        .prepare_cached(&format!(
            "SELECT {USAGE_COLUMNS} FROM daily_usage WHERE tenant = ?1 AND day = ?2"
        ))?
        .query_row(params![tenant.as_str(), day], usage_from_row)
        .optional()?;
    let mut sum = before.map_or_else(Usage::default, |(_, usage)| usage);
    sum.add_amounts(used);
    // Usage may be recorded after its tenant has been removed. Then nothing is written.
    transaction
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO daily_usage (tenant, {USAGE_COLUMNS})
             SELECT id, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14 FROM tenants WHERE id = ?1"
        ))?
        .execute(params![
            tenant.as_str(),
            day,
            to_sql_integer(sum.requests),
            to_sql_integer(sum.jobs),
            to_sql_integer(sum.upload_bytes),
            to_sql_integer(sum.pages),
            to_sql_integer(sum.inference_micros),
            to_sql_integer(sum.guest_micros),
            to_sql_integer(sum.searches),
            to_sql_integer(sum.refusals),
            to_sql_integer(sum.llm_calls),
            to_sql_integer(sum.llm_prompt_tokens),
            to_sql_integer(sum.llm_answer_tokens),
            to_sql_integer(sum.llm_cost_micros),
        ])
        .map(drop)
}

fn list_daily_usage(
    c: &Connection,
    tenant: &TenantId,
    from: UsageDay,
    to: UsageDay,
) -> Result<Vec<(UsageDay, Usage)>> {
    c.prepare_cached(&format!(
        "SELECT {USAGE_COLUMNS} FROM daily_usage WHERE tenant = ?1 AND day BETWEEN ?2 AND ?3 ORDER BY day"
    ))?
    .query_map(params![tenant.as_str(), from, to], usage_from_row)?
    .collect()
}

fn usage_from_row(row: &Row<'_>) -> Result<(UsageDay, Usage)> {
    let usage = Usage {
        requests: read_u64(row, 1)?,
        jobs: read_u64(row, 2)?,
        upload_bytes: read_u64(row, 3)?,
        pages: read_u64(row, 4)?,
        inference_micros: read_u64(row, 5)?,
        guest_micros: read_u64(row, 6)?,
        searches: read_u64(row, 7)?,
        refusals: read_u64(row, 8)?,
        llm_calls: read_u64(row, 9)?,
        llm_prompt_tokens: read_u64(row, 10)?,
        llm_answer_tokens: read_u64(row, 11)?,
        llm_cost_micros: read_u64(row, 12)?,
    };
    Ok((row.get(0)?, usage))
}
