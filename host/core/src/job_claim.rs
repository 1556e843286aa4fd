//! Claims: which node runs a job.
//!
//! Several nodes can share a ledger. A node claims a job before it runs it, and renews all its claims before their lease ends. A node that is
//! killed, or that is frozen for longer than the lease, loses its claims: another node claims its jobs and goes on with
//! their unfinished pages. Each claim of a job has a higher epoch than the one before. The commits of a run name its claim, and fail with
//! [`StorageError::ClaimLost`](crate::StorageError::ClaimLost) once the job has been claimed again. So a node that continues after its lease writes nothing. All times are those of the
//! ledger's clock.

use std::fmt;

use crate::id::{JobId, TenantId};

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

    /// Returns the name of the host.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(host, _)| host)
    }

    /// Creates the name that [`NodeId::as_str`] has returned.
    #[must_use]
    pub fn from_stored(name: String) -> Self {
        Self(name)
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

/// The result of [`JobClaimStore::claim_job`](crate::job_claim_store::JobClaimStore::claim_job).
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
