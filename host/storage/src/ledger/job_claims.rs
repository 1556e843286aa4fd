//! Claims of jobs.

use std::time::Duration;

use async_trait::async_trait;
use weir_core::job_claim::{ClaimOutcome, ExpiredClaim, JobClaim, NodeId};
use weir_core::job_claim_store::JobClaimStore;
use weir_core::ledger::JobRecord;
use weir_core::{JobId, StorageError, TenantId};

use super::claim_rows::{self, claim_from_row};
use super::column_values::{to_sql_integer, to_sql_millis};
use super::job_and_document_rows;
use super::locked_tenants::LockedTenants;
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
                claim_rows::claim_job(t, &tenant, &job, &node, lease, max_claimed_jobs)
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

    async fn find_claimable_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Option<JobRecord>, StorageError> {
        let (tenant, job) = (tenant.clone(), *job);
        self.database
            .run_query(move |c| job_and_document_rows::find_claimable_job(c, &tenant, &job))
            .await
    }

    async fn list_claimable_jobs(&self) -> Result<Vec<JobRecord>, StorageError> {
        self.database
            .run_query(job_and_document_rows::list_claimable_jobs)
            .await
    }

    async fn claim_duty(&self, duty: &str, node: &NodeId, lease: Duration) -> Result<bool, StorageError> {
        let (duty, node) = (duty.to_owned(), node.clone());
        self.database
            .run_write_transaction(LockedTenants::none(), move |t| {
                let now = t.now_millis();
                let sql = format!(
                    "INSERT INTO node_duties (duty, owner, lease_until_millis) VALUES (?1, ?2, {now} + ?3)
                     ON CONFLICT (duty) DO UPDATE SET owner = ?2, lease_until_millis = {now} + ?3
                     WHERE node_duties.owner = ?2 OR node_duties.lease_until_millis < {now}"
                );
                let claimed =
                    t.execute_and_count_rows(&sql, params![duty, node.as_str(), to_sql_millis(lease)]);
                Ok(claimed? > 0)
            })
            .await
    }

    async fn renew_claims(&self, node: &NodeId, lease: Duration) -> Result<Vec<JobClaim>, StorageError> {
        let node = node.clone();
        self.database
            .run_write_transaction(LockedTenants::none(), move |t| {
                claim_rows::renew_claims(t, &node, lease)
            })
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
            .run_write_transaction(LockedTenants::none(), claim_rows::release_expired_claims)
            .await
    }
}
