//! Rows of claims: the columns `owner`, `epoch`, `lease_until_millis` and `lost_claims` of the jobs.
//!
//! Claiming a job and committing its results hold the lock of its tenant. So a commit that has checked its claim is complete before the job
//! can be claimed again.

use std::time::Duration;

use weir_core::job_claim::{ClaimOutcome, ExpiredClaim, JobClaim, NodeId};
use weir_core::{JobId, TenantId};

use super::column_values::{read_and_parse_text, to_sql_integer, to_sql_millis};
use super::sql_connection::{SqlConnection, SqlError, SqlResult, SqlRow};
use super::sql_values::params;

pub(super) fn claim_job(
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
            to_sql_millis(lease)
        ],
        claim_from_row,
    )?;
    Ok(claim.map_or(ClaimOutcome::NotClaimable, ClaimOutcome::Claimed))
}

pub(super) fn renew_claims(
    t: &SqlConnection<'_>,
    node: &NodeId,
    lease: Duration,
) -> SqlResult<Vec<JobClaim>> {
    let now = t.now_millis();
    t.query_rows(
        &format!(
            "UPDATE jobs SET lease_until_millis = {now} + ?2 WHERE owner = ?1 RETURNING tenant, id, epoch"
        ),
        params![node.as_str(), to_sql_millis(lease)],
        claim_from_row,
    )
}

pub(super) fn release_expired_claims(t: &SqlConnection<'_>) -> SqlResult<Vec<ExpiredClaim>> {
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

/// Ends all claims and duties and removes all nodes. For a ledger that only this process can open.
pub(super) fn release_all_claims(t: &SqlConnection<'_>) -> SqlResult<()> {
    t.execute(
        "UPDATE jobs SET owner = NULL, lease_until_millis = NULL WHERE owner IS NOT NULL",
        params![],
    )?;
    t.execute("DELETE FROM node_duties", params![])?;
    t.execute("DELETE FROM nodes", params![])
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

pub(super) fn claim_from_row(row: &SqlRow<'_>) -> SqlResult<JobClaim> {
    Ok(JobClaim {
        tenant: read_and_parse_text(row, 0)?,
        job: read_and_parse_text(row, 1)?,
        epoch: row.get(2)?,
    })
}
