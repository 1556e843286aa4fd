//! Claims: which node runs a job.
//!
//! Several nodes can share a ledger. A node claims a job before it runs it, and renews all its claims before their lease ends. A node that
//! stops without a word, or that is stopped for longer than the lease, loses its claims: another node claims its jobs and goes on with
//! their unfinished pages. Each claim of a job has a higher epoch than the one before. The commits of a run name its claim, and fail with
//! [`StorageError::ClaimLost`] once the job has been claimed again. So a node that wakes up late writes nothing. All times are those of the
//! ledger's clock.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::StorageError;
use crate::id::{JobId, TenantId};
use crate::ledger::JobRecord;

/// The name of a process that runs jobs. A restarted process has another name, because it holds none of the claims.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeId(String);

impl NodeId {
    /// Returns a name that no other process has. It begins with `host`.
    #[must_use]
    pub fn new_unique(host: &str) -> Self {
        Self(format!("{host}/{}", JobId::new()))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The claim of a node to run a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobClaim {
    /// The tenant that owns the job.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// The number of the claim among those of the job, from 1.
    pub epoch: u64,
}

/// The result of [`JobClaimStore::claim_job`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The node runs the job.
    Claimed(JobClaim),
    /// The tenant has as many claimed jobs as it may have.
    TenantAtLimit,
    /// The job has ended, does not exist, or is claimed.
    NotClaimable,
}

/// A claim whose lease has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiredClaim {
    /// The claim.
    pub claim: JobClaim,
    /// How often the job has lost a claim so far, this time included.
    pub lost_claims: u32,
}

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

    /// Returns the jobs that have not ended and are not claimed, oldest first.
    async fn list_claimable_jobs(&self) -> Result<Vec<JobRecord>, StorageError>;

    /// Renews the lease of all claims of a node, and returns them. Claims that are missing are lost.
    async fn renew_claims(&self, node: &NodeId, lease: Duration) -> Result<Vec<JobClaim>, StorageError>;

    /// Ends a claim without ending the job, so that any node can claim it. Does nothing if the claim is lost.
    async fn release_claim(&self, claim: &JobClaim) -> Result<(), StorageError>;

    /// Ends the claims whose lease has ended, so that any node can claim their jobs. Each is returned to one caller.
    async fn release_expired_claims(&self) -> Result<Vec<ExpiredClaim>, StorageError>;
}
