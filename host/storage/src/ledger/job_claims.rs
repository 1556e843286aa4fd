//! Claims of jobs, in the columns `owner`, `epoch`, `lease_until_millis` and `lost_claims` of their rows.
//!
//! Claiming a job and committing its results hold the lock of its tenant. So a commit that has checked its claim is complete before the job
//! can be claimed again.

use std::time::Duration;

use async_trait::async_trait;
use weir_core::job_claim::{ClaimOutcome, ExpiredClaim, JobClaim, JobClaimStore, NodeId};
use weir_core::ledger::JobRecord;
use weir_core::{JobId, StorageError, TenantId};

use super::column_values::{read_and_parse_text, to_sql_integer};
use super::job_and_document_rows;
use super::locked_tenants::LockedTenants;
use super::sql_connection::{SqlConnection, SqlError, SqlResult, SqlRow};
use super::sql_ledger::SqlLedger;
use super::sql_values::params;

#[async_trait]
impl JobClaimStore for SqlLedger {
    async fn claim_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
        node: &NodeId,
        lease: Duration,
        max_claimed_jobs: Option<u64>,
    ) -> Result<ClaimOutcome, StorageError> {
        let (tenant, job, node) = (tenant.clone(), *job, node.clone());
        self.database
            .run_write_transaction(LockedTenants::one(&tenant), move |t| {
                claim_job(t, &tenant, &job, &node, lease, max_claimed_jobs)
            })
            .await
    }

    async fn request_cancel(&self, tenant: &TenantId, job: &JobId) -> Result<bool, StorageError> {
        let (tenant, job) = (tenant.clone(), *job);
        let sql =
            "UPDATE jobs SET cancel_requested = TRUE WHERE tenant = ?1 AND id = ?2 AND owner IS NOT NULL";
        let claimed = self
            .database
            .run_write_transaction(LockedTenants::one(&tenant), move |t| {
                t.execute_and_count_rows(sql, params![tenant.as_str(), job.to_string()])
            });
        Ok(claimed.await? > 0)
    }

    async fn list_requested_cancels(&self, node: &NodeId) -> Result<Vec<JobClaim>, StorageError> {
        let node = node.clone();
        let sql = "SELECT tenant, id, epoch FROM jobs WHERE cancel_requested AND owner = ?1";
        self.database
            .run_query(move |c| c.query_rows(sql, params![node.as_str()], claim_from_row))
            .await
    }

    async fn list_claimable_jobs(&self) -> Result<Vec<JobRecord>, StorageError> {
        self.database
            .run_query(job_and_document_rows::list_claimable_jobs)
            .await
    }

    async fn renew_claims(&self, node: &NodeId, lease: Duration) -> Result<Vec<JobClaim>, StorageError> {
        let node = node.clone();
        self.database
            .run_write_transaction(LockedTenants::none(), move |t| renew_claims(t, &node, lease))
            .await
    }

    async fn release_claim(&self, claim: &JobClaim) -> Result<(), StorageError> {
        let claim = claim.clone();
        self.database
            .run_write_transaction(LockedTenants::one(&claim.tenant), move |t| {
                t.execute(
                    "UPDATE jobs SET owner = NULL, lease_until_millis = NULL WHERE tenant = ?1 AND id = ?2 AND epoch = ?3",
                    params![claim.tenant.as_str(), claim.job.to_string(), to_sql_integer(claim.epoch)],
                )
            })
            .await
    }

    async fn release_expired_claims(&self) -> Result<Vec<ExpiredClaim>, StorageError> {
        self.database
            .run_write_transaction(LockedTenants::none(), release_expired_claims)
            .await
    }
}

fn claim_job(
    t: &SqlConnection<'_>,
    tenant: &TenantId,
    job: &JobId,
    node: &NodeId,
    lease: Duration,
    max_claimed_jobs: Option<u64>,
) -> SqlResult<ClaimOutcome> {
    if let Some(max) = max_claimed_jobs {
        let claimed: u64 = t.query_one(
            "SELECT count(*) FROM jobs WHERE tenant = ?1 AND owner IS NOT NULL",
            params![tenant.as_str()],
            |row| row.get(0),
        )?;
        if claimed >= max {
            return Ok(ClaimOutcome::TenantAtLimit);
        }
    }
    let now = t.now_millis();
    let claim = t.query_optional(
        &format!(
            "UPDATE jobs SET owner = ?3, epoch = epoch + 1, lease_until_millis = {now} + ?4
             WHERE tenant = ?1 AND id = ?2 AND owner IS NULL AND state IN ('queued', 'running')
             RETURNING tenant, id, epoch"
        ),
        params![
            tenant.as_str(),
            job.to_string(),
            node.as_str(),
            lease_millis(lease)
        ],
        claim_from_row,
    )?;
    Ok(claim.map_or(ClaimOutcome::NotClaimable, ClaimOutcome::Claimed))
}

fn renew_claims(t: &SqlConnection<'_>, node: &NodeId, lease: Duration) -> SqlResult<Vec<JobClaim>> {
    let now = t.now_millis();
    t.query_rows(
        &format!(
            "UPDATE jobs SET lease_until_millis = {now} + ?2 WHERE owner = ?1 RETURNING tenant, id, epoch"
        ),
        params![node.as_str(), lease_millis(lease)],
        claim_from_row,
    )
}

fn release_expired_claims(t: &SqlConnection<'_>) -> SqlResult<Vec<ExpiredClaim>> {
    let now = t.now_millis();
    t.query_rows(
        &format!(
            "UPDATE jobs SET owner = NULL, lease_until_millis = NULL, lost_claims = lost_claims + 1
             WHERE owner IS NOT NULL AND lease_until_millis < {now} RETURNING tenant, id, epoch, lost_claims"
        ),
        params![],
        |row| {
            Ok(ExpiredClaim {
                claim: claim_from_row(row)?,
                lost_claims: row.get(3)?,
            })
        },
    )
}

/// Ends all claims. For a ledger that only this process can open.
pub(super) fn release_all_claims(t: &SqlConnection<'_>) -> SqlResult<()> {
    t.execute(
        "UPDATE jobs SET owner = NULL, lease_until_millis = NULL WHERE owner IS NOT NULL",
        params![],
    )
}

/// Fails if the job has been claimed again since.
pub(super) fn require_claim(t: &SqlConnection<'_>, claim: &JobClaim) -> SqlResult<()> {
    let current = t.query_optional(
        "SELECT 1 FROM jobs WHERE tenant = ?1 AND id = ?2 AND epoch = ?3",
        params![
            claim.tenant.as_str(),
            claim.job.to_string(),
            to_sql_integer(claim.epoch)
        ],
        |_| Ok(()),
    )?;
    current.ok_or(SqlError::ClaimLost(claim.job))
}

fn claim_from_row(row: &SqlRow<'_>) -> SqlResult<JobClaim> {
    Ok(JobClaim {
        tenant: read_and_parse_text(row, 0)?,
        job: read_and_parse_text(row, 1)?,
        epoch: row.get(2)?,
    })
}

fn lease_millis(lease: Duration) -> i64 {
    i64::try_from(lease.as_millis()).unwrap_or(i64::MAX)
}
