//! The claims of this node: it claims a job before it runs it, and renews its claims.
//!
//! The renewal runs in a task of its own, for all claims at once. A claim that the ledger does not know any more is lost: its job stops.
//! If the ledger does not respond for half a lease, all jobs stop before another node may start them. The commits of a job name its claim,
//! so this only saves work: a node that stops too late is refused by the ledger.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use weir_core::job_claim::{ClaimOutcome, ExpiredClaim, JobClaim};
use weir_core::job_claim_store::JobClaimStore;
use weir_core::ledger::JobRecord;
use weir_core::node::{NodeInfo, NodeRecord, NodeRegistry, NodeRole};
use weir_core::{JobId, StorageError, TenantId};
use weir_engine::Engine;

use crate::node_messages::NodeMessages;
use crate::node_record::{RENEWALS_PER_LEASE, remove_node_record};

/// The claims of this node.
pub struct NodeClaims {
    store: Arc<dyn JobClaimStore>,
    nodes: Arc<dyn NodeRegistry>,
    messages: Arc<NodeMessages>,
    node: NodeInfo,
    lease: Duration,
    /// The number of nodes that serve the API, at least 1.
    api_nodes: AtomicU32,
    held: Mutex<HashMap<JobId, HeldClaim>>,
    /// Jobs for which a call of the store is in progress.
    in_progress: Mutex<HashSet<JobId>>,
}

/// Marks a job for which a call of the store is in progress, until it is dropped.
struct ClaimInProgress<'a>(&'a NodeClaims, JobId);

impl<'a> ClaimInProgress<'a> {
    fn new(claims: &'a NodeClaims, job: JobId) -> Self {
        claims.in_progress.lock().insert(job);
        Self(claims, job)
    }
}

impl Drop for ClaimInProgress<'_> {
    fn drop(&mut self) {
        self.0.in_progress.lock().remove(&self.1);
    }
}

struct HeldClaim {
    claim: JobClaim,
    claimed_at: Instant,
}

impl NodeClaims {
    /// Creates the claims of a node that has none.
    pub fn new(
        store: Arc<dyn JobClaimStore>,
        nodes: Arc<dyn NodeRegistry>,
        messages: Arc<NodeMessages>,
        node: NodeInfo,
        lease: Duration,
    ) -> Self {
        Self {
            store,
            nodes,
            messages,
            api_nodes: AtomicU32::new(1),
            node,
            lease,
            held: Mutex::default(),
            in_progress: Mutex::default(),
        }
    }

