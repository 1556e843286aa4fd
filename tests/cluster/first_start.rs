//! Nodes that start at once, and nodes whose clocks are wrong.

use std::collections::BTreeSet;
use std::path::Path;

use weir_tests::cluster::{BookJobs, ClaimLog, Cluster, Node, NodeSettings};

use crate::settings;

#[test]
#[ignore = "takes minutes: make cluster-test"]
fn nodes_that_start_at_once_share_one_schema_and_one_key() {
    let cluster = Cluster::start_with_redis(settings::nodes());
    let nodes = cluster.start_nodes(3);
    assert_eq!(cluster.postgres.query("SELECT count(*) FROM api_keys"), "1");
    assert_eq!(cluster.postgres.query("SELECT id FROM tenants"), "default");
    run_jobs_on(&cluster, &nodes);
}

/// Returns by how many hours the clock of a node is ahead of the clock of the first one, by the `Date` of its responses.
fn hours_ahead(first: &Node, node: &Node) -> i64 {
    let seconds_of_day = |node: &Node| {
        let response = node.admin_client().get("/healthz");
        let date = response.headers["date"].to_str().unwrap();
        let time = date.split(' ').nth(4).unwrap();
        time.split(':')
            .fold(0, |sum, part| 60 * sum + part.parse::<i64>().unwrap())
    };
    let day = 24 * 60 * 60;
    let seconds = (seconds_of_day(node) - seconds_of_day(first) + day / 2).rem_euclid(day) - day / 2;
    (seconds + 1800).div_euclid(3600)
}

/// Runs jobs that all nodes take part in, and checks them on each node.
fn run_jobs_on(cluster: &Cluster, nodes: &[Node]) {
    let log = ClaimLog::install(&cluster.postgres);
    let mut books = BookJobs::create_tenants(&nodes[0], 2, settings::pages().min(10));
    books.submit_many(nodes, 4 * nodes.len());
    books.wait_until_all_have_ended(cluster);
    for node in nodes {
        books.assert_all_are_complete(cluster, |job| node.client_with_key(&job.key));
    }
    let claims = log.read(&cluster.postgres);
    let owners: BTreeSet<&str> = claims
        .values()
        .flatten()
        .map(|claim| claim.owner.split('/').next().unwrap())
        .collect();
    assert_eq!(owners.len(), nodes.len(), "{owners:?} ran jobs");
    assert!(claims.values().all(|claims| claims.len() == 1), "{claims:?}");
}

#[test]
#[ignore = "takes minutes: make cluster-test"]
fn wrong_clocks_of_nodes_have_no_effect_on_claims() {
    let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|target| format!("/usr/lib/{target}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("libfaketime is not installed: run deploy/setup cluster");
    let cluster = Cluster::start_with_redis(settings::nodes());
    let start_with_clock = |name, offset: &str| {
        let environment = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME", offset),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        let settings = NodeSettings {
            environment: environment
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            ..settings::nodes()
        };
        cluster.start_node_with_settings(name, &settings)
    };
    let nodes = [
        cluster.start_node("right"),
        start_with_clock("fast", "+1h"),
        start_with_clock("slow", "-1h"),
    ];
    for (node, hours) in nodes.iter().zip([0, 1, -1]) {
        assert_eq!(
            hours_ahead(&nodes[0], node),
            hours,
            "the clock of {}",
            node.name()
        );
    }
    run_jobs_on(&cluster, &nodes);
    for node in &nodes {
        let reclaimed = node.admin_client().metric_value("weir_jobs_reclaimed_total");
        assert_eq!(reclaimed, 0.0, "{} has ended claims of others", node.name());
    }
}
