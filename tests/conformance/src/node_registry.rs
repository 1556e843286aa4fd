//! Conformance checks of the records of nodes.

use std::time::Duration;

use weir_core::job_claim::{ClaimOutcome, NodeId};
use weir_core::job_claim_store::JobClaimStore;
use weir_core::ledger::{JobState, LedgerEntry};
use weir_core::node::{NodeInfo, NodeRecord, NodeRegistry, NodeRole};
use weir_core::ports::Ledger;

use crate::records::{make_job, unique_tenant_id};

const LONG_LEASE: Duration = Duration::from_secs(3600);

/// Checks a store of node records. Panics if the store breaks the contract of its port.
pub async fn check_node_registry(store: &(impl NodeRegistry + JobClaimStore + Ledger)) {
    let [api, worker] = [("a", NodeRole::Api), ("b", NodeRole::Worker)].map(|(host, role)| NodeInfo {
        id: NodeId::new_unique(&format!("{host}-{}", unique_tenant_id("node"))),
        role,
        version: "1.2.3".into(),
    });
    assert_eq!(find_node(store, &api).await, None);
    store.renew_node(&api, LONG_LEASE).await.unwrap();
    store.renew_node(&worker, LONG_LEASE).await.unwrap();
    let first = find_node(store, &api).await.unwrap();
    assert_eq!((&first.node, first.is_alive), (&api, true));
    assert_eq!(first.claims, []);
    assert!(
        first.last_renewal_age < LONG_LEASE && first.started_millis > 0,
        "{first:?}"
    );

    let job = make_job(&unique_tenant_id("nodes"), JobState::Queued, 1);
    store
        .commit_entries(vec![LedgerEntry::Job(job.clone())])
        .await
        .unwrap();
    let claimed = store.claim_job(&job.tenant, &job.id, &worker.id, LONG_LEASE, None);
    let ClaimOutcome::Claimed(claim) = claimed.await.unwrap() else {
        panic!("the job is not claimed");
    };
    assert_eq!(find_node(store, &worker).await.unwrap().claims, [claim]);
    assert_eq!(find_node(store, &api).await.unwrap().claims, []);

    // A lease that has ended can be renewed: the node was frozen.
    store.renew_node(&api, Duration::ZERO).await.unwrap();
    let mut lost = find_node(store, &api).await.unwrap();
    while lost.is_alive {
        lost = find_node(store, &api).await.unwrap();
    }
    store.renew_node(&api, LONG_LEASE).await.unwrap();
    let again = find_node(store, &api).await.unwrap();
    assert_eq!(
        (again.is_alive, again.started_millis),
        (true, first.started_millis)
    );

    store.remove_node(&api.id).await.unwrap();
    assert_eq!(find_node(store, &api).await, None);
    assert!(find_node(store, &worker).await.is_some());
}

async fn find_node(store: &impl NodeRegistry, node: &NodeInfo) -> Option<NodeRecord> {
    let nodes = store.list_nodes().await.unwrap();
    nodes.into_iter().find(|record| record.node.id == node.id)
}
