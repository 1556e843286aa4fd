//! A rolling upgrade: each node is stopped and started with the new binary while jobs run.

use std::collections::BTreeSet;

use weir_tests::cluster::{BookJobs, ClaimLog, Cluster, Node, NodeSettings};
use weir_tests::wait_until;

use crate::settings;

const NODES: usize = 3;
const TENANTS: usize = 4;

/// Waits until the node runs a job.
fn wait_until_node_runs_a_job(cluster: &Cluster, node: &Node) {
    wait_until(|| {
        let jobs = cluster.postgres.query(&format!(
            "SELECT count(*) FROM jobs WHERE owner LIKE '{}/%'",
            node.name()
        ));
        (jobs != "0")
            .then_some(())
            .ok_or_else(|| format!("{} runs no job", node.name()))
    });
}

#[test]
#[ignore = "takes minutes: make cluster-test"]
fn nodes_are_upgraded_one_by_one_while_jobs_run() {
    let previous = settings::previous_binary();
    eprintln!("upgrade from {}", previous.display());
    let cluster = Cluster::start(NodeSettings {
        binary: Some(previous),
        ..settings::nodes()
    });
    let mut nodes = cluster.start_nodes(NODES);
    let log = ClaimLog::install(&cluster.postgres);
    let mut books = BookJobs::create_tenants(&nodes[0], TENANTS, settings::pages());
    for number in 0..NODES {
        // Each node gets new jobs, also while nodes of both versions run.
        books.submit_many(&nodes, 4 * NODES);
        wait_until_node_runs_a_job(&cluster, &nodes[number]);
        nodes[number].stop();
        nodes[number].start_again_with_tested_binary();
        wait_until_node_runs_a_job(&cluster, &nodes[number]);
    }
    books.wait_until_all_have_ended(&cluster);
    for node in &nodes {
        books.assert_all_are_complete(&cluster, |job| node.client_with_key(&job.key));
    }
    let claims = log.read(&cluster.postgres);
    let processes: BTreeSet<&str> = claims
        .values()
        .flatten()
        .map(|claim| claim.owner.as_str())
        .collect();
    eprintln!("{} jobs, {} processes ran jobs", claims.len(), processes.len());
    assert_eq!(processes.len(), 2 * NODES, "{processes:?}");
}
