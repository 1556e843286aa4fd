//! The port of the claims of jobs.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::StorageError;
use crate::id::{JobId, TenantId};
use crate::job_claim::{ClaimOutcome, ExpiredClaim, JobClaim, NodeId};
use crate::ledger::JobRecord;

/// Stores claims.
#[async_trait]
pub trait JobClaimStore: Send + Sync {
    /// Claims a job that has not ended and is not claimed. `max_claimed_jobs` is the maximum number of claimed jobs of the tenant, of all
    /// nodes together.
    async fn claim_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
        node: &NodeId,
        lease: Duration,
        max_claimed_jobs: Option<u64>,
    ) -> Result<ClaimOutcome, StorageError>;

    /// Asks for the cancellation of a claimed job. Returns whether the job is claimed.
    async fn request_cancel(&self, tenant: &TenantId, job: &JobId) -> Result<bool, StorageError>;

    /// Returns the claims of a node whose jobs are to be canceled.
    async fn list_requested_cancels(&self, node: &NodeId) -> Result<Vec<JobClaim>, StorageError>;

    /// Returns a job if it has not ended and is not claimed.
    async fn find_claimable_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Option<JobRecord>, StorageError>;

    /// Returns the jobs that have not ended and are not claimed, oldest first.
    async fn list_claimable_jobs(&self) -> Result<Vec<JobRecord>, StorageError>;

    /// Claims or renews a duty, which one node has at a time, such as sending webhooks. Returns whether the node has it.
    async fn claim_duty(&self, duty: &str, node: &NodeId, lease: Duration) -> Result<bool, StorageError>;

    /// Renews the lease of all claims of a node, and returns them. Claims that are missing are lost.
    async fn renew_claims(&self, node: &NodeId, lease: Duration) -> Result<Vec<JobClaim>, StorageError>;

    /// Ends a claim without ending the job, so that any node can claim it. Does nothing if the claim is lost.
    async fn release_claim(&self, claim: &JobClaim) -> Result<(), StorageError>;

    /// Ends the claims whose lease has ended, so that any node can claim their jobs. Each is returned to one caller.
    async fn release_expired_claims(&self) -> Result<Vec<ExpiredClaim>, StorageError>;
}