    /// Claims a job. `max_claimed_jobs` is the maximum number of jobs of its tenant that run at once on all nodes.
    pub(crate) async fn claim_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
        max_claimed_jobs: Option<u64>,
    ) -> Result<ClaimOutcome, StorageError> {
        let _in_progress = ClaimInProgress::new(self, *job);
        let claimed = self
            .store
            .claim_job(tenant, job, &self.node.id, self.lease, max_claimed_jobs)
            .await;
        if let Ok(ClaimOutcome::Claimed(claim)) = &claimed {
            let held = HeldClaim {
                claim: claim.clone(),
                claimed_at: Instant::now(),
            };
            self.held.lock().insert(*job, held);
            counter!("weir_job_claims_total").increment(1);
        }
        claimed
    }

    /// Returns the claim of a job that is to be ended without running it: the present one of this node, or a new one. Fails with
    /// [`StorageError::ClaimLost`] if another node runs the job.
    pub(crate) async fn claim_to_end_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<JobClaim, StorageError> {
        let held = self.held.lock().get(job).map(|held| held.claim.clone());
        if let Some(claim) = held {
            return Ok(claim);
        }
        match self.claim_job(tenant, job, None).await? {
            ClaimOutcome::Claimed(claim) => Ok(claim),
            ClaimOutcome::NotClaimable | ClaimOutcome::TenantAtLimit => {
                Err(StorageError::ClaimLost { job: *job })
            }
        }
    }

    /// Asks the node that runs a job to cancel it. Returns whether a node runs it.
    pub(crate) async fn request_cancel(&self, tenant: &TenantId, job: &JobId) -> Result<bool, StorageError> {
        let is_claimed = self.store.request_cancel(tenant, job).await?;
        if is_claimed {
            self.messages.announce_changed_claims();
        }
        Ok(is_claimed)
    }

    /// Returns the jobs of this node that another node was asked to cancel.
    pub(crate) async fn list_requested_cancels(&self) -> Result<Vec<JobClaim>, StorageError> {
        self.store.list_requested_cancels(&self.node.id).await
    }

    /// Returns a job if it has not ended and no node runs it.
    pub(crate) async fn find_claimable_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Option<JobRecord>, StorageError> {
        self.store.find_claimable_job(tenant, job).await
    }

    /// Returns the jobs that have not ended and that no node runs, oldest first.
    pub(crate) async fn list_claimable_jobs(&self) -> Result<Vec<JobRecord>, StorageError> {
        self.store.list_claimable_jobs().await
    }

    /// Ends the claims of all nodes whose lease has ended, and returns them.
    pub(crate) async fn release_expired_claims(&self) -> Result<Vec<ExpiredClaim>, StorageError> {
        self.store.release_expired_claims().await
    }

    /// Claims or renews a duty for this time; one node has it at a time. Returns whether this node has it.
    pub(crate) async fn claim_duty(&self, duty: &str, time: Duration) -> Result<bool, StorageError> {
        self.store.claim_duty(duty, &self.node.id, time).await
    }

    /// Returns how long a claim lasts without being renewed.
    pub(crate) const fn lease(&self) -> Duration {
        self.lease
    }

    /// Forgets the claim of a job that has ended.
    pub(crate) fn forget_claim(&self, job: &JobId) {
        self.held.lock().remove(job);
    }

    /// Ends the claim of a job that has not ended, so that any node can go on with it. After an error the next renewal releases it.
    pub(crate) async fn release_claim(&self, job: &JobId) {
        let held = self.held.lock().remove(job);
        if let Some(HeldClaim { claim, .. }) = held
            && let Err(error) = self.release_and_announce(&claim).await
        {
            tracing::warn!(%job, %error, "a claim could not be released: the next renewal releases it");
        }
    }

    async fn release_and_announce(&self, claim: &JobClaim) -> Result<(), StorageError> {
        self.store.release_claim(claim).await?;
        self.messages.announce_claimable_job(&claim.tenant, claim.job);
        Ok(())
    }

    /// Renews all claims at once, and stops the jobs of those that are lost. Returns when the leases were known to hold.
    async fn renew_claims(&self, engine: &Engine) -> Result<Instant, StorageError> {
        let began = Instant::now();
        let renewed = self.store.renew_claims(&self.node.id, self.lease).await?;
        histogram!("weir_lease_renew_seconds").record(began.elapsed());
        let lost: Vec<JobId> = {
            let held = self.held.lock();
            let older = held.values().filter(|held| held.claimed_at < began);
            let lost = older.filter(|held| !renewed.contains(&held.claim));
            lost.map(|held| held.claim.job).collect()
        };
        for job in lost {
            self.stop_job(engine, &job);
        }
        if let Err(error) = self.release_unknown_claims(renewed).await {
            tracing::warn!(%error, "a claim of a job that does not run here could not be released");
        }
        Ok(began)
    }

    /// Releases claims that this node does not know: the response to a claim was lost, or a release has failed.
    async fn release_unknown_claims(&self, renewed: Vec<JobClaim>) -> Result<(), StorageError> {
        for claim in renewed {
            let is_known =
                self.held.lock().contains_key(&claim.job) || self.in_progress.lock().contains(&claim.job);
            if !is_known {
                tracing::warn!(job = %claim.job, "a claim of a job that does not run here is released");
                self.release_and_announce(&claim).await?;
            }
        }
        Ok(())
    }

    /// Stops the job of a claim of this node that has ended, if it runs.
    pub(crate) fn stop_job_of_claim(&self, engine: &Engine, claim: &JobClaim) {
        let is_held = self
            .held
            .lock()
            .get(&claim.job)
            .is_some_and(|held| held.claim == *claim);
        if is_held {
            self.stop_job(engine, &claim.job);
        }
    }

    fn stop_job(&self, engine: &Engine, job: &JobId) {
        self.forget_claim(job);
        if let Some(handle) = engine.active_job(job) {
            handle.stop_without_claim();
        }
    }

    fn stop_all_jobs(&self, engine: &Engine) {
        let jobs: Vec<JobId> = self.held.lock().keys().copied().collect();
        for job in jobs {
            self.stop_job(engine, &job);
        }
    }

    /// Returns this node.
    pub fn node(&self) -> &NodeInfo {
        &self.node
    }

    /// Returns the number of nodes that serve the API, at least 1.
    pub fn count_api_nodes(&self) -> u32 {
        self.api_nodes.load(Ordering::Relaxed)
    }

    /// Renews the record of this node. The claims hold without it, but the node then makes no calls of shared language models.
    async fn renew_node_and_count_others(&self) {
        let nodes = async {
            self.nodes.renew_node(&self.node, self.lease).await?;
            self.nodes.list_nodes().await
        };
        let nodes = match nodes.await {
            Ok(nodes) => nodes,
            Err(error) => return tracing::warn!(%error, "the record of this node could not be renewed"),
        };
        let alive_roles = || {
            nodes
                .iter()
                .filter(|node| node.is_alive)
                .map(|node| node.node.role)
        };
        for role in NodeRole::ALL {
            let count = alive_roles().filter(|alive| *alive == role).count();
            gauge!("weir_cluster_nodes", "role" => role.name()).set(count as f64);
        }
        let api_nodes = alive_roles().filter(|role| role.serves_api()).count();
        self.api_nodes.store(
            u32::try_from(api_nodes.max(1)).unwrap_or(u32::MAX),
            Ordering::Relaxed,
        );
    }

    /// Returns the nodes that share the ledger.
    pub async fn list_nodes(&self) -> Result<Vec<NodeRecord>, StorageError> {
        self.nodes.list_nodes().await
    }

    /// Renews the claims and the record of this node until `stop` is canceled, which must happen after the last job has ended. Removes
    /// the record then.
    pub(crate) async fn renew_until_stopped(&self, engine: &Engine, stop: CancellationToken) {
        let interval = self.lease / RENEWALS_PER_LEASE;
        let mut renewed_at = Instant::now();
        let renew_node = async || {
            let renewal = tokio::time::timeout(interval / 2, self.renew_node_and_count_others());
            if renewal.await.is_err() {
                tracing::warn!("the renewal of the record of this node takes too long");
            }
        };
        renew_node().await;
        while stop.run_until_cancelled(sleep(interval)).await.is_some() {
            let renewal = tokio::time::timeout(interval, self.renew_claims(engine)).await;
            match renewal {
                Ok(Ok(at)) => renewed_at = at,
                Ok(Err(error)) => tracing::warn!(%error, "the claims could not be renewed"),
                Err(_) => tracing::warn!("the renewal of the claims takes too long"),
            }
            // The next check comes after two and a half intervals at the latest: one sleep and two timeouts.
            if renewed_at.elapsed() + 5 * interval / 2 > self.lease {
                self.stop_all_jobs(engine);
            }
            renew_node().await;
        }
        remove_node_record(self.nodes.as_ref(), &self.node.id, interval).await;
    }
}
