//! Conformance checks of job claims: one node runs a job at a time, and a node that has lost its claim writes nothing.

use std::time::Duration;

use weir_core::job_claim::{ClaimOutcome, JobClaim, NodeId};
use weir_core::job_claim_store::JobClaimStore;
use weir_core::ledger::{JobRecord, JobState, LedgerEntry};
use weir_core::ports::Ledger;
use weir_core::{StorageError, TenantId};

use crate::records::{make_job, unique_name, unique_tenant_id};

const LONG_LEASE: Duration = Duration::from_secs(3600);

/// Checks a store of claims. Panics if the store breaks the contract of its port.
pub async fn check_job_claim_store(store: &(impl JobClaimStore + Ledger)) {
    check_one_claim_at_a_time(store).await;
    check_ended_jobs(store).await;
    check_limit_of_a_tenant(store).await;
    check_renewal_and_expiry(store).await;
    check_requested_cancels(store).await;
    check_commits_of_a_lost_claim(store).await;
    check_order_of_claimable_jobs(store).await;
    check_duties(store).await;
    check_concurrent_claims(store).await;
}

async fn create_job(store: &impl Ledger, tenant: &TenantId) -> JobRecord {
    let job = make_job(tenant, JobState::Queued, 1);
    store
        .commit_entries(vec![LedgerEntry::Job(job.clone())])
        .await
        .unwrap();
    job
}

async fn claim(store: &impl JobClaimStore, job: &JobRecord, node: &NodeId, lease: Duration) -> ClaimOutcome {
    store
        .claim_job(&job.tenant, &job.id, node, lease, None)
        .await
        .unwrap()
}

fn claim_with_epoch(job: &JobRecord, epoch: u64) -> JobClaim {
    JobClaim {
        tenant: job.tenant.clone(),
        job: job.id,
        epoch,
    }
}

async fn check_one_claim_at_a_time(store: &(impl JobClaimStore + Ledger)) {
    let (a, b) = (NodeId::new_unique("a"), NodeId::new_unique("b"));
    let job = create_job(store, &unique_tenant_id("claims")).await;
    let first = claim_with_epoch(&job, 1);
    let is_claimable = async || {
        let listed = store.list_claimable_jobs().await.unwrap().contains(&job);
        let found = store.find_claimable_job(&job.tenant, &job.id).await.unwrap();
        assert_eq!(found, listed.then(|| job.clone()));
        listed
    };
    assert!(is_claimable().await);
    assert_eq!(
        claim(store, &job, &a, LONG_LEASE).await,
        ClaimOutcome::Claimed(first.clone())
    );
    assert!(!is_claimable().await);
    for node in [&a, &b] {
        assert_eq!(
            claim(store, &job, node, LONG_LEASE).await,
            ClaimOutcome::NotClaimable
        );
    }
    // The state of a running job is written without touching the claim.
    let running = JobRecord {
        state: JobState::Running,
        ..job.clone()
    };
    store
        .commit_entries(vec![LedgerEntry::Job(running)])
        .await
        .unwrap();
    assert_eq!(
        claim(store, &job, &b, LONG_LEASE).await,
        ClaimOutcome::NotClaimable
    );

    store.release_claim(&first).await.unwrap();
    let second = claim_with_epoch(&job, 2);
    assert_eq!(
        claim(store, &job, &b, LONG_LEASE).await,
        ClaimOutcome::Claimed(second.clone())
    );
    // The first claim is lost: its release changes nothing.
    store.release_claim(&first).await.unwrap();
    assert_eq!(store.renew_claims(&b, LONG_LEASE).await.unwrap(), [second]);
    assert_eq!(store.renew_claims(&a, LONG_LEASE).await.unwrap(), []);
}

async fn check_ended_jobs(store: &(impl JobClaimStore + Ledger)) {
    let node = NodeId::new_unique("node");
    let tenant = unique_tenant_id("claims");
    let unknown = make_job(&tenant, JobState::Queued, 1);
    assert_eq!(
        claim(store, &unknown, &node, LONG_LEASE).await,
        ClaimOutcome::NotClaimable
    );
    for state in [JobState::Done, JobState::Failed, JobState::Cancelled] {
        let job = create_job(store, &tenant).await;
        claim(store, &job, &node, LONG_LEASE).await;
        let ended = JobRecord { state, ..job };
        store
            .commit_entries(vec![LedgerEntry::Job(ended.clone())])
            .await
            .unwrap();
        // The end of a job ends its claim.
        assert_eq!(store.renew_claims(&node, LONG_LEASE).await.unwrap(), []);
        assert_eq!(
            claim(store, &ended, &node, LONG_LEASE).await,
            ClaimOutcome::NotClaimable
        );
    }
}

