//! Nodes that start at once, and nodes whose clocks are wrong.

use weir_tests::cluster::{BookJobs, Cluster};

use crate::settings;

#[test]
#[ignore = "takes minutes: make cluster-test"]
fn nodes_that_start_at_once_share_one_schema_and_one_key() {
    let cluster = Cluster::start(settings::nodes());
    let nodes = cluster.start_nodes(3);
    assert_eq!(cluster.postgres.query("SELECT count(*) FROM api_keys"), "1");
    assert_eq!(cluster.postgres.query("SELECT id FROM tenants"), "default");
    let mut books = BookJobs::create_tenants(&nodes[0], 2, settings::pages().min(10));
    books.submit_many(&nodes, 6);
    books.wait_until_all_have_ended(&cluster);
    for node in &nodes {
        books.assert_all_are_complete(&cluster, |job| node.client_with_key(&job.key));
    }
}
