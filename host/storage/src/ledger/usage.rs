//! Rows of tenants' usage by day.

use std::sync::Arc;

use async_trait::async_trait;
use weir_core::usage::{Usage, UsageDay, UsageStore};
use weir_core::{StorageError, TenantId};

use super::column_values::to_sql_integer;
use super::locked_tenants::LockedTenants;
use super::sql_connection::{SqlConnection, SqlResult, SqlRow};
use super::sql_ledger::SqlLedger;
use super::sql_values::params;
use super::storage_usage;

#[async_trait]
impl UsageStore for SqlLedger {
    async fn add_daily_usage_of_tenants(
        &self,
        day: UsageDay,
        amounts: Vec<(TenantId, Usage)>,
    ) -> Result<(), StorageError> {
        if amounts.is_empty() {
            return Ok(());
        }
        let tenants = LockedTenants::many(amounts.iter().map(|(tenant, _)| tenant));
        self.database
            .run_write_transaction(tenants, move |t| {
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
    ) -> Result<Vec<(UsageDay, Usage)>, StorageError> {
        let tenant = tenant.clone();
        self.database
            .run_query(move |c| list_daily_usage(c, &tenant, from, to))
            .await
    }

    async fn count_stored_bytes(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        let (changed_paths, tenant) = (Arc::clone(&self.changed_paths), tenant.clone());
        self.database
            .run_query(move |c| {
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
    transaction: &SqlConnection<'_>,
    tenant: &TenantId,
    day: UsageDay,
    used: &Usage,
) -> SqlResult<()> {
    let before = transaction.query_optional(
        &format!("SELECT {USAGE_COLUMNS} FROM daily_usage WHERE tenant = ?1 AND day = ?2"),
        params![tenant.as_str(), day],
        usage_from_row,
    )?;
    let mut sum = before.map_or_else(Usage::default, |(_, usage)| usage);
    sum.add_amounts(used);
    // Usage may be recorded after its tenant has been removed. Then nothing is written.
    transaction.execute(
        &format!(
            "INSERT INTO daily_usage (tenant, {USAGE_COLUMNS})
             SELECT id, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14 FROM tenants WHERE id = ?1
             ON CONFLICT (tenant, day) DO UPDATE SET requests = ?3, jobs = ?4, upload_bytes = ?5, pages = ?6,
                 inference_micros = ?7, guest_micros = ?8, searches = ?9, refusals = ?10, llm_calls = ?11,
                 llm_prompt_tokens = ?12, llm_answer_tokens = ?13, llm_cost_micros = ?14"
        ),
        params![
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
        ],
    )
}

fn list_daily_usage(
    c: &SqlConnection<'_>,
    tenant: &TenantId,
    from: UsageDay,
    to: UsageDay,
) -> SqlResult<Vec<(UsageDay, Usage)>> {
    c.query_rows(
        &format!(
            "SELECT {USAGE_COLUMNS} FROM daily_usage WHERE tenant = ?1 AND day BETWEEN ?2 AND ?3 ORDER BY day"
        ),
        params![tenant.as_str(), from, to],
        usage_from_row,
    )
}

fn usage_from_row(row: &SqlRow<'_>) -> SqlResult<(UsageDay, Usage)> {
    let usage = Usage {
        requests: row.get(1)?,
        jobs: row.get(2)?,
        upload_bytes: row.get(3)?,
        pages: row.get(4)?,
        inference_micros: row.get(5)?,
        guest_micros: row.get(6)?,
        searches: row.get(7)?,
        refusals: row.get(8)?,
        llm_calls: row.get(9)?,
        llm_prompt_tokens: row.get(10)?,
        llm_answer_tokens: row.get(11)?,
        llm_cost_micros: row.get(12)?,
    };
    Ok((row.get(0)?, usage))
}