async fn check_limit_of_a_tenant(store: &(impl JobClaimStore + Ledger)) {
    let (a, b) = (NodeId::new_unique("a"), NodeId::new_unique("b"));
    let tenant = unique_tenant_id("claims");
    let (x, y) = (create_job(store, &tenant).await, create_job(store, &tenant).await);
    let z = create_job(store, &tenant).await;
    let claim = async |job: &JobRecord, node: &NodeId, max| {
        store
            .claim_job(&tenant, &job.id, node, LONG_LEASE, Some(max))
            .await
            .unwrap()
    };
    let first = claim_with_epoch(&x, 1);
    assert_eq!(claim(&x, &a, 2).await, ClaimOutcome::Claimed(first.clone()));
    assert_eq!(claim(&y, &b, 1).await, ClaimOutcome::TenantAtLimit);
    let second = claim_with_epoch(&y, 1);
    assert_eq!(claim(&y, &b, 2).await, ClaimOutcome::Claimed(second));
    assert_eq!(claim(&z, &a, 2).await, ClaimOutcome::TenantAtLimit);
    store.release_claim(&first).await.unwrap();
    let third = claim_with_epoch(&z, 1);
    assert_eq!(claim(&z, &b, 2).await, ClaimOutcome::Claimed(third));
}

async fn check_renewal_and_expiry(store: &(impl JobClaimStore + Ledger)) {
    let (a, b) = (NodeId::new_unique("a"), NodeId::new_unique("b"));
    let tenant = unique_tenant_id("claims");
    let (kept, lost) = (create_job(store, &tenant).await, create_job(store, &tenant).await);
    claim(store, &kept, &a, Duration::ZERO).await;
    claim(store, &lost, &b, Duration::ZERO).await;
    let held = [claim_with_epoch(&kept, 1)];
    assert_eq!(store.renew_claims(&a, LONG_LEASE).await.unwrap(), held);
    let expired_of = async |job: &JobRecord| {
        let expired = store.release_expired_claims().await.unwrap();
        let own = expired
            .into_iter()
            .filter(|expired| expired.claim.tenant == tenant);
        let own: Vec<_> = own.map(|expired| (expired.claim, expired.lost_claims)).collect();
        own.into_iter().find(|(claim, _)| claim.job == job.id)
    };
    // The lease ends when the ledger's clock has moved on.
    let mut losses = 0;
    for epoch in 1..=3 {
        let expired = loop {
            if let Some(expired) = expired_of(&lost).await {
                break expired;
            }
        };
        losses += 1;
        assert_eq!(expired, (claim_with_epoch(&lost, epoch), losses));
        assert_eq!(expired_of(&lost).await, None);
        assert_eq!(store.renew_claims(&b, LONG_LEASE).await.unwrap(), []);
        let again = ClaimOutcome::Claimed(claim_with_epoch(&lost, epoch + 1));
        assert_eq!(claim(store, &lost, &b, Duration::ZERO).await, again);
    }
    assert_eq!(store.renew_claims(&a, LONG_LEASE).await.unwrap(), held);
}

async fn check_requested_cancels(store: &(impl JobClaimStore + Ledger)) {
    let (a, b) = (NodeId::new_unique("a"), NodeId::new_unique("b"));
    let tenant = unique_tenant_id("claims");
    let (job, other) = (create_job(store, &tenant).await, create_job(store, &tenant).await);
    assert!(!store.request_cancel(&tenant, &job.id).await.unwrap());
    claim(store, &job, &a, LONG_LEASE).await;
    claim(store, &other, &a, LONG_LEASE).await;
    assert_eq!(store.list_requested_cancels(&a).await.unwrap(), []);
    assert!(store.request_cancel(&tenant, &job.id).await.unwrap());
    let first = claim_with_epoch(&job, 1);
    let requested = store.list_requested_cancels(&a).await.unwrap();
    assert_eq!(requested.as_slice(), std::slice::from_ref(&first));
    // The request stays valid for the next node.
    store.release_claim(&first).await.unwrap();
    assert_eq!(store.list_requested_cancels(&a).await.unwrap(), []);
    claim(store, &job, &b, LONG_LEASE).await;
    assert_eq!(
        store.list_requested_cancels(&b).await.unwrap(),
        [claim_with_epoch(&job, 2)]
    );
}

