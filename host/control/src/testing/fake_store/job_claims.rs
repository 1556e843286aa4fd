//! Claims of jobs.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use weir_core::job_claim::{ClaimOutcome, ExpiredClaim, JobClaim, NodeId};
use weir_core::job_claim_store::JobClaimStore;
use weir_core::ledger::JobRecord;
use weir_core::{JobId, StorageError, TenantId};

use super::{FakeStore, StoreTables};

impl StoreTables {
    pub(super) fn require_claim(&self, claim: &JobClaim) -> Result<(), StorageError> {
        match self.claims.get(&claim.job) {
            Some(current) if current.epoch == claim.epoch => Ok(()),
            _ => Err(StorageError::ClaimLost { job: claim.job }),
        }
    }

    /// Ends all claims and duties and removes all nodes, as the ledger does that only one process can open.
    pub(in crate::testing) fn release_all_claims(&mut self) {
        self.duties.clear();
        self.nodes.clear();
        self.claims.values_mut().for_each(|claim| claim.owner = None);
    }

    pub(super) fn claim_of(&self, job: JobId, epoch: u64) -> Option<JobClaim> {
        let record = self.jobs.iter().find(|record| record.id == job)?;
        Some(JobClaim {
            tenant: record.tenant.clone(),
            job,
            epoch,
        })
    }
}

#[async_trait]
impl JobClaimStore for FakeStore {
    async fn claim_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
        node: &NodeId,
        lease: Duration,
        max_claimed_jobs: Option<u64>,
    ) -> Result<ClaimOutcome, StorageError> {
        let mut tables = self.0.lock();
        let is_claimed = |job: &JobId| tables.claims.get(job).is_some_and(|claim| claim.owner.is_some());
        let own = tables.jobs.iter().filter(|record| record.tenant == *tenant);
        let claimed = own.clone().filter(|record| is_claimed(&record.id)).count() as u64;
        if max_claimed_jobs.is_some_and(|max| claimed >= max) {
            return Ok(ClaimOutcome::TenantAtLimit);
        }
        let mut unfinished = own.filter(|record| !record.state.is_terminal());
        if is_claimed(job) || !unfinished.any(|record| record.id == *job) {
            return Ok(ClaimOutcome::NotClaimable);
        }
        let claim = tables.claims.entry(*job).or_default();
        claim.owner = Some((node.clone(), Instant::now() + lease));
        claim.epoch += 1;
        Ok(ClaimOutcome::Claimed(JobClaim {
            tenant: tenant.clone(),
            job: *job,
            epoch: claim.epoch,
        }))
    }

    async fn request_cancel(&self, _: &TenantId, job: &JobId) -> Result<bool, StorageError> {
        let mut tables = self.0.lock();
        let claim = tables.claims.get_mut(job).filter(|claim| claim.owner.is_some());
        Ok(claim.map(|claim| claim.cancel_requested = true).is_some())
    }

    async fn list_requested_cancels(&self, node: &NodeId) -> Result<Vec<JobClaim>, StorageError> {
        let tables = self.0.lock();
        let requested = tables.claims.iter().filter(|(_, claim)| {
            claim.cancel_requested && claim.owner.as_ref().is_some_and(|(owner, _)| owner == node)
        });
        let claims = requested.filter_map(|(job, claim)| tables.claim_of(*job, claim.epoch));
        Ok(claims.collect())
    }

    async fn find_claimable_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Option<JobRecord>, StorageError> {
        let claimable = self.list_claimable_jobs().await?;
        Ok(claimable
            .into_iter()
            .find(|record| record.tenant == *tenant && record.id == *job))
    }

    async fn list_claimable_jobs(&self) -> Result<Vec<JobRecord>, StorageError> {
        let tables = self.0.lock();
        let is_claimed = |job: &JobId| tables.claims.get(job).is_some_and(|claim| claim.owner.is_some());
        let jobs = tables.jobs.iter();
        let claimable = jobs.filter(|record| !record.state.is_terminal() && !is_claimed(&record.id));
        let mut claimable: Vec<_> = claimable.cloned().collect();
        claimable.sort_by_key(|record| (record.created_millis, record.id));
        Ok(claimable)
    }

    async fn claim_duty(&self, duty: &str, node: &NodeId, lease: Duration) -> Result<bool, StorageError> {
        let mut tables = self.0.lock();
        let now = Instant::now();
        let holder = tables.duties.get(duty);
        let is_free = holder.is_none_or(|(holder, until)| holder == node || *until < now);
        if is_free {
            tables.duties.insert(duty.to_owned(), (node.clone(), now + lease));
        }
        Ok(is_free)
    }

    async fn renew_claims(&self, node: &NodeId, lease: Duration) -> Result<Vec<JobClaim>, StorageError> {
        let mut tables = self.0.lock();
        let mut renewed = Vec::new();
        for (job, claim) in &mut tables.claims {
            if let Some((owner, until)) = &mut claim.owner
                && owner == node
            {
                *until = Instant::now() + lease;
                renewed.push((*job, claim.epoch));
            }
        }
        let claims = renewed
            .into_iter()
            .filter_map(|(job, epoch)| tables.claim_of(job, epoch));
        Ok(claims.collect())
    }

    async fn release_claim(&self, claim: &JobClaim) -> Result<(), StorageError> {
        let mut tables = self.0.lock();
        if let Some(current) = tables.claims.get_mut(&claim.job)
            && current.epoch == claim.epoch
        {
            current.owner = None;
        }
        Ok(())
    }

    async fn release_expired_claims(&self) -> Result<Vec<ExpiredClaim>, StorageError> {
        let mut tables = self.0.lock();
        let mut expired = Vec::new();
        for (job, claim) in &mut tables.claims {
            if claim
                .owner
                .as_ref()
                .is_some_and(|(_, until)| *until < Instant::now())
            {
                claim.owner = None;
                claim.lost_claims += 1;
                expired.push((*job, claim.epoch, claim.lost_claims));
            }
        }
        let expired = expired.into_iter().filter_map(|(job, epoch, lost_claims)| {
            let claim = tables.claim_of(job, epoch)?;
            Some(ExpiredClaim { claim, lost_claims })
        });
        Ok(expired.collect())
    }
}