async fn check_commits_of_a_lost_claim(store: &(impl JobClaimStore + Ledger)) {
    let (a, b) = (NodeId::new_unique("a"), NodeId::new_unique("b"));
    let job = create_job(store, &unique_tenant_id("claims")).await;
    let other = create_job(store, &job.tenant).await;
    claim(store, &job, &a, LONG_LEASE).await;
    let (first, second) = (claim_with_epoch(&job, 1), claim_with_epoch(&job, 2));
    let rename = async |claim: &JobClaim, pipeline: &str| {
        let renamed = |job: &JobRecord| {
            LedgerEntry::Job(JobRecord {
                pipeline: pipeline.into(),
                ..job.clone()
            })
        };
        let entries = vec![
            renamed(&other),
            LedgerEntry::RequireClaim(claim.clone()),
            renamed(&job),
        ];
        store.commit_entries(entries).await
    };
    rename(&first, "first").await.unwrap();
    // A claim that was released is valid until the job is claimed again.
    store.release_claim(&first).await.unwrap();
    rename(&first, "released").await.unwrap();
    claim(store, &job, &b, LONG_LEASE).await;
    let refused = rename(&first, "late").await.unwrap_err();
    assert_eq!(refused, StorageError::ClaimLost { job: job.id });
    let unknown = rename(&claim_with_epoch(&job, 3), "early").await.unwrap_err();
    assert_eq!(unknown, StorageError::ClaimLost { job: job.id });
    for job in [&job, &other] {
        let found = store.find_job(&job.tenant, &job.id).await.unwrap().unwrap();
        assert_eq!(found.pipeline, "released");
    }
    rename(&second, "second").await.unwrap();
}

async fn check_order_of_claimable_jobs(store: &(impl JobClaimStore + Ledger)) {
    let tenant = unique_tenant_id("claims");
    let jobs = [3, 1, 2].map(|created_millis| make_job(&tenant, JobState::Queued, created_millis));
    let entries = jobs.iter().cloned().map(LedgerEntry::Job).collect();
    store.commit_entries(entries).await.unwrap();
    let listed = store.list_claimable_jobs().await.unwrap();
    let own = listed.into_iter().filter(|job| job.tenant == tenant);
    let created: Vec<_> = own.map(|job| job.created_millis).collect();
    assert_eq!(created, [1, 2, 3]);
}

async fn check_duties(store: &impl JobClaimStore) {
    let (a, b) = (NodeId::new_unique("a"), NodeId::new_unique("b"));
    let (duty, other) = (unique_name("duty"), unique_name("duty"));
    let claim = async |duty: &str, node: &NodeId, lease| store.claim_duty(duty, node, lease).await.unwrap();
    assert!(claim(&duty, &a, LONG_LEASE).await);
    assert!(!claim(&duty, &b, LONG_LEASE).await);
    assert!(claim(&other, &b, LONG_LEASE).await);
    // Each call of the holder renews the lease.
    assert!(claim(&duty, &a, Duration::ZERO).await);
    while !claim(&duty, &b, LONG_LEASE).await {}
    assert!(!claim(&duty, &a, LONG_LEASE).await);
}

async fn check_concurrent_claims(store: &(impl JobClaimStore + Ledger)) {
    let tenant = unique_tenant_id("claims");
    let job = create_job(store, &tenant).await;
    let nodes: Vec<_> = (0..8).map(|_| NodeId::new_unique("node")).collect();
    let claims = nodes.iter().map(|node| claim(store, &job, node, LONG_LEASE));
    let outcomes = futures::future::join_all(claims).await;
    let claimed = |outcome: &&ClaimOutcome| matches!(outcome, ClaimOutcome::Claimed(_));
    assert_eq!(outcomes.iter().filter(claimed).count(), 1, "{outcomes:?}");
}
